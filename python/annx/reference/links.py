# SPDX-License-Identifier: Apache-2.0
"""Codes of the links of a graph in plain NumPy.

The same steps as the native codec, without its rounding of tables (7 bits), of the
query's coordinates (8 bits) and of offsets and scales (float16).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from annx.reference.codec import draw_distinct
from annx.reference.random import Random

__all__ = ["LinkCodec", "RandomRotation", "cut_axes", "principal_axes"]

LEVELS = 16
STEP = 4
DENSE_DIM = 256
ROTATED_SLACK = 1.1
MOST_ROTATED_WIDTH = 8
MOST_PARTS = 256
ROUNDS = 2
ITERATIONS = 15
DISTORTIONS = {
    1: 0.0095,
    2: 0.108,
    3: 0.235,
    4: 0.342,
    5: 0.43,
    6: 0.503,
    8: 0.603,
    12: 0.728,
    16: 0.792,
}
"""Mean squared error of 16 levels for so many dimensions of a standard Gaussian."""

Floats = NDArray[np.float64]


class RandomRotation:
    """A random rotation of any dimension: signs and Hadamard transforms.

    Parameters
    ----------
    dim : int
    seed : int

    Notes
    -----
    Two rounds, each on the first and then on the last ``2**k`` coordinates, the largest
    power of two that fits: random signs, then ``x_i = sum_j (-1)^popcount(i & j) x_j``
    divided by ``sqrt(2**k)``. O(d log d).

    References
    ----------
    Ailon and Chazelle, "The fast Johnson-Lindenstrauss transform", 2009.

    Examples
    --------
    >>> rotated = RandomRotation(7, seed=0).apply(np.eye(7))
    >>> bool(np.allclose(rotated @ rotated.T, np.eye(7)))
    True
    """

    def __init__(self, dim: int, seed: int) -> None:
        self.dim = dim
        self.power = 1 << (dim.bit_length() - 1)
        random = Random(seed, dim)
        self.signs = np.array(
            [1.0 - 2.0 * random.below(i, 2) for i in range(2 * ROUNDS * self.power)]
        ).reshape(2 * ROUNDS, self.power)
        hadamard = np.ones((1, 1))
        while len(hadamard) < self.power:
            hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
        self._hadamard = hadamard / np.sqrt(self.power)

    def apply(self, rows: Any) -> Floats:
        """Return the rows rotated, shape (n, dim)."""
        x = np.array(rows, np.float64)
        for i, signs in enumerate(self.signs):
            begin = 0 if i % 2 == 0 else self.dim - self.power
            window = slice(begin, begin + self.power)
            x[..., window] = (x[..., window] * signs) @ self._hadamard
        return x


def principal_axes(rows: Any) -> tuple[Floats, Floats]:
    """Return the principal axes of rows and their variances, strongest first.

    Parameters
    ----------
    rows : array_like, shape (n, dim)

    Returns
    -------
    axes : ndarray, shape (dim, dim)
        Eigenvectors of ``rows.T @ rows / n``.
    variances : ndarray, shape (dim,)
        Their eigenvalues.

    Notes
    -----
    O(n d^2 + d^3). Pearson, 1901.

    Examples
    --------
    >>> axes, variances = principal_axes([[3.0, 0.0], [0.0, 1.0]])
    >>> abs(axes).tolist(), variances.tolist()
    ([[1.0, 0.0], [0.0, 1.0]], [4.5, 0.5])
    """
    x = np.asarray(rows, np.float64)
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    order = np.argsort(-values, kind="stable")
    return vectors.T[order], np.maximum(values[order], 0)


def cut_axes(variances: Any, parts: int) -> tuple[list[int], float]:
    """Cut axes, strongest first, into parts of 4 bits each.

    Parameters
    ----------
    variances : array_like, shape (axes,)
        Falling, positive.
    parts : int
        How many parts; what the last leaves over is not coded.

    Returns
    -------
    widths : list of int
        Axes of each part.
    distortion : float
        The share of the energy that the codes lose.

    Notes
    -----
    A part of w axes with variances l_k loses ``w D(w) (prod l_k)^(1/w)``, D being the
    distortion of 16 levels for w dimensions. Dynamic programming over contiguous parts:
    O(parts axes).

    References
    ----------
    Riskin, "Optimal bit allocation via the generalized BFOS algorithm", 1991, states
    the problem; Ge, He, Ke and Sun, "Optimized product quantization", 2013, cut the
    axes of product quantization by their variances.

    Examples
    --------
    >>> cut_axes([4.0, 0.5, 0.5], 2)[0]
    [1, 2]
    """
    energy = np.asarray(variances, np.float64)
    axes = len(energy)
    logs = np.concatenate([[0.0], np.cumsum(np.log(energy))])
    sums = np.concatenate([[0.0], np.cumsum(energy)])
    cost = np.full((parts + 1, axes + 1), np.inf)
    back = np.zeros((parts + 1, axes + 1), int)
    cost[0, 0] = 0.0
    for part in range(1, parts + 1):
        for width, distortion in DISTORTIONS.items():
            for begin in range(axes - width + 1):
                end = begin + width
                mean = np.exp((logs[end] - logs[begin]) / width)
                here = min(width * mean * distortion, sums[end] - sums[begin])
                if cost[part - 1, begin] + here < cost[part, end]:
                    cost[part, end] = cost[part - 1, begin] + here
                    back[part, end] = width
    whole = cost[parts] + sums[axes] - sums
    end = int(whole.argmin())
    lost = float(whole[end] / sums[axes])
    widths = []
    for part in range(parts, 0, -1):
        widths.append(int(back[part, end]))
        end -= widths[-1]
    return widths[::-1], lost


class LinkCodec:
    """4-bit codes of the differences between linked rows.

    Parameters
    ----------
    axes : array_like, shape (axes, dim)
        Orthonormal: principal axes of the differences, or those of a rotation.
    widths : array_like of int, shape (parts,)
        Axes of each part.
    levels : array_like, shape (axes, 16)
        Part p's level c is column c of its axes' rows.
    mean : array_like, shape (dim,)
        Of the rows.
    products : bool
        Keys are negated inner products, not squared distances.

    Notes
    -----
    For a link from y to x, ``r = x - y``: ``|q - x|^2 = |q - y|^2 + |r|^2 -
    2 <q - y, r>``, and ``-<q, x> = -<q, y> - <q, r>``; the inner product with r comes
    from r's code, scaled so that r's with itself is right. Then the error is random and
    across r, with a standard deviation of about ``|q - y| |r| sqrt(D / (1 - D) / a)``
    for a axes and a distortion D. Training O(n d^2), coding O(16 axes), estimating
    O(parts) a link.

    References
    ----------
    Gou, Gao, Xu and Long, "SymphonyQG", 2025 (codes relative to the node); Gao and
    Long, "RaBitQ", 2024 (the estimator); Jegou, Douze and Schmid, 2011 (product
    quantization).
    """

    def __init__(
        self,
        axes: Any,
        widths: Any,
        levels: Any,
        mean: Any,
        products: bool = False,
    ) -> None:
        self.axes = np.asarray(axes, np.float64)
        self.widths = [int(width) for width in widths]
        self.levels = np.asarray(levels, np.float64)
        self.mean = np.asarray(mean, np.float64)
        self.products = products

    @classmethod
    def train(
        cls,
        differences: Any,
        mean: Any,
        *,
        products: bool = False,
        most_parts: int = 64,
        error: float = 0.03,
        seed: int = 0,
    ) -> LinkCodec:
        """Learn from differences between linked rows, shape (n, dim), none zero.

        Up to 256 dimensions: principal axes, and the fewest parts, in steps of 4, whose
        expected error is at most `error`. Above: a rotation, and parts of the most axes
        (up to 8) whose expected error is at most 1.1 times that.
        """
        r = np.asarray(differences, np.float64)
        unit = r / np.linalg.norm(r, axis=1, keepdims=True)
        dim = r.shape[1]
        if dim > DENSE_DIM:
            axes = RandomRotation(dim, seed).apply(np.eye(dim)).T
            width = MOST_ROTATED_WIDTH
            while width > 1:
                lost = next(e for w, e in DISTORTIONS.items() if w >= width)
                if np.sqrt(lost / (1 - lost) / dim) <= ROTATED_SLACK * error:
                    break
                width -= 1
            parts = min(-(-dim // (width * STEP)) * STEP, MOST_PARTS)
            widths = np.diff([p * dim // parts for p in range(parts + 1)]).tolist()
        else:
            axes, variances = principal_axes(unit)
            variances = np.maximum(variances, 1e-9 / dim)
            most = min(most_parts, dim) // STEP * STEP
            for parts in range(STEP, most + 1, STEP):
                widths, lost = cut_axes(variances, parts)
                if np.sqrt(lost / (1 - lost) / dim) <= error:
                    break
        count = sum(widths)
        z = unit @ axes[:count].T
        z /= np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-300)
        levels = np.zeros((count, LEVELS))
        at = 0
        for part, width in enumerate(widths):
            columns = z[:, at : at + width]
            drawn = draw_distinct(len(z), LEVELS, Random(seed, part))
            book = columns[drawn]
            if width == 1:
                middles = (2 * np.arange(LEVELS) + 1) * len(z) // (2 * LEVELS)
                book = np.sort(columns, axis=0)[middles]
            for _ in range(ITERATIONS):
                code = ((columns[:, None] - book[None]) ** 2).sum(axis=2).argmin(axis=1)
                for c in np.unique(code):
                    book[c] = columns[code == c].mean(axis=0)
            levels[at : at + width] = book.T
            at += width
        return cls(axes[:count], widths, levels, mean, products)

    def project(self, rows: Any) -> Floats:
        """Return the coordinates of rows along the axes, from the mean."""
        result: Floats = (np.asarray(rows, np.float64) - self.mean) @ self.axes.T
        return result

    def encode(self, row: Any, others: Any) -> tuple[NDArray[np.uint8], Floats, Floats]:
        """Code the links from a row to others.

        Returns
        -------
        codes : ndarray of uint8, shape (n, parts)
        offsets, scales : ndarray, shape (n,)
            ``key(x) ~ key(y) + gain * (offset + scale * <q - mean, level>)``.
        """
        start = self.project(row)
        z = self.project(others) - start
        lengths = np.linalg.norm(z, axis=1)
        z /= np.where(lengths > 0, lengths, 1.0)[:, None]
        codes = np.zeros((len(z), len(self.widths)), np.uint8)
        decoded = np.zeros_like(z)
        at = 0
        for part, width in enumerate(self.widths):
            book = self.levels[at : at + width].T
            errors = ((z[:, None, at : at + width] - book[None]) ** 2).sum(axis=2)
            codes[:, part] = errors.argmin(axis=1)
            decoded[:, at : at + width] = book[codes[:, part]]
            at += width
        differences = np.asarray(others, np.float64) - np.asarray(row, np.float64)
        squares = (
            lengths if self.products else np.linalg.norm(differences, axis=1)
        ) ** 2
        along = lengths * (z * decoded).sum(axis=1)
        fit = np.where(along > 0, squares / np.where(along > 0, along, 1.0), 0.0)
        if self.products:
            return codes, np.zeros(len(z)), -fit
        return codes, squares + 2 * fit * (decoded @ start), -2 * fit

    def tables(self, query: Any) -> Floats:
        """Return the query's inner products with all levels, shape (parts, 16)."""
        coordinates = self.project(query)
        terms = coordinates[:, None] * self.levels
        starts = np.cumsum([0, *self.widths[:-1]])
        result: Floats = np.add.reduceat(terms, starts, axis=0)
        return result

    def estimate(
        self, query: Any, key: float, codes: Any, offsets: Any, scales: Any
    ) -> Floats:
        """Return the keys of coded links, from the key of the node they start at."""
        tables = self.tables(query)
        dots = tables[np.arange(len(tables)), np.asarray(codes)].sum(axis=1)
        result: Floats = key + np.asarray(offsets) + np.asarray(scales) * dots
        return result
