# SPDX-License-Identifier: Apache-2.0
"""What is done to vectors before an index sees them, and to queries before a search.

A transform is made once, from numbers (``Linear(matrix)``) or from data
(``PCA.fit(vectors, 64)``), and then never changes. `Chain` puts some one after the
other, `annx.TransformedIndex` puts one before an index of any family. Every transform
can be saved, loaded and pickled by itself.

Results are float32. They are the same bits for a row by itself and in a batch, for any
number of threads and on every instruction set, so a query that equals a vector is at
distance 0 from it after the transform, too.
"""

from __future__ import annotations

from annx.transforms.base import Chain, Transform
from annx.transforms.fixed import Linear, Mask, Normalise, Rotation
from annx.transforms.learnt import PCA, Bilinear, Centre

__all__ = [
    "PCA",
    "Bilinear",
    "Centre",
    "Chain",
    "Linear",
    "Mask",
    "Normalise",
    "Rotation",
    "Transform",
]
