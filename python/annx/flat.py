# SPDX-License-Identifier: Apache-2.0
"""Exact search over vectors that are kept as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from annx import _core
from annx._index import Progress, ScannedIndex
from annx._validate import (
    DTYPES,
    as_queries,
    as_set,
    check_choice,
    check_dim,
    check_k,
    check_metric,
    check_progress,
    check_radius,
    check_threads,
    query_dtype,
)
from annx.io import register
from annx.results import SearchResult, result_of

__all__ = ["FlatIndex"]


@register("flat")
class FlatIndex(ScannedIndex):
    """Exact search: every vector is looked at, none is changed.

    Parameters
    ----------
    dim : int
        Dimensions; bits for ``dtype="bits"``. At most 33,025 for 8-bit vectors.
    metric : {"l2", "ip", "cosine", "l1", "poincare", "hamming", "jaccard"}
        The last two are for bits, and only for them. Smaller is nearer: ``"l2"`` is
        squared, ``"ip"`` negated, ``"cosine"`` 1 - cos (1 for a zero vector).
        ``"poincare"`` is for floats of length below 1.
    dtype : {"float32", "float16", "bfloat16", "int8", "uint8", "bits"}
        What is stored. Queries are float32 over float vectors, and otherwise of the
        same type.

    Notes
    -----
    Distances and their order come from one canonical kernel with a fixed order of
    summation, alike on every instruction set: relative error at most
    ``(dim / 32 + 8) * 2**-24`` for l2 and l1, and for ip as much of ``sum |q x|``.
    Cosine is half the squared distance of the directions, so it keeps that relative
    error (and 2**-45 absolute) where ``1 - cos`` would cancel. 8-bit and bit metrics
    are exact integers, rounded to float32 only when returned.

    Batches of l2, ip and cosine go through register tiles of
    ``|q - c|^2 + |x - c|^2 - 2 <q - c, x - c>`` around the mean c, with a rigorous
    error bound; only vectors that the bound cannot exclude are settled canonically.
    ``"poincare"`` is hyperbolic distance in the unit ball,
    ``2 arsinh(|q - x| / sqrt((1 - |q|^2) (1 - |x|^2)))``. Vectors are compared by what
    is under the root, whose relative error is ``(dim / 32 + 11) * 2**-24`` up to the
    ball's edge: ``1 - |x|^2`` is summed without loss, and refused below ``2**-50``.

    O(n dim) a query. Beside the result a search takes at most 128 MiB, and 80 MiB a
    thread.

    References
    ----------
    Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", 2008.
    Higham, "Accuracy and Stability of Numerical Algorithms", 2002, chapter 3.
    Nickel and Kiela, "Poincare embeddings for learning hierarchical representations",
    2017.

    Examples
    --------
    >>> import annx
    >>> index = annx.FlatIndex(2)
    >>> index.add([[0.0, 0.0], [1.0, 0.0], [0.0, 3.0]]).tolist()
    [0, 1, 2]
    >>> ids, distances = index.search([0.5, 0.0], k=3)
    >>> ids.tolist(), distances.tolist()
    ([0, 1, 2], [0.25, 0.25, 9.25])
    """

    _native_type = _core.FlatIndex

    def __init__(
        self, dim: int, metric: str = "l2", dtype: str = "float32", *, seed: int = 0
    ) -> None:
        del seed  # every family takes one; nothing here is random
        check_choice(dtype, name="dtype", choices=DTYPES)
        self._native = _core.FlatIndex(
            check_dim(dim, dtype), check_metric(metric, dtype, hyperbolic=True), dtype
        )

    @classmethod
    def build(
        cls,
        vectors: Any,
        metric: str = "l2",
        dtype: str | None = None,
        *,
        ids: Any = None,
    ) -> FlatIndex:
        """Make an index of vectors, (n, dim); `dtype` is theirs unless given."""
        rows, dim, dtype, metric = as_set(
            vectors, "vectors", metric, dtype, check=False, hyperbolic=True
        )
        index = cls(dim, metric, dtype)
        # Rows have their stored form already, which `add` need not take for vectors.
        index._add(rows, ids, None, None)
        return index

    def search(
        self,
        queries: Any,
        k: int = 10,
        *,
        filter: Any = None,
        recall: float | None = None,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> SearchResult:
        """Find the k nearest vectors of each query.

        Parameters
        ----------
        queries : array_like, shape (n, dim) or (dim,)
        k : int, default 10
            More than there are is no error.
        filter : IdSet or array_like of int, optional
            Search only among these ids; see `id_set`.
        recall : float, optional
            In (0, 1]; any is met, as the result is exact.
        threads : int, optional
            One for a single query and all cores otherwise, unless given. The result
            does not depend on it.
        progress : callable, optional
            Called with (queries done, queries) now and then. Ctrl-C stops the search.

        Returns
        -------
        SearchResult
            Ids and distances, (n, k) or (k,), nearest first, ties by id; padded with
            -1 and +inf.
        """
        quick: SearchResult | None = self._native.search_single(
            queries, k, None, threads, SearchResult, filter, progress, recall
        )
        if quick is not None:
            return quick
        if recall is not None and not 0 < recall <= 1:
            raise ValueError(f"recall is {recall}; it must be above 0 and at most 1")
        dim, metric, dtype = self._known()
        array, single = as_queries(
            queries, dim=dim, dtype=query_dtype(dtype), check=False
        )
        ids, distances = self._native.search(
            array,
            check_k(k),
            None if filter is None else self._filter(filter),
            check_threads(threads, array.shape[0]),
            check_progress(progress),
        )
        return result_of(ids, distances, metric, single)

    def count_radius(
        self,
        queries: Any,
        radius: float,
        *,
        filter: Any = None,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> NDArray[np.int64]:
        """Count what lies within a radius of each query.

        Parameters
        ----------
        queries, radius, filter, threads, progress
            As for `search_radius`.

        Returns
        -------
        ndarray of int64, shape (n,)
            The ``counts`` of `search_radius`, without holding what it found.
        """
        limit = check_radius(radius, self.metric)
        array, _ = as_queries(
            queries, dim=self.dim, dtype=query_dtype(self.dtype), check=False
        )
        offsets: NDArray[np.int64] = self._native.count_radius(
            array,
            limit,
            self._filter(filter),
            check_threads(threads, array.shape[0]),
            check_progress(progress),
        )
        counts: NDArray[np.int64] = np.diff(offsets)
        return counts
