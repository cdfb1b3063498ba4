# SPDX-License-Identifier: Apache-2.0
"""Every algorithm of annx again, in plain NumPy, to read and to test against."""

from __future__ import annotations

__all__: list[str] = []
