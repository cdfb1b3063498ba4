# SPDX-License-Identifier: Apache-2.0
"""Every algorithm of annx again, in plain NumPy, to read and to test against."""

from __future__ import annotations

from annx.reference.codec import KMeans, ProductQuantizer
from annx.reference.random import Random

__all__ = ["KMeans", "ProductQuantizer", "Random"]
