# SPDX-License-Identifier: Apache-2.0
"""Search over product codes, ranked again with the vectors themselves."""

from __future__ import annotations

from typing import Any

from annx import _core
from annx._index import Progress, ScannedIndex
from annx._validate import (
    as_queries,
    as_rows,
    check_choice,
    check_dim,
    check_int,
    check_k,
    check_progress,
    check_threads,
)
from annx.io import register
from annx.results import SearchResult, result_of

__all__ = ["PQFlatIndex"]


@register("pq_flat")
class PQFlatIndex(ScannedIndex):
    """Every vector's product code is looked at, and the best are ranked again.

    Parameters
    ----------
    dim : int
    metric : {"l2", "ip", "cosine"}, default "l2"
    dtype : {"float32"}
    n_segments : int or None
        Segments of a vector, from 1 to `dim`; None: a segment for every 8 dimensions.
    n_bits : {8, 4}, default 8
        Bits a segment.
    n_iterations : int, default 25
        Of k-means, for each codebook.
    max_points_per_centroid : int or None, default 256
        Train on at most so many vectors for each centroid of a codebook.
    seed : int, default 0
        As for `ProductQuantizer`.

    Notes
    -----
    The scan costs O(n_segments) a vector and query, and ``k * rerank`` vectors are then
    measured with the canonical distance, O(dim) each. Codes, vectors and 256 (or 16)
    centroids a segment are kept; `get` is exact.

    References
    ----------
    Jegou, Douze and Schmid, "Product quantization for nearest neighbor search", 2011.

    Examples
    --------
    >>> import numpy as np
    >>> import annx
    >>> vectors = np.random.default_rng(0).standard_normal((500, 16)).astype("f4")
    >>> index = annx.PQFlatIndex(16, n_segments=4, n_bits=4).train(vectors)
    >>> ids = index.add(vectors)
    >>> found = index.search(vectors[:3], k=5)
    >>> found.ids[:, 0].tolist(), found.distances[:, 0].tolist()
    ([0, 1, 2], [0.0, 0.0, 0.0])
    """

    _native_type = _core.PQFlatIndex

    def __init__(
        self,
        dim: int,
        metric: str = "l2",
        dtype: str = "float32",
        *,
        n_segments: int | None = None,
        n_bits: int = 8,
        n_iterations: int = 25,
        max_points_per_centroid: int | None = 256,
        seed: int = 0,
    ) -> None:
        dim = check_dim(dim)
        check_choice(dtype, name="dtype", choices=("float32",))
        n_bits = check_int(n_bits, name="n_bits", low=1)
        if n_segments is None:
            n_segments = (dim + 7) // 8
        limit = 0
        if max_points_per_centroid is not None:
            limit = check_int(
                max_points_per_centroid,
                name="max_points_per_centroid",
                low=1,
                high=2**31,
            ) * (1 << min(n_bits, 8))
        self._native = _core.PQFlatIndex(
            dim=dim,
            n_segments=check_int(n_segments, name="n_segments", low=1),
            n_bits=n_bits,
            metric=check_choice(metric, name="metric", choices=("l2", "ip", "cosine")),
            n_iterations=check_int(
                n_iterations, name="n_iterations", low=0, high=2**31
            ),
            sample_limit=limit,
            seed=check_int(seed, name="seed", low=0),
        )

    @classmethod
    def build(
        cls,
        vectors: Any,
        metric: str = "l2",
        *,
        ids: Any = None,
        threads: int | None = None,
        progress: Progress | None = None,
        **options: Any,
    ) -> PQFlatIndex:
        """Train on vectors, (n, dim), and add them; `options` as for the class."""
        rows = as_rows(vectors, name="vectors", dim=None)
        index = cls(rows.shape[1], metric, **options)
        index.train(rows, threads=threads, progress=progress)
        index.add(rows, ids, threads=threads, progress=progress)
        return index

    @property
    def trained(self) -> bool:
        """Whether there are codebooks."""
        return bool(self._native.trained)

    def train(
        self,
        vectors: Any,
        *,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> PQFlatIndex:
        """Learn the codebooks; vectors held already are coded anew.

        Parameters
        ----------
        vectors : array_like of float32, shape (n, dim)
            At least 256, or 16 with 4 bits.
        threads : int, optional
            All cores unless given. The result does not depend on it.
        progress : callable, optional
            Called with (done, total) now and then. Whatever it raises, and Ctrl-C,
            stops the training and leaves the index as it was.

        Returns
        -------
        PQFlatIndex
            This index.
        """
        rows = as_rows(vectors, name="vectors", dim=self.dim)
        self._native.train(rows, check_threads(threads), check_progress(progress))
        return self

    def search(
        self,
        queries: Any,
        k: int = 10,
        *,
        rerank: int = 10,
        filter: Any = None,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> SearchResult:
        """Find about the k nearest vectors of each query.

        Parameters
        ----------
        queries : array_like of float32, shape (n, dim) or (dim,)
        k : int, default 10
            More than there are is no error.
        rerank : int, default 10
            The best ``k * rerank`` by their codes are ranked by exact distances. 0: the
            order and the distances are those of the decoded vectors.
        filter : IdSet or array_like of int, optional
            Search only among these ids; see `id_set`.
        threads : int, optional
            One for a single query and all cores otherwise, unless given. The result
            does not depend on it.
        progress : callable, optional
            Called with (queries done, queries) now and then.

        Returns
        -------
        SearchResult
            Ids and distances, (n, k) or (k,), nearest first, ties by id; padded with
            -1 and +inf.
        """
        rows, single = as_queries(queries, dim=self.dim)
        ids, distances = self._native.search(
            rows,
            check_k(k),
            check_int(rerank, name="rerank", low=0, high=2**31),
            self._filter(filter),
            check_threads(threads, rows.shape[0]),
            check_progress(progress),
        )
        return result_of(ids, distances, self.metric, single)
