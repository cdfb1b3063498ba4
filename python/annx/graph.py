# SPDX-License-Identifier: Apache-2.0
"""Approximate search on a proximity graph."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from annx import _core, _validate
from annx._index import Index, Progress, radius_by_search
from annx.io import register
from annx.results import RadiusResult, SearchResult

__all__ = ["GraphIndex"]

_STORAGE = ("fast", "float32", "plain", "small")


def _as_neighbours(
    neighbours: ArrayLike, metric: str, rows: NDArray[Any]
) -> NDArray[np.uint32]:
    """Return lists of rows as native code reads them, checked."""
    if metric not in ("l2", "cosine"):
        raise ValueError(f"neighbours need metric 'l2' or 'cosine'; it is {metric!r}")
    array = np.asarray(neighbours)
    if array.dtype.kind not in "iu":
        raise TypeError(
            f"neighbours is of dtype {array.dtype}; it should be of integers"
        )
    n = rows.shape[0]
    if array.ndim != 2 or array.shape[0] != n or array.shape[1] == 0:
        raise ValueError(
            f"neighbours has shape {array.shape}; it should have one row for each of "
            f"{n} vectors, of at least one number"
        )
    if array.size and (int(array.min()) < -1 or int(array.max()) >= n):
        raise ValueError(
            f"neighbours holds numbers from {array.min()} to {array.max()}; they "
            f"should be rows of the {n} vectors, or -1"
        )
    return np.ascontiguousarray(array.astype(np.int64).astype(np.uint32))


@register("graph")
class GraphIndex(Index):
    """Nearest neighbours by walking a graph of near vectors.

    The index for most uses in memory: it answers in tens of microseconds at a recall of
    0.95 to 0.99, takes new vectors at any time, and needs no training.

    Parameters
    ----------
    dim : int
        Dimensions of the vectors, at least 1 (at most 33,025 for 8-bit types).
    metric : {"l2", "cosine", "ip", "l1", "poincare"}, default "l2"
        Smaller distances are nearer: squared Euclidean; 1 - cosine; the negated inner
        product; the sum of absolute differences; hyperbolic distance in the unit ball
        (see `FlatIndex`).
    dtype : {"float32", "float16", "bfloat16", "int8", "uint8"}, default "float32"
        What goes in and what `get` returns.
    storage : {"fast", "float32", "plain", "small"}, optional
        What is kept. ``"fast"``, the default: from 2,048 vectors and 16 dimensions on
        (not with ``"l1"`` and ``"poincare"``) codes of the links, and vectors given as
        float32 are rounded to 16 bits where that changes the distances of near ones by
        less than a thousandth (see *Rounding* below); `get` and distances are then
        those of the rounded ones.
        ``"float32"``: codes, and the vectors bit for bit. ``"plain"``: the vectors bit
        for bit and no codes, which is smaller than that, quicker to build, and a third
        to a half as fast to search. Vectors of other types are never rounded by these.
        ``"small"``: no codes of links, and vectors of any float type as 8-bit codes,
        which `get` and distances are then of; see *Small* below. 8-bit vectors are kept
        as they are. Not with ``"poincare"``.
    degree : int, optional
        Links that a node can hold: even, from 4 to 256. More links find more and cost
        memory (4 bytes each) and time. ``degree=32`` is what hnswlib calls ``M=16``.
        The default is 32, and 24 with ``storage="small"`` below 320 dimensions.
    ef_construction : int, default 200
        Width of the beam while building. More makes a better graph, more slowly.
    alpha : float, default 1.0
        Relaxation of the pruning rule, from 1 to 2: above 1 keeps longer links.
    seed : int, default 0
        Of the random choice of where searches begin.

    Notes
    -----
    *Building.* The first vectors of an index, if they are 8,192 or more and the metric
    is ``"l2"`` or ``"cosine"``, are linked at once: all-pairs search (as of
    `knn_graph`) lists ``5/8 ef_construction`` near neighbours of each, most of them,
    and links are chosen from the list by the relative-neighbourhood rule. A sixteenth
    of the vectors, and some of every group that lists only itself, have links from
    lists of their own as well, and so on up, so that there is a way out of every
    cluster. So it is best to give all vectors that there are to the first `add`.

    Others are added in batches of 512. Each searches the graph with a beam
    of ``ef_construction``, scores the rest of its batch, and keeps up to ``degree / 2``
    neighbours by the relative-neighbourhood rule; those link back, and prune what they
    have by the same rule when full. The same vectors in the same order with the same
    seed give the same graph on any number of threads. Every vector can be reached from
    the first one, whatever the data. Cost: about O(n log n) distances.

    *Searching.* A best-first walk, which ends when all that it still knows of lies
    beyond so many times the distance of its k-th best vector; then the best are settled
    by the distances of the vectors kept, so what is returned is exact for those. How
    many times follows from ``ef``, ``k`` and from how quickly the number of neighbours
    grows with the distance (``growth`` in `stats`, measured by `add`), such that a
    query like the vectors walks through about ``ef`` of them. One with near answers
    walks through fewer, one that lies far from all through up to twice as many. Below
    1,024 vectors, with ``"ip"`` and with a filter the walk keeps the best ``ef`` and
    ends when it has been through all of them.

    *Queries from elsewhere.* Links join vectors that are near to one another. What is
    near to a query that is not like the vectors (a question, where they are texts) need
    not be so, and a walk finds some of it and no way to the rest: the same recall takes
    several times the ``ef``. With a sample of such queries (`queries` of `build`
    and `add`) the ``2 * ef_construction`` nearest vectors of each, at most 1,024, are
    found exactly, and each of these but the first gets a link to one that is nearer to
    the query, and a link from one, where it has none and there is room: no link is
    given up for it. From 32 queries on, ``growth`` is measured around them, so that
    ``ef`` means them. Vectors that are added later know nothing of the sample unless it
    is given again.

    *Codes.* A walk over plain storage reads the vector of every neighbour that it
    meets. With codes it reads one block a hop, which holds the neighbours' slots and 4
    bits for each 1 to 16 axes of their difference from the node, and from it estimates
    all their distances at once; only the vectors of nodes that it walks through are
    read. Estimates are off by about ``code_error`` (see `stats`) of the product of the
    two distances involved, so the same recall takes a somewhat wider beam. They serve
    queries that are like the vectors best; where queries lie far from all of them,
    plain storage can be the quicker one. The codes are learnt from the links, by `add`,
    when there are enough, and again as the index grows; links added later are coded by
    the `add` that made them. Each 16 links of a vector, or part of 16, take
    ``8 * code_parts + 128`` bytes; ``code_parts`` is at most 64 up to 256 dimensions,
    about ``dim / 3`` at 384, ``dim / 5`` at 784 and ``dim / 8`` above 1,500.

    *Memory.* Where float32 vectors are kept they are split into a bfloat16 part, which
    walks read, and the rest, which only the final distances read: together 4 bytes a
    dimension. Rounded they take 2 a dimension (dimensions rounded up to 8) and 16 more,
    the whole rounded up to 32. Links take ``4 * degree`` bytes a vector. Data whose
    neighbours lie so close together that bfloat16 or 16 bits cannot tell them apart are
    noticed, and kept and walked in full precision. Building from many vectors at once
    holds lists of near neighbours meanwhile, 936 bytes a vector at
    ``ef_construction=200``, and half a copy of the vectors: at its highest about 1.3
    times the finished index and the input, where links have codes.

    *Rounding.* With ``storage="fast"`` float32 vectors x (cosine: of length 1; less
    their centre, where a dimension lies far from zero for its spread, or with ``"ip"``)
    may be kept as ``s n`` with whole numbers n of 16 bits and a step s for each vector:
    its largest ``|x_j| / 32767``, rounded up. So no coordinate is off by more than a
    65,000th of the largest one of its vector, whatever its size, and whole numbers of
    up to 32,767 (also times a power of two) stay as they are; ``narrow_rows`` in
    `stats` says whether it is so.

    *`get`* returns what is kept: where that is rounded, the rounded vectors. Else they
    come back bit for bit with ``"l2"``, ``"l1"`` and ``"ip"``, unless a dimension lies
    far from zero for its spread; then, and with ``"cosine"`` (which stores unit vectors
    and lengths), to one unit in the last place of the larger of the value and the
    dimension's mean. Other types, and ``"poincare"``, are always exact.

    *Small.* From 128 vectors on, vectors x (cosine: of length 1) are kept as
    ``R (x - c) = s 2**e u`` with whole numbers u of 8 bits: dimensions rounded up to
    32, ``4 * degree`` and, with ``"cosine"``, 4 bytes a vector. The centre c, the step
    s and the random rotation R (none where s is smaller without, and with ``"l1"``) are
    learnt by the `add` that makes them so many, from what is there and what it brings,
    and never change. They hold all of up to 65,536 vectors looked at, with e = 0, or,
    where a few lie far out, all but 0.5 %. A vector beyond (``wide_rows`` in `stats`)
    has the least e > 0 that it needs, so it is kept half, a quarter, ... as finely:
    no coordinate is off by more than a 127th of its largest one, and none is cut off.
    Vectors of whole numbers that span no more than 255 (also times a power of two) are
    kept exactly.

    The query is rounded as well for the walk; distances are of the vectors kept to the
    query as it came, so `search` returns what exact search of ``get(ids)`` would, as
    far as the walk finds it. How much the neighbours of the original vectors differ
    from those depends on how near they are: ``byte_error`` in `stats` is the expected
    share by which rounding changes the squared distance of a near pair. About 0.01
    leaves a recall of 0.99; where it is 0.1 or more (clusters a hundred times tighter
    than all is wide) another storage is better. Vectors are linked in batches and
    never at once, so that building takes little memory beside the index and its input.

    *Threads.* Searching while another thread adds is safe; a search sees whole batches.

    References
    ----------
    Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using
    Hierarchical Navigable Small World graphs", 2018 (beam search, pruning rule).
    Al-Jazzazi, Diwan, Gou, Musco, Musco and Suel, "Distance adaptive beam search for
    provably accurate graph-based nearest neighbor search", 2025 (where a walk ends).
    Manohar, Shen, Blelloch, Dhulipala, Gu, Simhadri and Sun, "ParlayANN", 2023
    (building by batches). Subramanya and others, "DiskANN", 2019 (the relaxation).
    Morozov and Babenko, "Non-metric similarity graphs for maximum inner product
    search", 2018 (``"ip"``). Jaiswal and others, "OOD-DiskANN", 2022, and Chen and
    others, "RoarGraph", 2024 (links by what is near to the same query; which ones, is
    annx's own rule). Gou, Gao, Xu and Long, "SymphonyQG", 2025, and Gao and
    Long, "RaBitQ", 2024 (codes relative to the node, and their estimator).

    Examples
    --------
    >>> import numpy as np
    >>> import annx
    >>> vectors = np.random.default_rng(0).standard_normal((1000, 32), np.float32)
    >>> index = annx.GraphIndex.build(vectors, metric="cosine")
    >>> ids, distances = index.search(vectors[:3], k=5)
    >>> ids.shape, ids[:, 0].tolist()
    ((3, 5), [0, 1, 2])

    With a sample of queries that are not like the vectors:

    >>> asked = np.random.default_rng(1).standard_normal((200, 32), np.float32) + 1
    >>> index = annx.GraphIndex.build(vectors, metric="cosine", queries=asked[:100])
    >>> index.search(asked[100:], k=5).ids.shape
    (100, 5)
    """

    _native_type = _core.GraphIndex

    def __init__(
        self,
        dim: int,
        metric: str = "l2",
        dtype: str = "float32",
        *,
        storage: str | None = None,
        degree: int | None = None,
        ef_construction: int = 200,
        alpha: float = 1.0,
        seed: int = 0,
    ) -> None:
        if storage is not None:
            _validate.check_choice(storage, name="storage", choices=_STORAGE)
        _validate.check_choice(dtype, name="dtype", choices=_validate.DTYPES[:5])
        dim = _validate.check_dim(dim, dtype)
        if degree is None:
            # All in all at most 0.4 of float32 vectors from 256 dimensions on.
            degree = 24 if storage == "small" and dim < 320 else 32
        native = _core.GraphIndex(
            dim,
            _validate.check_metric(metric, dtype, hyperbolic=True),
            dtype,
            codes=storage not in ("plain", "small"),
            narrow=storage in (None, "fast"),
            small=storage == "small",
            degree=_validate.check_int(degree, name="degree", low=4, high=256),
            ef_construction=_validate.check_int(
                ef_construction, name="ef_construction", low=1, high=1 << 20
            ),
            alpha=_validate.check_real(alpha, name="alpha", low=1.0),
            seed=_validate.check_int(seed, name="seed", low=0),
        )
        self._native = native

    @classmethod
    def build(
        cls,
        vectors: ArrayLike,
        *,
        metric: str = "l2",
        dtype: str = "float32",
        ids: ArrayLike | None = None,
        neighbours: ArrayLike | None = None,
        queries: ArrayLike | None = None,
        threads: int | None = None,
        progress: Progress | None = None,
        **options: Any,
    ) -> GraphIndex:
        """Make an index of `vectors`.

        Parameters
        ----------
        vectors : array_like, shape (n, dim)
            See `add`.
        metric, dtype, **options
            As for the class.
        ids, queries, threads, progress
            As for `add`.
        neighbours : array_like of int, shape (n, k), optional
            Near neighbours of every vector that are known already, from `knn_graph` or
            another library: numbers of rows, -1 where there are none; a vector itself
            among them does no harm. Links are chosen from these alone, so k should be
            some dozens, 100 or more for a graph as good as without. ``"l2"`` and
            ``"cosine"`` only.

        Returns
        -------
        GraphIndex
        """
        _validate.check_choice(dtype, name="dtype", choices=_validate.DTYPES[:5])
        rows = _validate.as_rows(vectors, name="vectors", dim=None, dtype=dtype)
        index = cls(rows.shape[1], metric, dtype, **options)
        near = None if neighbours is None else _as_neighbours(neighbours, metric, rows)
        index._add(rows, ids, threads, progress, near, queries=queries)
        return index

    def add(
        self,
        vectors: ArrayLike,
        ids: ArrayLike | None = None,
        *,
        queries: ArrayLike | None = None,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> NDArray[np.int64]:
        """Add vectors, at any time.

        Parameters
        ----------
        vectors : array_like, shape (n, dim)
            C-contiguous arrays of the index's dtype are read in place, others are
            copied. Finite.
        ids : array_like of int, shape (n,), optional
            Unique, >= 0 and new. By default they go up from 0, or from the highest id
            that the index ever had.
        queries : array_like, shape (n_queries, dim) or (dim,), optional
            A sample of the queries to come, as `search` takes them, for which links are
            made among all vectors (see `GraphIndex`). A thousand or a few thousand are
            worth their time where queries are not like the vectors: questions against
            texts, say. With no vectors (shape (0, dim)) the index is adapted as it is.
        threads : int, optional
            All cores by default. The graph does not depend on it.
        progress : callable, optional
            Called as ``progress(done, n)`` now and then, and at the end.

        Returns
        -------
        ndarray of int64, shape (n,)
            The ids of the vectors.

        Raises
        ------
        TypeError, ValueError
            Bad vectors, ids or queries; the index is unchanged.
        KeyboardInterrupt
            After Ctrl-C, or whatever `progress` raises: the vectors of finished batches
            stay. They are the first of `vectors`; the exception's notes say how many
            (Python 3.11 and later), and so does ``len(index)``. Vectors that are linked
            at once (see `GraphIndex`) all stay or none. Links made for `queries` by
            then stay too.

        Notes
        -----
        About ``ef_construction * degree`` distances a vector; far fewer for the first
        ones, where they are many. A query costs one exact search, and up to a few tens
        of thousands of distances.
        """
        rows = _validate.as_rows(
            vectors, name="vectors", dim=self.dim, dtype=self.dtype
        )
        return self._add(rows, ids, threads, progress, queries=queries)

    def _add(
        self,
        rows: NDArray[Any],
        ids: ArrayLike | None,
        threads: int | None,
        progress: Progress | None,
        neighbours: NDArray[np.uint32] | None = None,
        *,
        queries: ArrayLike | None = None,
    ) -> NDArray[np.int64]:
        n = rows.shape[0]
        sample = None
        if queries is not None:
            dim, _, dtype = self._known()
            sample, _ = _validate.as_queries(
                queries, dim=dim, dtype=_validate.query_dtype(dtype)
            )
        given = None if ids is None else _validate.as_ids(ids, count=n, unique=True)
        before = len(self)
        try:
            first = self._native.add(
                rows,
                given,
                _validate.check_threads(threads),
                _validate.check_progress(progress),
                neighbours,
                sample,
            )
        except BaseException as error:
            kept = len(self) - before
            if kept and hasattr(error, "add_note"):
                error.add_note(f"the first {kept} of {n} vectors were added")
            raise
        return np.arange(first, first + n) if given is None else given

    def search(
        self,
        queries: ArrayLike,
        k: int = 10,
        *,
        ef: int | None = None,
        filter: Any = None,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> SearchResult:
        """Find about the `k` nearest vectors of each query.

        Parameters
        ----------
        queries : array_like, shape (n_queries, dim) or (dim,)
            float32 for the float types (others are converted), the index's dtype for
            the 8-bit ones.
        k : int, default 10
            At least 1; may exceed the number of vectors.
        ef : int, optional
            About how many vectors a query walks through: more finds more, in proportion
            slower. At least `k` is used. The default is ``max(64, 2 * k)``.
        filter : IdSet or array_like of int, optional
            Search only among these ids. If they are few they are scanned, which is
            exact; otherwise the beam is widened in proportion to their scarcity.
        threads : int, optional
            One for a single query, otherwise all cores by default.
        progress : callable, optional
            Called as ``progress(done, n_queries)`` now and then.

        Returns
        -------
        SearchResult
            Unpacks into `ids` (int64) and `distances` (float32), both of shape
            (n_queries, k), or (k,) for one query of shape (dim,). Nearest first, ties
            by id; rows with fewer than `k` answers end in -1 and +inf.

        Raises
        ------
        TypeError, ValueError
            Bad queries or options.
        """
        found: SearchResult | None = self._native.search_single(
            queries, k, ef, threads, SearchResult, filter, progress
        )
        if found is not None:
            return found
        dim, metric, dtype = self._known()
        rows, single = _validate.as_queries(
            queries, dim=dim, dtype=_validate.query_dtype(dtype), check=False
        )
        k = _validate.check_k(k)
        width = 0  # the default
        if ef is not None:
            width = _validate.check_int(ef, name="ef", low=1, high=(1 << 31) - 1)
        ids, distances = self._native.search(
            rows,
            k,
            width,
            single,
            None if filter is None else self._filter(filter),
            1
            if single and threads is None
            else _validate.check_threads(threads, rows.shape[0]),
            None if progress is None else _validate.check_progress(progress),
        )
        return SearchResult(ids, distances, metric)

    def search_radius(
        self,
        queries: ArrayLike,
        radius: float,
        *,
        ef: int | None = None,
        filter: Any = None,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> RadiusResult:
        """Find about everything within a radius.

        Parameters
        ----------
        queries : array_like, shape (n_queries, dim) or (dim,)
        radius : float
            The largest distance that is returned: squared for ``"l2"``, the negated
            inner product for ``"ip"``. Compared as float32.
        ef : int, optional
            Least width of the beam.
        filter, threads, progress
            As for `search`.

        Returns
        -------
        RadiusResult
            Ragged: for each query nearest first, ties by id. What is returned lies
            within the radius; what a search as wide as the answer misses is missing.

        Notes
        -----
        Searches for 32 neighbours, then four times as many, until the last one lies
        outside, with beams twice as wide as that.
        """
        limit = _validate.check_radius(radius, self.metric)
        if ef is not None:
            _validate.check_int(ef, name="ef", low=1, high=(1 << 31) - 1)
        rows, _ = _validate.as_queries(
            queries, dim=self.dim, dtype=_validate.query_dtype(self.dtype)
        )
        return radius_by_search(
            self, rows, limit, ef, filter=filter, threads=threads, progress=progress
        )

    def neighbours(self, id: int) -> NDArray[np.int64]:
        """Return the ids that a vector links to, at most `degree` of them.

        Raises
        ------
        KeyError
            The id is not in the index.
        """
        wanted = _validate.check_int(id, name="id", low=0)
        return np.array(self._native.neighbours(wanted), np.int64)

    @property
    def storage(self) -> str:
        """What is kept, as the constructor was told."""
        if not self._native.codes:
            return "small" if self._native.small else "plain"
        return "fast" if self._native.narrow else "float32"

    @property
    def degree(self) -> int:
        """Links that a node can hold."""
        return int(self._native.degree)

    @property
    def ef_construction(self) -> int:
        """Width of the beam while building."""
        return int(self._native.ef_construction)

    def stats(self) -> dict[str, Any]:
        """Return facts about the index; walks the graph once, O(n * degree).

        Returns
        -------
        dict
            What every family tells, and: ``links`` and ``max_links`` (of one node);
            ``reachable``, which is always the number of vectors; ``split_rows``,
            whether walks read the bfloat16 part of float32 vectors alone;
            ``narrow_rows``, whether those are rounded to 16 bits; ``byte_rows``,
            whether they have become 8-bit codes, ``turned_rows``, whether rotated for
            that, ``wide_rows``, how many more coarsely, and ``byte_error`` (see
            *Small*); ``centred``, whether vectors are kept relative to a centre;
            ``code_parts`` (0 without codes) and ``code_error``, the expected standard
            deviation of an estimated inner product of unit vectors.
        """
        return {**super().stats(), **self._native.stats()}
