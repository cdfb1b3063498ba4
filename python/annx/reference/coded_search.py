# SPDX-License-Identifier: Apache-2.0
"""The walk over a graph whose links have codes, in plain NumPy.

What the codes are, and the keys that they estimate, is `annx.reference.links`.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annx.reference.graph import Pair, reach

__all__ = ["choose_starts", "coded_beam_search"]

STARTS = 2


def choose_starts(roots: Any, estimates: Any) -> list[int]:
    """Return where a walk begins: the 2 roots that look nearest, ties to lower slots.

    Parameters
    ----------
    roots : array_like of int, shape (n,)
        Slots; slot 0 if there are none.
    estimates : array_like, shape (n,)
        Of their keys, from their codes relative to the mean.

    Examples
    --------
    >>> choose_starts([4, 7, 9], [3.0, 1.0, 2.0])
    [7, 9]
    """
    near = sorted(zip(np.asarray(estimates).tolist(), map(int, roots), strict=True))
    return [slot for _, slot in near[:STARTS]] or [0]


def coded_beam_search(
    links: Sequence[Any],
    query_keys: NDArray[Any],
    estimate: Callable[[int, float], Any],
    starts: list[int],
    width: int,
    keep: int,
    *,
    k: int = 0,
    factor: float = 1.0,
) -> list[Pair]:
    """Return the best `keep` slots that a best-first walk expands, nearest first.

    Parameters
    ----------
    links : sequence of array_like of int
        Neighbours of each slot, in the order in which their codes are read.
    query_keys : ndarray, shape (n,)
        The key of every slot for the query. Only those of slots that are expanded, that
        begin the walk or that have no code are looked at.
    estimate : callable
        ``estimate(slot, key)`` gives the keys of a slot's links by their codes, from
        the slot's own key; NaN for a link without a code. None for a slot without
        codes.
    starts : list of int
        Where the walk begins.
    width : int
        How many candidates it remembers.
    keep : int
        How many it returns at most.
    k : int, default 0
        If not 0, the walk goes nowhere whose key is beyond `factor` times that of the
        k-th best so far. Keys are >= 0 then.
    factor : float, default 1
        At least 1.

    Notes
    -----
    Candidates are ordered by estimates, what is returned by keys. The slot of the next
    step is chosen before the links of this one are met (the native search fetches it
    meanwhile), so a better one among them waits a turn. A slot that no candidate list
    took may come by again with a better estimate from elsewhere; one without a code has
    its key, once.

    The k-th best is that of the candidates' estimates, or of the slots expanded if that
    is nearer; of the latter alone where the estimate comes before the best known key,
    and so must be wrong.

    References
    ----------
    Al-Jazzazi, Diwan, Gou, Musco, Musco and Suel, "Distance adaptive beam search for
    provably accurate graph-based nearest neighbor search", 2025 (`factor`).
    Gou, Gao, Xu and Long, "SymphonyQG", 2025.

    Examples
    --------
    >>> keys = np.array([9.0, 4.0, 1.0, 0.0])
    >>> links = [[1], [2, 3], [1], [1]]
    >>> coded_beam_search(links, keys, lambda slot, key: keys[links[slot]], [0], 4, 2)
    [(0.0, 3), (1.0, 2)]
    """
    met = set(starts)
    beam = sorted((float(query_keys[slot]), slot) for slot in met)[:width]
    expanded: set[int] = set()
    found: list[Pair] = []
    most = math.inf

    def next_slot() -> int | None:
        for waiting, slot in beam:
            if slot not in expanded:
                if waiting > most:
                    return None
                expanded.add(slot)
                return slot
        return None

    def limit() -> float:
        known = reach(found, k, factor)
        if not 0 < k <= len(beam) or beam[k - 1][0] < found[0][0]:
            return known
        return min(known, reach(beam, k, factor))

    ahead = next_slot()
    while ahead is not None or (ahead := next_slot()) is not None:
        slot, ahead = ahead, next_slot()
        key = float(query_keys[slot])
        insort(found, (key, slot))
        del found[keep:]
        most = limit()
        estimates = estimate(slot, key)
        if estimates is None:
            estimates = np.full(len(links[slot]), np.nan)
        for other, value in zip(links[slot], estimates, strict=True):
            guess = float(value)
            coded = not math.isnan(guess)
            if coded and (guess > most or (len(beam) == width and guess > beam[-1][0])):
                continue
            if other in met:
                continue
            met.add(int(other))
            if not coded and (guess := float(query_keys[other])) > most:
                continue
            insort(beam, (guess, int(other)))
            del beam[width:]
    return found
