# SPDX-License-Identifier: Apache-2.0
"""The distance kernels in plain NumPy, to the last bit.

The float kernels of annx hold 32 partial sums ("lanes"): element *i* goes to lane
*i* mod 32 by one fused multiply-add, in order of *i*, and the lanes are folded
32 -> 8 -> 4 -> 2 -> 1. Every instruction set does the same, so every one gives the same
bits; the functions here do it in NumPy, with the fused multiply-add made exact by a
float64 sum rounded to odd. Kernels on 8-bit numbers and on bits are exact integers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "MAX_DIM_8",
    "cosine_finish",
    "dot",
    "error_bound",
    "fma",
    "from_bfloat16",
    "from_fixed",
    "hamming",
    "jaccard",
    "l1",
    "l2",
    "squares",
    "to_bfloat16",
    "to_fixed",
]

#: Largest dimension at which a sum of 8-bit terms cannot overflow int32.
MAX_DIM_8 = 33025

Floats = npt.NDArray[np.float32]
Anything = npt.NDArray[Any]


def fma(a: Floats, b: Floats, c: Floats) -> Floats:
    """Return ``a * b + c`` with one rounding, as the processor's instruction does.

    Parameters
    ----------
    a, b, c : ndarray of float32
        Arrays that broadcast together; finite.

    Returns
    -------
    ndarray of float32

    Notes
    -----
    The product of two float32 is exact in float64. The sum with `c` is rounded to odd
    there: if it is inexact, the neighbour whose last bit is 1 is taken. Rounding that
    to float32 equals one rounding of the exact value, because float64 has more than
    two bits to spare.

    References
    ----------
    S. Boldo and G. Melquiond, "Emulation of FMA and correctly rounded sums: proved
    algorithms using rounding to odd", IEEE Transactions on Computers 57, 2008.

    Examples
    --------
    >>> import numpy as np
    >>> one = np.float32([1 + 2**-23])
    >>> fma(one, one, -one * one).view(np.uint32).tolist()  # the product's lost bits
    [679477248]
    """
    product = a.astype(np.float64) * b.astype(np.float64)
    addend = np.broadcast_to(c.astype(np.float64), product.shape)
    total = product + addend
    # The exact error of the sum (Knuth's two-sum).
    part = total - product
    error = (product - (total - part)) + (addend - part)
    bits = total.view(np.int64).copy()
    even = (bits & 1) == 0
    away = (error > 0) == (total > 0)
    bits += np.where((error != 0) & even, np.where(away, 1, -1), 0)
    return np.asarray(bits.view(np.float64).astype(np.float32))


def _widen(x: Anything) -> Floats:
    """Rows as float32, exactly."""
    return np.ascontiguousarray(x, dtype=np.float32)


def _fold(lanes: Floats) -> Floats:
    """Fold lanes of shape (n, 32) in the fixed order to (n,)."""
    s8 = (lanes[:, 0:8] + lanes[:, 8:16]) + (lanes[:, 16:24] + lanes[:, 24:32])
    s4 = s8[:, 0:4] + s8[:, 4:8]
    s2 = s4[:, 0:2] + s4[:, 2:4]
    folded: Floats = (s2[:, 0] + s2[:, 1]) + np.float32(0)
    return folded


def _chunks(x: Floats) -> list[slice]:
    return [slice(i, min(i + 32, x.shape[-1])) for i in range(0, x.shape[-1], 32)]


def l2(query: Anything, rows: Anything) -> Anything:
    r"""Squared Euclidean distances, :math:`\sum_i (q_i - x_i)^2`.

    Parameters
    ----------
    query : ndarray, shape (d,)
        float32 beside float rows; otherwise of the rows' type.
    rows : ndarray, shape (n, d)
        float32, float16 or a type that converts to float32 exactly (bfloat16); int8 or
        uint8.

    Returns
    -------
    ndarray, shape (n,)
        float32 for float rows, int32 for 8-bit rows.

    Notes
    -----
    O(n d). Float rows within `error_bound` of the exact sum; 8-bit rows exact.

    Examples
    --------
    >>> import numpy as np
    >>> l2(np.float32([1, 2]), np.float32([[1, 2], [4, 6]])).tolist()
    [0.0, 25.0]
    """
    if rows.dtype in (np.int8, np.uint8):
        gap = query.astype(np.int64) - rows.astype(np.int64)
        return np.asarray((gap * gap).sum(axis=1), np.int32)
    q, x = _widen(query), _widen(rows)
    lanes = np.zeros((len(x), 32), np.float32)
    for chunk in _chunks(x):
        gap32 = q[chunk] - x[:, chunk]
        width = gap32.shape[1]
        lanes[:, :width] = fma(gap32, gap32, lanes[:, :width])
    return _fold(lanes)


def dot(query: Anything, rows: Anything) -> Anything:
    r"""Inner products, :math:`\sum_i q_i x_i`; arguments and result as for `l2`.

    Notes
    -----
    The metric ``"ip"`` is this, negated.

    Examples
    --------
    >>> import numpy as np
    >>> dot(np.int8([1, -2]), np.int8([[3, 4], [0, 1]])).tolist()
    [-5, -2]
    """
    if rows.dtype in (np.int8, np.uint8):
        products = query.astype(np.int64) * rows.astype(np.int64)
        return np.asarray(products.sum(axis=1), np.int32)
    q, x = _widen(query), _widen(rows)
    lanes = np.zeros((len(x), 32), np.float32)
    for chunk in _chunks(x):
        width = x[:, chunk].shape[1]
        lanes[:, :width] = fma(q[chunk][None, :], x[:, chunk], lanes[:, :width])
    return _fold(lanes)


def l1(query: Anything, rows: Anything) -> Anything:
    r"""City-block distances, :math:`\sum_i |q_i - x_i|`; as for `l2`.

    Examples
    --------
    >>> import numpy as np
    >>> l1(np.uint8([1, 200]), np.uint8([[3, 100]])).tolist()
    [102]
    """
    if rows.dtype in (np.int8, np.uint8):
        gap = query.astype(np.int64) - rows.astype(np.int64)
        return np.asarray(np.abs(gap).sum(axis=1), np.int32)
    q, x = _widen(query), _widen(rows)
    lanes = np.zeros((len(x), 32), np.float32)
    for chunk in _chunks(x):
        gap32 = np.abs(q[chunk] - x[:, chunk])
        lanes[:, : gap32.shape[1]] += gap32
    return _fold(lanes)


def squares(rows: Anything) -> Anything:
    r"""Squared norms of rows, :math:`\sum_i x_i^2`; result as for `l2`.

    Examples
    --------
    >>> import numpy as np
    >>> squares(np.float32([[3, 4]])).tolist()
    [25.0]
    """
    x = rows if rows.dtype in (np.int8, np.uint8) else _widen(rows)
    sums = [dot(row, row[None, :])[0] for row in x]
    return np.array(sums, np.int32 if x.dtype != np.float32 else np.float32)


def cosine_finish(query_square: np.float32, dots: Floats, norms: Floats) -> Floats:
    r"""Cosine distances from dot products and squared norms.

    Parameters
    ----------
    query_square : float32
        The query's squared norm.
    dots, norms : ndarray of float32, shape (n,)
        Inner products with the rows, and the rows' squared norms.

    Returns
    -------
    ndarray of float32, shape (n,)
        :math:`1 - s / (\sqrt{qq} \sqrt{xx})`; 1 where either norm is 0.

    Examples
    --------
    >>> import numpy as np
    >>> cosine_finish(np.float32(4), np.float32([2, 0]), np.float32([1, 0])).tolist()
    [0.0, 1.0]
    """
    scale = np.sqrt(np.float32(query_square)) * np.sqrt(norms)
    out = np.ones_like(dots)
    some = scale > 0
    out[some] = np.float32(1) - dots[some] / scale[some]
    return out


def hamming(query: Anything, rows: Anything) -> npt.NDArray[np.int32]:
    """Differing bits of packed rows.

    Parameters
    ----------
    query : ndarray of uint8, shape (bytes,)
    rows : ndarray of uint8, shape (n, bytes)

    Returns
    -------
    ndarray of int32, shape (n,)

    Examples
    --------
    >>> import numpy as np
    >>> hamming(np.uint8([255]), np.uint8([[254], [0]])).tolist()
    [1, 8]
    """
    return _count(query ^ rows)


def jaccard(query: Anything, rows: Anything) -> Floats:
    r"""Jaccard distances of packed sets, :math:`1 - |q \cap x| / |q \cup x|`.

    Arguments as for `hamming`; the result is float32, 0 where both sets are empty.

    Examples
    --------
    >>> import numpy as np
    >>> jaccard(np.uint8([3]), np.uint8([[1], [12], [3]])).tolist()
    [0.5, 1.0, 0.0]
    """
    both = _count(query & rows)
    any_ = _count(query | rows)
    out = np.zeros(len(rows), np.float32)
    some = any_ > 0
    apart = (any_ - both)[some].astype(np.float32)
    out[some] = apart / any_[some].astype(np.float32)
    return out


def _count(x: Anything) -> npt.NDArray[np.int32]:
    bits = np.unpackbits(np.ascontiguousarray(x), axis=1)
    return np.asarray(bits.sum(axis=1), np.int32)


def to_bfloat16(x: Floats) -> npt.NDArray[np.uint16]:
    """Round float32 to bfloat16, to nearest, ties to even, as 16-bit words.

    Examples
    --------
    >>> import numpy as np
    >>> [hex(b) for b in to_bfloat16(np.float32([1.0, 1 + 2**-8, 1 + 3 * 2**-8]))]
    ['0x3f80', '0x3f80', '0x3f82']
    """
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    rounded = (bits + (np.uint32(0x7FFF) + ((bits >> 16) & 1))) >> 16
    quiet = (bits >> 16) | np.uint32(0x40)
    return np.asarray(np.where(np.isnan(x), quiet, rounded), np.uint16)


def from_bfloat16(words: npt.NDArray[np.uint16]) -> Floats:
    """Widen bfloat16 words to float32, exactly.

    Examples
    --------
    >>> import numpy as np
    >>> from_bfloat16(np.uint16([0x3F80, 0xC000])).tolist()
    [1.0, -2.0]
    """
    return (words.astype(np.uint32) << 16).view(np.float32)


def to_fixed(x: Floats) -> tuple[npt.NDArray[np.int16], Floats]:
    """Round float32 rows to whole numbers of 16 bits with a step for each row.

    Parameters
    ----------
    x : (n, dim) float32 array

    Returns
    -------
    numbers : (n, dim) int16 array
        ``x / step`` to the nearest, ties to even.
    steps : (n,) float32 array
        The row's largest ``|x| / 32767``, rounded up: to a power of two if that loses
        nothing of the row, else to 9 binary digits, so that the product with a number
        is a float32. 0 for a row of zeros.

    Notes
    -----
    Half a step, or ``2**-135`` if that is more, is the most by which an element is off.

    Examples
    --------
    >>> import numpy as np
    >>> numbers, steps = to_fixed(np.float32([[0.3, -32767, 1.6], [0, 8, -3]]))
    >>> numbers.tolist(), steps.tolist()
    ([[0, -32767, 2], [0, 16384, -6144]], [1.0, 0.00048828125])
    """
    most = np.abs(x).max(axis=1, initial=0).astype(np.float32)
    bits = (most / np.float32(32767)).view(np.uint32)
    twos = ((bits + np.uint32(0x7FFFFF)) & np.uint32(0xFF800000)).view(np.float32)
    wholes = x / np.where(twos > 0, twos, np.inf)[:, None]
    kept = (wholes == np.rint(wholes)).all(axis=1)
    steps = ((bits + np.uint32(0x7FFF)) & np.uint32(0xFFFF8000)).view(np.float32)
    steps = np.where(kept & (twos > 0), twos, steps)
    numbers = np.rint(x / np.where(steps > 0, steps, np.inf)[:, None])
    return np.clip(numbers, -32767, 32767).astype(np.int16), steps


def from_fixed(numbers: npt.NDArray[np.int16], steps: Floats) -> Floats:
    """Return the rows that `to_fixed` rounded to, exactly.

    Examples
    --------
    >>> import numpy as np
    >>> from_fixed(np.int16([[1, -3]]), np.float32([0.5])).tolist()
    [[0.5, -1.5]]
    """
    return numbers.astype(np.float32) * steps[:, None]


def error_bound(dim: int, terms: Anything) -> npt.NDArray[np.float64]:
    """Largest error of a float kernel against exact arithmetic.

    Parameters
    ----------
    dim : int
        Number of elements.
    terms : ndarray, shape (n,)
        Sum of the absolute values of the terms, for each row.

    Returns
    -------
    ndarray of float64, shape (n,)

    Notes
    -----
    (d / 32 + 8) u with u = 2^-24: one rounding a step of a lane, at most two for the
    subtraction in a term, six for the fold; plus the smallest normal number for
    underflow.
    """
    steps = (dim // 32 + 9) * 2.0**-24
    bound: npt.NDArray[np.float64] = steps * np.asarray(terms, np.float64) + 2.0**-126
    return bound
