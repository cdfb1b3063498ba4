# SPDX-License-Identifier: Apache-2.0
"""Bands of ranks, for mining hard negatives, and groups under a radius."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from annx import _core
from annx._index import Progress
from annx._validate import (
    as_set,
    check_int,
    check_progress,
    check_radius,
    check_threads,
)
from annx.results import RadiusResult, SearchResult

__all__ = ["connected_components", "search_band"]

# Entries that are held at once while exclusions are taken out: 48 MiB.
_ENTRIES = 1 << 22


class _Searchable(Protocol):
    metric: str

    def search(self, queries: Any, k: int = 10, **options: Any) -> SearchResult: ...


def search_band(
    index: _Searchable,
    queries: Any,
    start: int,
    stop: int,
    *,
    exclude: Any = None,
    **options: Any,
) -> SearchResult:
    """Find the neighbours of ranks `start` to `stop` - 1, with some ids left out.

    For hard negatives: near enough to teach something, and neither the query itself nor
    one of its positives.

    Parameters
    ----------
    index : FlatIndex, or another with ``search``
        Over a `FlatIndex` the band is exact; over others it is what their search finds.
    queries : array_like, shape (n, dim)
    start, stop : int
        Ranks count from 0, the nearest, after the exclusions; 0 <= start < stop.
    exclude : sequence of n array_like of int, or a pair (offsets, ids), optional
        For each query the ids to leave out: its positives, and itself. Repetitions and
        ids that are not in the index do not matter. The pair is ragged as in
        `RadiusResult`: query i owns ``ids[offsets[i]:offsets[i + 1]]``.
    **options
        For ``index.search``: ``filter``, ``threads`` and so on.

    Returns
    -------
    SearchResult
        Ids and distances, (n, stop - start); padded with -1 and +inf.

    Raises
    ------
    ValueError
        The ranks are no band, or `exclude` does not have a part for each query.

    Notes
    -----
    The ``stop + m`` nearest of a query with m exclusions hold its ranks up to `stop`;
    queries of like m are searched for together, at most 4 million entries at once.

    References
    ----------
    Xiong and others, "Approximate nearest neighbor negative contrastive learning for
    dense text retrieval", 2021 (why the nearest ranks are left out).

    Examples
    --------
    >>> import annx
    >>> index = annx.FlatIndex.build([[0.0], [1.0], [2.0], [4.0], [8.0]])
    >>> annx.search_band(index, [[0.0]], 1, 3, exclude=[[0]]).ids.tolist()
    [[2, 3]]
    """
    first = check_int(start, name="start", low=0)
    last = check_int(stop, name="stop", low=first + 1, high=(1 << 31) - 1)
    array = np.asarray(queries)
    if array.ndim != 2:
        raise ValueError(
            f"queries has {array.ndim} dimensions; it must have 2, a query a row"
        )
    n = array.shape[0]
    offsets, left_out = _ragged(exclude, n)
    counts = np.diff(offsets)
    ids = np.full((n, last - first), -1, np.int64)
    distances = np.full((n, last - first), np.inf, np.float32)
    # Queries by how many exclusions they have, rounded up to a power of two.
    extra = np.where(
        counts > 0, 1 << np.ceil(np.log2(np.maximum(counts, 1))).astype(int), 0
    )
    for more in np.unique(extra):
        members = np.flatnonzero(extra == more)
        k = last + int(more)
        at_once = max(1, _ENTRIES // k)
        for begin in range(0, len(members), at_once):
            some = members[begin : begin + at_once]
            found = index.search(array[some], k, **options)
            keep = found.ids >= 0
            if more:
                keep &= ~_listed(found.ids, some, offsets, left_out)
            rank = np.cumsum(keep, axis=1) - 1
            keep &= (rank >= first) & (rank < last)
            row, column = np.nonzero(keep)
            place = some[row], rank[row, column] - first
            ids[place] = found.ids[row, column]
            distances[place] = found.distances[row, column]
    return SearchResult(ids, distances, index.metric)


def _ragged(exclude: Any, n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return offsets and ids of what to leave out, checked."""
    if exclude is None:
        return np.zeros(n + 1, np.int64), np.zeros(0, np.int64)
    if isinstance(exclude, RadiusResult):
        exclude = (exclude.offsets, exclude.ids)
    if isinstance(exclude, tuple) and len(exclude) == 2:
        offsets, ids = (np.asarray(part) for part in exclude)
        if offsets.dtype.kind not in "iu" or ids.dtype.kind not in "iu":
            raise TypeError("exclude holds offsets and ids that are not integers")
        if (
            offsets.shape != (n + 1,)
            or offsets[0] != 0
            or (np.diff(offsets) < 0).any()
            or offsets[-1] != ids.size
        ):
            raise ValueError(
                f"exclude has offsets that do not divide its ids among {n} queries"
            )
        return offsets.astype(np.int64), ids.ravel().astype(np.int64)
    parts = [np.asarray(part).ravel() for part in exclude]
    if len(parts) != n:
        raise ValueError(f"exclude has {len(parts)} parts; it must have {n}")
    if any(part.size and part.dtype.kind not in "iu" for part in parts):
        raise TypeError("exclude holds ids that are not integers")
    offsets = np.concatenate([[0], np.cumsum([part.size for part in parts])])
    joined = np.concatenate([*parts, np.zeros(0, np.int64)])
    return offsets.astype(np.int64), joined.astype(np.int64)


def _listed(
    found: NDArray[np.int64],
    queries: NDArray[np.int64],
    offsets: NDArray[np.int64],
    left_out: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Which of the ids found are among their query's exclusions."""
    result = np.zeros(found.shape, np.bool_)
    for row, query in enumerate(queries):
        result[row] = np.isin(found[row], left_out[offsets[query] : offsets[query + 1]])
    return result


def connected_components(
    vectors: Any,
    radius: float,
    *,
    metric: str = "l2",
    dtype: str | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> NDArray[np.int64]:
    """Group vectors that are joined by steps of at most `radius`: duplicates.

    Parameters
    ----------
    vectors : array_like, shape (n, dim)
        Read where they lie, if they are C-contiguous and of `dtype`.
    radius : float
        The largest distance that joins two vectors: squared for ``"l2"``. Compared as
        float32.
    metric : {"l2", "ip", "cosine", "l1", "hamming", "jaccard"}
        As for `FlatIndex`.
    dtype : str, optional
        How to take `vectors`; as for `exact_search`.
    threads : int, optional
        All cores unless given. The result does not depend on it.
    progress : callable, optional
        Called with (vectors done, vectors) now and then. Ctrl-C stops the work.

    Returns
    -------
    ndarray of int64, shape (n,)
        The number of each vector's component; components count from 0 in the order of
        their first vectors. ``numpy.unique(labels, return_index=True)[1]`` are
        those first vectors: the set without its duplicates.

    Notes
    -----
    Exact, O(n^2 dim / 2): every pair of vectors meets once, in the register tiles of
    `FlatIndex`. Sets are merged as pairs are found and no pair is kept, so beside the
    vectors it takes 8 bytes a vector and about 128 MiB, whatever the radius (which is
    why it does not go through a sparse matrix and SciPy).

    References
    ----------
    Tarjan, "Efficiency of a good but not linear set union algorithm", 1975.

    Examples
    --------
    >>> import annx
    >>> annx.connected_components([[0.0], [5.0], [0.5], [1.0]], 0.25).tolist()
    [0, 1, 0, 0]
    """
    rows, dim, dtype, metric = as_set(vectors, "vectors", metric, dtype)
    labels: NDArray[np.int64] = _core.connected_components(
        rows,
        dim,
        check_radius(radius, metric),
        metric,
        dtype,
        check_threads(threads),
        check_progress(progress),
    )
    return labels
