# SPDX-License-Identifier: Apache-2.0
"""k-d trees: exact search in few dimensions, a budget of distances in more."""

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

__all__ = ["KDForestIndex"]


@register("kd_forest")
class KDForestIndex(ScannedIndex):
    """Search by k-d trees: one answers exactly, several share a budget.

    The index for few dimensions: in up to about 16 one tree gives the exact nearest
    neighbours after a look at a small part of the vectors.

    Parameters
    ----------
    dim : int
        Dimensions of the vectors.
    metric : {"l2", "l1", "cosine"}, default "l2"
        Smaller is nearer. ``"ip"`` is refused: boxes do not bound it.
    dtype : {"float32"}
    n_trees : int, default 1
        Trees, from 1 to 64. One is exact unless told otherwise; more are for dimensions
        in which that takes too long.
    seed : int, default 0
        Of the dimensions that the trees after the first are split along.

    Notes
    -----
    *Building.* Vectors are split at the median along the dimension of highest variance
    (of a sample of 256, where there are more), down to leaves of 16. The trees after
    the first draw the dimension among the 5 of highest variance. Three levels of splits
    make one node, which keeps the bounding boxes of its (up to) eight children. The
    same vectors and seed give the same trees on any number of threads. O(n log n).

    *Searching.* A query is compared with the eight boxes of a node at once, and with
    the sixteen points of a leaf at once. Exact search goes down to the nearest boxes
    first and leaves out those that are further than the k-th best distance so far. With
    a budget, the leaves of all trees are visited in order of their boxes until `checks`
    vectors were measured. Distances are the canonical ones, as `FlatIndex` gives them.
    In few dimensions a query takes O(log n); in many, exact search looks at nearly
    everything, and a graph is the better index.

    *Changing.* New vectors wait without a tree, and are scanned, until there are more
    than 512, or more than in trees; they then get trees of their own, together with all
    earlier ones that lie in trees at most twice as large. So there are O(log n) sets of
    trees, and adding costs O(log(n)^2) a vector. Removed vectors are marked; trees of
    which more than half is removed are built anew.

    *Memory.* The vectors, about ``9 * dim`` bytes a vector for the boxes of each tree,
    12 for ids, and 4 for each tree after the first.

    References
    ----------
    Friedman, Bentley and Finkel, "An algorithm for finding best matches in logarithmic
    expected time", 1977. Silpa-Anan and Hartley, "Optimised KD-trees for fast image
    descriptor matching", 2008. Muja and Lowe, "Fast approximate nearest neighbors with
    automatic algorithm configuration", 2009. Bentley and Saxe, "Decomposable searching
    problems", 1980.

    Examples
    --------
    >>> import numpy as np
    >>> import annx
    >>> points = np.random.default_rng(0).random((5000, 3), np.float32)
    >>> index = annx.KDForestIndex.build(points)
    >>> ids, distances = index.search(points[:3], k=5)
    >>> ids[:, 0].tolist(), distances[:, 0].tolist()
    ([0, 1, 2], [0.0, 0.0, 0.0])
    """

    _native_type = _core.KDForestIndex

    def __init__(
        self,
        dim: int,
        metric: str = "l2",
        dtype: str = "float32",
        *,
        n_trees: int = 1,
        seed: int = 0,
    ) -> None:
        check_choice(dtype, name="dtype", choices=("float32",))
        self._native = _core.KDForestIndex(
            dim=check_dim(dim),
            metric=check_choice(metric, name="metric", choices=("l2", "l1", "cosine")),
            n_trees=check_int(n_trees, name="n_trees", low=1, high=64),
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
    ) -> KDForestIndex:
        """Make an index of vectors, (n, dim); `options` as for the class."""
        rows = as_rows(vectors, name="vectors", dim=None)
        index = cls(rows.shape[1], metric, **options)
        index.add(rows, ids, threads=threads, progress=progress)
        return index

    @property
    def n_trees(self) -> int:
        """How many trees vectors are built into."""
        return int(self._native.n_trees)

    def search(
        self,
        queries: Any,
        k: int = 10,
        *,
        checks: int | None = None,
        filter: Any = None,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> SearchResult:
        """Find the k nearest vectors of each query: exactly, or within a budget.

        Parameters
        ----------
        queries : array_like, shape (n, dim) or (dim,)
            Many at once are answered leaf by leaf, which takes less time.
        k : int, default 10
            More than there are is no error.
        checks : int, optional
            Measure about this many vectors a query. ``len(index)`` or more is exact,
            and so is the default of one tree; the default of a forest is
            ``max(1024, 32 * k)``.
        filter : IdSet or array_like of int, optional
            Search only among these ids; only these count as checks.
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
            queries, k, checks, threads, SearchResult, filter, progress
        )
        if quick is not None:
            return quick
        dim, metric, dtype = self._known()
        array, single = as_queries(queries, dim=dim, dtype=dtype, check=False)
        ids, distances = self._native.search(
            array,
            check_k(k),
            0 if checks is None else check_int(checks, name="checks", low=1),
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
        parts = {name: int(stats[name]) for name in ("vectors", "trees", "ids")}
        return {**parts, "total": sum(parts.values())}

    def stats(self) -> dict[str, Any]:
        """Return facts about the index.

        Returns
        -------
        dict
            What every family tells, and: ``n_trees``; ``parts``, the sets of trees that
            a search goes through; ``leaves`` of their first trees; ``waiting``, vectors
            without a tree; ``removed``, vectors that are marked.
        """
        native = self._native.stats()
        own = {name: native[name] for name in ("parts", "leaves", "waiting", "removed")}
        return {**super().stats(), "n_trees": self.n_trees, **own}
