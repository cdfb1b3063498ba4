# SPDX-License-Identifier: Apache-2.0
"""Rows as 8-bit numbers on one grid for all dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from annx.reference.links import RandomRotation

__all__ = ["RowGrid"]

Floats = NDArray[np.floating[Any]]

SAMPLE = 65536
MEDIAN_ROWS = 1024
# The share of the rows that may be left out of the grid.
WIDE = 0.005
FEW_ROWS = 4096
MARGIN = 1.25
LEAST_STEP = 1e-18
MOST = 127


def _evenly(rows: Floats, count: int) -> Floats:
    count = min(count, len(rows))
    return rows[np.arange(count) * len(rows) // count]


def _half_range(placed: Floats) -> float:
    """Return half the range of a grid: the largest coordinate of all rows or of most.

    The latter where the former is more than twice as large.
    """
    largest = np.sort(np.abs(placed).max(axis=1))
    most = largest[len(largest) - 1 - int(WIDE * len(largest))]
    return float(most if largest[-1] > 2 * most else largest[-1])


class RowGrid:
    """A grid that holds rows in 8 bits a coordinate, learnt from rows.

    Parameters
    ----------
    rows : array_like, shape (n, dim)
        At least one.
    turn : bool, default True
        Whether rows may be rotated.
    seed : int, default 0
        Of the rotation.

    Attributes
    ----------
    centre : ndarray, shape (dim,)
    step : float
    turned : bool

    Notes
    -----
    ``R (x - centre) ~ step * 2**e * u`` with whole numbers u from -128 to 127. e is the
    same for all rows, 0, but for those that lie outside the grid: they have the least
    with which they fit. So of rows with equal e, the squared distance is that of their
    codes times ``(step * 2**e)**2``.

    R is a random rotation or none, and the centre is the middle of each dimension's
    range or its median (with R the median), whichever gives the smallest step. Rows of
    whole multiples of a power of two, at most 255 of it apart, are kept exactly. Fewer
    than 4,096 rows make the step a quarter larger, for those to come.
    O(d log d) a row.

    Examples
    --------
    >>> rows = np.array([[0.0, 3.0], [200.0, 5.0], [255.0, 0.0]])
    >>> grid = RowGrid(rows)
    >>> codes, exponents = grid.encode(rows)
    >>> grid.step, codes[:, 0].tolist(), exponents.tolist()
    (1.0, [-128, 72, 127], [0, 0, 0])
    >>> bool((grid.decode(codes, exponents) == rows).all())
    True
    """

    def __init__(self, rows: Any, *, turn: bool = True, seed: int = 0) -> None:
        x = np.asarray(rows, np.float32)
        sample = _evenly(x, SAMPLE)
        low, high = sample.min(axis=0), sample.max(axis=0)
        middle = np.float32(0.5) * low + np.float32(0.5) * high
        few = _evenly(x, MEDIAN_ROWS)
        median = np.sort(few, axis=0)[len(few) // 2]
        self._rotation: RandomRotation | None = None
        self.centre = middle
        half = float((0.5 * high - 0.5 * low).max())
        unit = 2.0 ** np.ceil(np.log2(max(half, LEAST_STEP) / 127.5))
        unit = max(unit, LEAST_STEP)
        snapped = np.floor(middle / unit + 0.5) * unit
        codes = (sample - snapped) / unit
        if (
            codes == np.floor(codes)
        ).all() and -128 <= codes.min() <= codes.max() <= 127:
            self.centre, self.step = snapped, float(unit)
            return
        half = _half_range(sample - median)
        by_range = _half_range(sample - middle)
        if by_range >= half:
            self.centre = median
        half = min(half, by_range)
        if turn:
            rotation = RandomRotation(x.shape[1], seed)
            by_turn = _half_range(rotation.apply(sample - median))
            if by_turn < half:
                half, self.centre, self._rotation = by_turn, median, rotation
        if len(x) < FEW_ROWS:
            half *= MARGIN
        self.step = max(half / MOST, LEAST_STEP)

    @property
    def turned(self) -> bool:
        """Whether rows are rotated."""
        return self._rotation is not None

    def place(self, rows: Any) -> Floats:
        """Return ``R (x - centre)`` of rows, shape (n, dim)."""
        x = np.asarray(rows, np.float64) - self.centre
        placed: Floats = x if self._rotation is None else self._rotation.apply(x)
        return placed

    def encode(self, rows: Any) -> tuple[NDArray[np.int8], NDArray[np.uint8]]:
        """Return the codes of rows, shape (n, dim), and their exponents, shape (n,)."""
        placed = self.place(rows)
        exponents = np.zeros(len(placed), np.uint8)
        while True:
            steps = np.ldexp(self.step, exponents.astype(int))[:, None]
            codes = np.floor(placed / steps + 0.5)
            outside = (codes < -128).any(axis=1) | (codes > MOST).any(axis=1)
            if not outside.any():
                return codes.astype(np.int8), exponents
            exponents[outside] += 1

    def decode(self, codes: Any, exponents: Any) -> Floats:
        """Return the rows that codes stand for, shape (n, dim)."""
        steps = np.ldexp(self.step, np.asarray(exponents).astype(int))[:, None]
        placed = steps * np.asarray(codes, np.float64)
        if self._rotation is not None:
            # Its columns are the axes turned, so the transpose takes it back.
            placed = placed @ self._rotation.apply(np.eye(placed.shape[1])).T
        rows: Floats = placed + self.centre
        return rows
