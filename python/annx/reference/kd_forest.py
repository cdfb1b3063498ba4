# SPDX-License-Identifier: Apache-2.0
"""k-d trees in plain NumPy: median splits, boxes, and priority search."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annx.reference.flat import FlatIndex, pairwise_distances
from annx.reference.random import Random
from annx.reference.topk import top_k

__all__ = ["KDForestIndex"]

LEAF = 16
SAMPLE = 256
CHOICES = 5


@dataclass
class Node:
    """A box around some points: with children, or with the points themselves."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    children: list[Node] = field(default_factory=list)
    points: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def bound(self, query: NDArray[np.float64], metric: str) -> float:
        """Return what no point in the box is nearer than."""
        outside = np.maximum(np.maximum(self.low - query, query - self.high), 0)
        if metric == "l1":
            return float(outside.sum())
        return float(np.square(outside).sum())


def build_tree(
    points: NDArray[np.float64], *, choices: int = 1, seed: int = 0, stream: int = 0
) -> Node:
    """Split points at the median of the dimension of highest variance, down to 16.

    Parameters
    ----------
    points : ndarray, shape (n, dim)
        n >= 1.
    choices : int, default 1
        More draws the dimension among that many of highest variance.
    seed, stream : int
        Of the draws: the split with its middle at place m takes number m.

    Returns
    -------
    Node
        The root of a binary tree. (The native tree keeps three levels of it in a node.)

    Notes
    -----
    Splits fall on multiples of 16, and equal points are split by their number, so any
    data ends in leaves of at most 16. O(n log n) for few dimensions.

    References
    ----------
    Friedman, Bentley and Finkel, "An algorithm for finding best matches in logarithmic
    expected time", 1977. Silpa-Anan and Hartley, "Optimised KD-trees for fast image
    descriptor matching", 2008 (`choices`).

    Examples
    --------
    >>> import numpy as np
    >>> from annx.reference.kd_forest import build_tree
    >>> root = build_tree(np.arange(40.0).reshape(40, 1))
    >>> [len(child.points) for child in root.children]
    [0, 8]
    """
    random = Random(seed, stream)

    def grow(rows: NDArray[np.int64], begin: int) -> Node:
        mine = points[rows]
        node = Node(mine.min(axis=0), mine.max(axis=0))
        leaves = -(-len(rows) // LEAF)
        if leaves == 1:
            node.points = rows
            return node
        middle = (leaves + 1) // 2 * LEAF
        step = max(1, len(rows) // SAMPLE)
        best = np.argsort(-mine[::step].var(axis=0), kind="stable")[:choices]
        drawn = int(random.below(begin + middle, len(best))) if choices > 1 else 0
        order = np.lexsort((rows, mine[:, best[drawn]]))
        node.children = [
            grow(rows[order[:middle]], begin),
            grow(rows[order[middle:]], begin + middle),
        ]
        return node

    return grow(np.arange(len(points)), 0)


class KDForestIndex(FlatIndex):
    """Search by k-d trees: one answers exactly, several share a budget.

    The twin of `annx.KDForestIndex`; trees are built at the first search after a change
    rather than in parts.

    Notes
    -----
    The leaves are visited in order of their boxes until the nearest one left is further
    than the k-th best, or `checks` vectors were measured.

    References
    ----------
    Friedman, Bentley and Finkel, "An algorithm for finding best matches in logarithmic
    expected time", 1977. Muja and Lowe, "Fast approximate nearest neighbors with
    automatic algorithm configuration", 2009.

    Examples
    --------
    >>> import numpy as np
    >>> from annx.reference import KDForestIndex
    >>> index = KDForestIndex.build(np.arange(100.0).reshape(100, 1))
    >>> index.search([[41.2]], 2)[0].tolist()
    [[41, 42]]
    """

    n_trees: int = 1

    def __init__(
        self,
        dim: int,
        metric: str = "l2",
        dtype: str = "float32",
        *,
        n_trees: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(dim, metric, dtype)
        self.n_trees = n_trees
        self.seed = seed
        self._trees: list[Node] = []

    @classmethod
    def build(  # type: ignore[override]
        cls, vectors: Any, metric: str = "l2", *, ids: Any = None, **options: Any
    ) -> KDForestIndex:
        """Make an index of vectors, (n, dim)."""
        index = cls(np.shape(vectors)[1], metric, **options)
        index.add(vectors, ids)
        return index

    def upsert(self, vectors: Any, ids: Any) -> None:
        """Put vectors under ids, replacing those that are there."""
        super().upsert(vectors, ids)
        self._trees = []

    def remove(self, ids: Any) -> None:
        """Remove ids that are there."""
        super().remove(ids)
        self._trees = []

    def search(  # type: ignore[override]
        self,
        queries: Any,
        k: int = 10,
        *,
        checks: int | None = None,
        filter: Any = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the k nearest, exactly or within a budget: ids and distances."""
        queries = np.asarray(queries)
        ids = np.full((len(queries), k), -1)
        distances = np.full((len(queries), k), np.inf)
        if len(self) == 0:
            return ids, distances
        if checks is None:
            checks = len(self) if self.n_trees == 1 else max(1024, 32 * k)
        all_ids = self.ids
        allowed = np.isin(all_ids, self._chosen(filter))
        rows = self.get(all_ids)
        coordinates = self._coordinates(rows)
        if not self._trees:
            for t in range(self.n_trees):
                choices = 1 if t == 0 else CHOICES
                self._trees.append(
                    build_tree(coordinates, choices=choices, seed=self.seed, stream=t)
                )
        for i, query in enumerate(queries):
            ids[i], distances[i] = self._walk(
                query, rows, all_ids, allowed, k=k, checks=checks
            )
        return ids, distances

    def search_radius(
        self, queries: Any, radius: float, *, filter: Any = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Return everything at a distance <= radius: offsets, ids, distances."""
        exact = FlatIndex(self.dim, self.metric)
        exact._rows = self._rows
        return exact.search_radius(queries, radius, filter=filter)

    def _coordinates(self, rows: NDArray[Any]) -> NDArray[np.float64]:
        """Return what trees divide: vectors, or under cosine their directions."""
        wide = rows.astype(np.float64)
        if self.metric != "cosine":
            return wide
        norms = np.sqrt(np.square(wide).sum(axis=1))
        return wide / np.where(norms > 0, norms, 1)[:, None]

    def _walk(
        self,
        query: NDArray[Any],
        rows: NDArray[Any],
        ids: NDArray[np.int64],
        allowed: NDArray[np.bool_],
        *,
        k: int,
        checks: int,
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        place = self._coordinates(query[None])[0]
        measured = np.zeros(len(rows), bool)
        queue = [(0.0, t, 0, root) for t, root in enumerate(self._trees)]
        pushed = len(queue)
        best_ids, best = np.full(k, -1), np.full(k, np.inf)
        # Cosine is half the squared distance of the directions; the rest is rounding.
        factor = 2.0 if self.metric == "cosine" else 1.0
        while queue and measured.sum() < checks:
            bound, _, _, node = heapq.heappop(queue)
            if bound > factor * best[-1] * (1 + 1e-9) + 1e-12:
                break
            for child in node.children:
                entry = (child.bound(place, self.metric), 0, pushed, child)
                heapq.heappush(queue, entry)
                pushed += 1
            fresh = node.points[allowed[node.points] & ~measured[node.points]]
            if len(fresh) == 0:
                continue
            measured[fresh] = True
            keys = pairwise_distances(query[None], rows[fresh], metric=self.metric)[0]
            held = best_ids >= 0
            best_ids, best = top_k(
                np.concatenate([best[held], keys]),
                np.concatenate([best_ids[held], ids[fresh]]),
                k,
            )
        return best_ids, best
