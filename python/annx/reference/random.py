# SPDX-License-Identifier: Apache-2.0
"""Counter-based random numbers, the twin of ``cpp/annx/base/random.h``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Random", "mix64"]

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def mix64(x: Any) -> NDArray[Any]:
    """Scramble 64-bit words: the finalizer of SplitMix64.

    Parameters
    ----------
    x : array_like of uint64
        Any shape.

    Returns
    -------
    numpy.ndarray of uint64
        Of the same shape; a bijection of each word.

    Notes
    -----
    Three xor-shifts and two odd multiplications, all modulo ``2**64``; O(1) a word.

    References
    ----------
    Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014.

    Examples
    --------
    >>> int(mix64(0))
    0
    """
    x = np.asarray(x, dtype=np.uint64)
    # Scalars warn where arrays wrap silently, so one axis is added and taken away.
    y = np.atleast_1d(x).copy()
    y ^= y >> np.uint64(30)
    y *= np.uint64(0xBF58476D1CE4E5B9)
    y ^= y >> np.uint64(27)
    y *= np.uint64(0x94D049BB133111EB)
    y ^= y >> np.uint64(31)
    result: NDArray[Any] = y.reshape(x.shape)
    return result


class Random:
    """Random numbers by position: value `i` is a function of (seed, stream, i) alone.

    Nothing is drawn in sequence, so any thread may draw any value, and the native
    library and this one draw the very same.

    Parameters
    ----------
    seed : int
        Taken modulo ``2**64``.
    stream : int, default 0
        Streams of one seed are independent of each other.

    Notes
    -----
    ``key = mix64(seed + g (stream + 1))`` and ``bits(i) = mix64(key + g (i + 1))``
    modulo ``2**64``, with ``g`` the odd number next to ``2**64`` over the golden ratio.

    References
    ----------
    Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011, for the idea of
    generators that are functions of a counter.

    Examples
    --------
    >>> Random(7).below(np.arange(4), 10).shape
    (4,)
    """

    def __init__(self, seed: int, stream: int = 0) -> None:
        self._key = int(mix64((seed + _GOLDEN * (stream + 1)) & _MASK))

    def bits(self, i: Any) -> NDArray[Any]:
        """Uniform 64-bit words at the positions `i` (array_like of int >= 0)."""
        i = np.asarray(i, dtype=np.uint64)
        counter = np.atleast_1d(i) + np.uint64(1)
        words = mix64(np.uint64(self._key) + np.uint64(_GOLDEN) * counter)
        result: NDArray[Any] = words.reshape(i.shape)
        return result

    def below(self, i: Any, n: Any) -> NDArray[Any]:
        """Integers in ``[0, n)`` by remainder; the bias is below ``n / 2**64``."""
        result: NDArray[Any] = self.bits(i) % np.asarray(n, dtype=np.uint64)
        return result

    def unit(self, i: Any) -> NDArray[Any]:
        """Float64 numbers in ``[0, 1)``: the top 53 bits over ``2**53``."""
        high: NDArray[Any] = (self.bits(i) >> np.uint64(11)).astype(np.float64)
        return high * 2.0**-53
