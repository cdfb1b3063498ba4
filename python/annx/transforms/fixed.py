# SPDX-License-Identifier: Apache-2.0
"""Transforms that are what they are, without data."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from annx._validate import as_rows, check_dim, check_int
from annx.transforms.base import Floats, Transform, native_step, step

__all__ = ["Linear", "Mask", "Normalise", "Rotation"]


@step("rotation")
class Rotation(Transform):
    """A random rotation: distances stay, and no dimension stands out.

    Parameters
    ----------
    dim : int
    seed : int, default 0

    Notes
    -----
    Two rounds of random signs and Hadamard transforms, O(dim log dim) a row; see
    `annx.reference.RandomRotation`. For a rotation that is given, use `Linear`.

    References
    ----------
    Ailon and Chazelle, "The fast Johnson-Lindenstrauss transform", 2009.

    Examples
    --------
    >>> from annx.transforms import Rotation
    >>> bool(abs((Rotation(8).transform([[3.0] + [0.0] * 7]) ** 2).sum() - 9) < 1e-5)
    True
    """

    def __init__(self, dim: int, *, seed: int = 0) -> None:
        self._native = native_step(
            "rotation",
            check_dim(dim),
            seed=check_int(seed, name="seed", low=0, high=2**64 - 1),
        )

    @property
    def seed(self) -> int:
        """What it was drawn from."""
        return int(self._native.seed)


@step("normalise")
class Normalise(Transform):
    """Divide every vector by its length.

    Parameters
    ----------
    dim : int

    Notes
    -----
    ``x / |x|``, the length in float64; a vector whose squared length is below the
    smallest normal float32 becomes zero. l2 distances become ``2 - 2 cos``.

    Examples
    --------
    >>> from annx.transforms import Normalise
    >>> Normalise(2).transform([[0.0, -4.0], [0.0, 0.0]]).tolist()
    [[0.0, -1.0], [0.0, 0.0]]
    """

    def __init__(self, dim: int) -> None:
        self._native = native_step("normalise", check_dim(dim))


@step("linear")
class Linear(Transform):
    """Multiply vectors and queries by a matrix.

    Parameters
    ----------
    matrix : array_like, shape (dim, input_dim)

    Notes
    -----
    ``matrix @ x``. With ``matrix = L.T`` and l2, distances become
    ``(q - x)^T L L^T (q - x)``: a learned metric.

    Examples
    --------
    >>> from annx.transforms import Linear
    >>> Linear([[1.0, 1.0]]).transform([[2.0, 3.0]]).tolist()
    [[5.0]]
    """

    def __init__(self, matrix: Any) -> None:
        rows = as_rows(matrix, name="matrix", dim=None)
        check_dim(rows.shape[0])
        self._native = native_step("linear", rows.shape[1], rows.shape[0], matrix=rows)

    @property
    def matrix(self) -> Floats:
        """The matrix, shape (dim, input_dim): a copy."""
        matrix: Floats = self._native.matrix
        return matrix


@step("mask")
class Mask(Transform):
    """Keep some dimensions and leave the others out.

    Parameters
    ----------
    dim : int
        Dimensions of the vectors that go in.
    kept : array_like of int, shape (n,), or of bool, shape (dim,)
        The dimensions to keep, in the order in which they come out, or a mask.

    Notes
    -----
    Every metric is then that of the subspace. Vectors are stored without what is left
    out.

    Examples
    --------
    >>> from annx.transforms import Mask
    >>> Mask(4, [3, 0]).transform([[1.0, 2.0, 3.0, 4.0]]).tolist()
    [[4.0, 1.0]]
    """

    def __init__(self, dim: int, kept: Any) -> None:
        width = check_dim(dim)
        array = np.asarray(kept)
        if array.ndim != 1:
            raise ValueError(f"kept has {array.ndim} dimensions; it must have 1")
        if array.dtype.kind == "b":
            if array.size != width:
                raise ValueError(f"kept has {array.size} entries; it must have {width}")
            array = np.flatnonzero(array)
        if array.size == 0:
            raise ValueError("kept leaves no dimension; it must keep at least 1")
        if array.dtype.kind not in "iu":
            raise TypeError(f"kept has dtype {array.dtype}; it must be int or bool")
        if array.min() < 0 or array.max() >= width:
            raise ValueError(
                f"kept holds {array.min()} to {array.max()}; dimensions are 0 to "
                f"{width - 1}"
            )
        columns = np.ascontiguousarray(array, np.uint32)
        self._native = native_step("mask", width, columns.size, columns=columns)

    @property
    def kept(self) -> NDArray[np.int64]:
        """The dimensions that are kept, shape (dim,): a copy."""
        kept: NDArray[np.int64] = self._native.columns.astype(np.int64)
        return kept
