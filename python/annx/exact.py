# SPDX-License-Identifier: Apache-2.0
"""Exact search and distances without an index."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from annx import _core
from annx._index import Progress
from annx._validate import (
    as_queries,
    as_rows,
    as_set,
    check_k,
    check_progress,
    check_threads,
    query_dtype,
)
from annx.results import SearchResult, result_of

__all__ = ["exact_search", "pairwise_distances"]


def exact_search(
    queries: Any,
    vectors: Any,
    k: int = 10,
    *,
    metric: str = "l2",
    dtype: str | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> SearchResult:
    """Find the k nearest vectors of each query, exactly, without building anything.

    Parameters
    ----------
    queries : array_like, shape (n, dim) or (dim,)
    vectors : array_like, shape (m, dim)
        Searched where they lie: no copy, if they are C-contiguous and of `dtype`.
    k : int, default 10
        More than there are is no error.
    metric : {"l2", "ip", "cosine", "l1", "poincare", "hamming", "jaccard"}
        As for `FlatIndex`.
    dtype : str, optional
        How to take `vectors`: their own type if that is one of `FlatIndex`'s, else
        ``"float32"``; ``"bits"`` if the metric is one of bits, then dim is
        ``8 * vectors.shape[1]`` (or the columns of booleans).
    threads : int, optional
        One for a single query and all cores otherwise, unless given. The result does
        not depend on it.
    progress : callable, optional
        Called with (queries done, queries) now and then. Ctrl-C stops the search.

    Returns
    -------
    SearchResult
        Rows of `vectors` as ids, and distances; (n, k) or (k,), nearest first, ties by
        id; padded with -1 and +inf.

    Notes
    -----
    See `FlatIndex` for the method, the error and the memory: no n x m matrix is made.

    Examples
    --------
    >>> import annx
    >>> ids, distances = annx.exact_search([[0.0, 0.0]], [[3.0, 4.0], [1.0, 0.0]], 2)
    >>> ids.tolist(), distances.tolist()
    ([[1, 0]], [[1.0, 25.0]])
    """
    rows, dim, dtype, metric = as_set(
        vectors, "vectors", metric, dtype, hyperbolic=True
    )
    array, single = as_queries(queries, dim=dim, dtype=query_dtype(dtype))
    ids, distances = _core.exact_search(
        array,
        rows,
        dim,
        check_k(k),
        metric,
        dtype,
        check_threads(threads, array.shape[0]),
        check_progress(progress),
    )
    return result_of(ids, distances, metric, single)


def pairwise_distances(
    a: Any,
    b: Any,
    *,
    metric: str = "l2",
    dtype: str | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Return the distances of all pairs of rows.

    Parameters
    ----------
    a : array_like, shape (n, dim)
    b : array_like, shape (m, dim)
    metric, dtype, threads, progress
        As for `exact_search`; `dtype` is that of `b`.

    Returns
    -------
    ndarray of float32, shape (n, m)
        The canonical distances: the same numbers as a search returns. (A product of
        matrices would be about three times as fast, and wrong far from the origin.)

    Examples
    --------
    >>> import annx
    >>> annx.pairwise_distances([[0, 0], [1, 1]], [[3, 4]], metric="l1").tolist()
    [[7.0], [5.0]]
    """
    rows, dim, dtype, metric = as_set(b, "b", metric, dtype, hyperbolic=True)
    left = as_rows(a, name="a", dim=dim, dtype=query_dtype(dtype))
    result: NDArray[np.float32] = _core.pairwise_distances(
        left,
        rows,
        dim,
        metric,
        dtype,
        check_threads(threads, left.shape[0]),
        check_progress(progress),
    )
    return result
