# SPDX-License-Identifier: Apache-2.0
"""Locality-sensitive hashing: many tables, the likeliest buckets, exact distances."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from annx import _core
from annx._index import Progress, ScannedIndex
from annx._validate import (
    DTYPES,
    as_queries,
    as_rows,
    as_set,
    check_choice,
    check_dim,
    check_int,
    check_k,
    check_metric,
    check_progress,
    check_real,
    check_threads,
    query_dtype,
)
from annx.io import register
from annx.results import SearchResult, result_of

__all__ = ["LSHIndex"]


@register("lsh")
class LSHIndex(ScannedIndex):
    """Vectors in the buckets of many hash tables, the likeliest of which are searched.

    It needs no training to speak of, takes and loses vectors cheaply, and its chance to
    find a vector follows from the distance alone. A graph answers faster at the same
    recall.

    Parameters
    ----------
    dim : int
        Dimensions; bits for ``dtype="bits"``.
    metric : {"l2", "l1", "cosine", "hamming", "jaccard"}, default "l2"
        The last two are for bits, and only for them. There are no hash functions for
        ``"ip"``.
    dtype : {"float32", "float16", "bfloat16", "int8", "uint8", "bits"}
        As for `FlatIndex`.
    n_tables : int, default 16
        Tables, from 1 to 1024. More find more, and take 4 bytes a vector each and more.
    n_hashes : int, optional
        Functions of a table, from 1 to 24. More make smaller buckets. By default by the
        number of the first vectors: with ``b = log2(n) - 2``, ``b`` for ``"cosine"``
        and ``"hamming"``, ``b / 2`` for ``"l2"`` and ``"l1"``, ``b / 4`` for
        ``"jaccard"``.
    width : float, optional
        Of a cell of the functions of ``"l2"`` and ``"l1"``. By default learnt from the
        first 1,024 vectors: the spread of their projections.
    sketch_bits : int, optional
        Of the sketch that is kept of each vector, a multiple of 64 up to 4096; 0 keeps
        none. 256 by default, and 0 for bits, which are their own sketches.
    seed : int, default 0
        Of the hash functions.

    Notes
    -----
    ==========  ================================================================
    cosine      [a x > 0], a normal; equal with probability 1 - angle / pi
    l2          floor((a x + b) / width), a normal, b uniform
    l1          the same, a Cauchy
    hamming     one bit of x; equal with probability 1 - distance / dim
    jaccard     the bit of x that comes first in a random order; 1 - distance
    ==========  ================================================================

    A bucket holds the vectors that agree in all functions of its table. Beside the
    query's own bucket in each table, others are tried in order of how little it takes
    to fall into them: the sum of the squared distances to the boundaries between, or
    the number of other values where functions know no distance. Vectors met more than
    once count once. A sketch has a bit for each of as many directions, set where the
    vector lies beyond the mean; of the vectors met those whose sketches differ least
    from the query's are measured, with the canonical distance of `FlatIndex`.

    Where the buckets together have half as many places as there are vectors, all
    sketches are looked at, in the order of memory, which takes less time.

    A query costs ``n_tables * n_hashes + sketch_bits`` products of dim terms, a look-up
    a bucket, a sketch for each vector met, and `rerank` distances. Adding costs the
    same products, and sorting. New vectors wait outside the tables, met by every
    search, until there are more than 1/64 of all (at least 16, at most 8,192).

    References
    ----------
    Indyk and Motwani, "Approximate nearest neighbors", 1998. Broder, "On the
    resemblance and containment of documents", 1997. Charikar, "Similarity estimation
    techniques from rounding algorithms", 2002. Ji, Li, Yan, Zhang and Tian, "Super-bit
    locality-sensitive hashing", 2012 (sketches). Datar, Immorlica, Indyk and Mirrokni,
    "Locality-sensitive hashing scheme based on p-stable distributions", 2004. Lv,
    Josephson, Wang, Charikar and Li, "Multi-probe LSH", 2007.

    Examples
    --------
    >>> import numpy as np
    >>> import annx
    >>> vectors = np.random.default_rng(0).standard_normal((2000, 32), np.float32)
    >>> index = annx.LSHIndex.build(vectors, "cosine")
    >>> ids, distances = index.search(vectors[:3], k=5)
    >>> ids[:, 0].tolist()
    [0, 1, 2]
    """

    _native_type = _core.LSHIndex

    def __init__(
        self,
        dim: int,
        metric: str = "l2",
        dtype: str = "float32",
        *,
        n_tables: int = 16,
        n_hashes: int | None = None,
        width: float | None = None,
        sketch_bits: int | None = None,
        seed: int = 0,
    ) -> None:
        check_choice(dtype, name="dtype", choices=DTYPES)
        cells = 0.0
        if width is not None:
            cells = check_real(width, name="width")
            if not cells > 0:
                raise ValueError(f"width is {width}; it must be above 0")
        if sketch_bits is None:
            sketch_bits = 0 if dtype == "bits" else 256
        sketch_bits = check_int(sketch_bits, name="sketch_bits", low=0, high=4096)
        hashes = 0
        if n_hashes is not None:
            hashes = check_int(n_hashes, name="n_hashes", low=1, high=24)
        self._native = _core.LSHIndex(
            dim=check_dim(dim, dtype),
            metric=check_metric(metric, dtype),
            dtype=dtype,
            n_tables=check_int(n_tables, name="n_tables", low=1, high=1024),
            n_hashes=hashes,
            width=cells,
            sketch_bits=sketch_bits,
            seed=check_int(seed, name="seed", low=0),
        )

    @classmethod
    def build(
        cls,
        vectors: Any,
        metric: str = "l2",
        dtype: str | None = None,
        *,
        ids: Any = None,
        threads: int | None = None,
        progress: Progress | None = None,
        **options: Any,
    ) -> LSHIndex:
        """Make an index of vectors, (n, dim); `options` as for the class.

        Without `dtype` it is that of the vectors, and ``"bits"`` for hamming and
        jaccard.
        """
        rows, dim, dtype, metric = as_set(
            vectors, "vectors", metric, dtype, check=False
        )
        index = cls(dim, metric, dtype, **options)
        index._add(rows, ids, threads, progress)
        return index

    @property
    def n_tables(self) -> int:
        """How many tables there are."""
        return int(self._native.n_tables)

    @property
    def n_hashes(self) -> int | None:
        """Functions of a table; None until they are chosen by the first vectors."""
        return int(self._native.n_hashes) or None

    @property
    def sketch_bits(self) -> int:
        """Bits of the sketches, 0 without."""
        return int(self._native.sketch_bits)

    @property
    def width(self) -> float | None:
        """Of a cell; None where there are none, or until the first vectors."""
        return float(self._native.width) or None

    def hash_values(self, vectors: Any) -> NDArray[np.int32]:
        """Return the values of all hash functions.

        Parameters
        ----------
        vectors : array_like, shape (n, dim)

        Returns
        -------
        ndarray of int32, shape (n, n_tables, n_hashes)

        Raises
        ------
        NotTrainedError
            Before the first vectors were added.
        """
        rows = as_rows(
            vectors, name="vectors", dim=self.dim, dtype=self.dtype, check=False
        )
        values: NDArray[np.int32] = self._native.hash_values(rows)
        return values

    def search(
        self,
        queries: Any,
        k: int = 10,
        *,
        n_probe: int | None = None,
        rerank: int | None = None,
        filter: Any = None,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> SearchResult:
        """Find about the k nearest vectors of each query.

        Parameters
        ----------
        queries : array_like, shape (n, dim) or (dim,)
        k : int, default 10
            More than are found is no error.
        n_probe : int, optional
            Buckets to look into, of all tables together; ``4 * n_tables`` by default.
            As many as there are (``stats()["buckets"]``) is exact.
        rerank : int, optional
            With sketches: measure at least this many of the vectors met, and all that
            look as near; ``max(256, 32 * k)`` by default.
        filter : IdSet or array_like of int, optional
            Search only among these ids; up to 1,024 of them exactly.
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
        quick: SearchResult | None = self._native.search_single(
            queries, k, n_probe, threads, SearchResult, filter, progress, rerank
        )
        if quick is not None:
            return quick
        dim, metric, dtype = self._known()
        array, single = as_queries(
            queries, dim=dim, dtype=query_dtype(dtype), check=False
        )
        ids, distances = self._native.search(
            array,
            check_k(k),
            0 if n_probe is None else check_int(n_probe, name="n_probe", low=1),
            0 if rerank is None else check_int(rerank, name="rerank", low=1),
            None if filter is None else self._filter(filter),
            check_threads(threads, array.shape[0]),
            check_progress(progress),
        )
        return result_of(ids, distances, metric, single)

    def memory_usage(self) -> dict[str, int]:
        """Return the bytes of memory held, by purpose, with their sum as ``"total"``.

        What is mapped from a file is not counted.
        """
        stats = self._native.stats()
        names = ("vectors", "tables", "sketches", "hashes", "ids")
        parts = {name: int(stats[name]) for name in names}
        return {**parts, "total": sum(parts.values())}

    def stats(self) -> dict[str, Any]:
        """Return facts about the index.

        Returns
        -------
        dict
            What every family tells, and: ``n_tables``, ``n_hashes``, ``width``,
            ``sketch_bits``;
            ``buckets`` of all tables; ``largest_bucket``, its vectors; ``waiting``,
            vectors outside the tables.
        """
        native = self._native.stats()
        own = {name: native[name] for name in ("buckets", "largest_bucket", "waiting")}
        return {
            **super().stats(),
            "n_tables": self.n_tables,
            "n_hashes": self.n_hashes,
            "width": self.width,
            "sketch_bits": self.sketch_bits,
            **own,
        }
