# SPDX-License-Identifier: Apache-2.0
"""The graph index in plain NumPy: the same choices, one at a time.

On data whose distances are exact in float32 (small integers) it builds the very same
graph as `annx.GraphIndex`, link for link.
"""

from __future__ import annotations

from bisect import insort
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annx.reference.flat import pairwise_distances
from annx.reference.random import Random

__all__ = ["GraphIndex", "beam_search", "choose_entries", "select_neighbours"]

BATCH = 512
ENTRIES = 64
FIRST_REFINEMENT = 64

Pair = tuple[float, int]
"""A key (smaller is nearer) and a slot."""


def beam_search(
    links: list[list[int]],
    query_keys: NDArray[np.float64],
    starts: list[int],
    width: int,
) -> list[Pair]:
    """Return the best `width` slots that a best-first walk meets, nearest first.

    Parameters
    ----------
    links : list of list of int
        Neighbours of each slot.
    query_keys : ndarray, shape (n,)
        The key of every slot for the query. (The native search computes the few that
        it meets; here they are all given.)
    starts : list of int
        Where the walk begins.
    width : int
        How many candidates it remembers.

    Notes
    -----
    Expand the nearest slot not yet expanded; meet its neighbours; keep the best
    `width`; stop when all of those are expanded. Ties go to the lower slot.

    References
    ----------
    Malkov and Yashunin, 2018, algorithm 2.

    Examples
    --------
    >>> beam_search([[1], [2], [1]], np.array([9.0, 4.0, 1.0]), [0], 2)
    [(1.0, 2), (4.0, 1)]
    """
    met = set(starts)
    beam = sorted((float(query_keys[slot]), slot) for slot in met)[:width]
    expanded: set[int] = set()
    while True:
        waiting = [slot for _, slot in beam if slot not in expanded]
        if not waiting:
            return beam
        expanded.add(waiting[0])
        for slot in links[waiting[0]]:
            if slot in met:
                continue
            met.add(slot)
            insort(beam, (float(query_keys[slot]), slot))
            del beam[width:]


def occludes(relax: float, between: Any, key: Any, slack: float = 0.0) -> Any:
    """Whether s occludes c from x, from the keys of (s, c) and of (x, c).

    With `slack` (3 in hyperbolic space, whose keys are ``sinh(d / 2)**2``) s must be
    nearer to c than x is by up to ``log(1 + slack)``, the more so the further c is.
    """
    wider = relax * (1 + slack * key / (1 + key)) if slack else relax
    return wider * between <= key


def select_neighbours(
    candidates: list[Pair], keys: Any, most: int, relax: float, slack: float = 0.0
) -> list[Pair]:
    """Choose links by the relative-neighbourhood rule.

    Parameters
    ----------
    candidates : list of (key, slot)
        Nearest first.
    keys : callable
        ``keys(s, slots)`` gives the keys between slot `s` and others.
    most : int
        How many to choose at most.
    relax : float
        A candidate c is dropped when some chosen, nearer s has
        ``relax * key(s, c) <= key(x, c)``.
    slack : float
        As of `occludes`.

    Returns
    -------
    list of (key, slot)
        Nearest first.

    References
    ----------
    Malkov and Yashunin, 2018, algorithm 4; Subramanya and others, 2019 (`relax`).

    Examples
    --------
    >>> line = np.array([0.0, 1.0, 2.0, -3.0])  # node 0 and three others on a line
    >>> near = [(1.0, 1), (4.0, 2), (9.0, 3)]
    >>> select_neighbours(near, lambda s, t: (line[t] - line[s]) ** 2, 3, 1.0)
    [(1.0, 1), (9.0, 3)]
    """
    chosen: list[Pair] = []
    left = list(candidates)
    while left and len(chosen) < most:
        nearest, *left = left
        chosen.append(nearest)
        if left:
            between = keys(nearest[1], [slot for _, slot in left])
            left = [
                pair
                for pair, key in zip(left, between, strict=True)
                if not occludes(relax, float(key), pair[0], slack)
            ]
    return chosen


def choose_entries(count: int, seed: int) -> list[int]:
    """Return where walks begin: slot 0 and up to 64 random slots, rising.

    Examples
    --------
    >>> choose_entries(1, 0)
    [0]
    """
    if count == 0:
        return []
    random = Random(seed, count)
    drawn = [int(random.below(i, count)) for i in range(min(ENTRIES, count // 16))]
    return sorted({0, *drawn})


class GraphIndex:
    """A proximity graph, grown in batches, searched by `beam_search`.

    Parameters
    ----------
    dim : int
    metric : {"l2", "cosine", "ip", "l1", "poincare"}
    dtype : str
        Of no effect: everything is float64.
    degree, ef_construction, alpha, seed
        As of `annx.GraphIndex`.

    Notes
    -----
    Keys between vectors are l2 for ``"l2"`` and, on unit vectors, for ``"cosine"``; l1
    for ``"l1"``; ``sinh(d / 2)**2`` for ``"poincare"``, which for near vectors is
    about a quarter of the squared distance; and for ``"ip"`` the negated inner product
    around the mean, without
    which vectors far from the origin would all be one another's best. Every node but
    slot 0 has a tree edge into it, from the nearest node before it that has room, which
    is never pruned: so all can be reached. Adding a node costs O(n) here, because all
    keys are computed; the native index computes about ``ef_construction * degree``.

    References
    ----------
    Malkov and Yashunin, 2018; Manohar and others (ParlayANN), 2023; Morozov and
    Babenko, 2018 (inner product).

    Examples
    --------
    >>> index = GraphIndex(1)
    >>> index.add([[0.0], [5.0], [1.0]]).tolist()
    [0, 1, 2]
    >>> index.search([0.9], k=2)[0].tolist()
    [2, 0]
    """

    def __init__(
        self,
        dim: int,
        metric: str = "l2",
        dtype: str = "float32",
        *,
        degree: int = 32,
        ef_construction: int = 200,
        alpha: float = 1.0,
        seed: int = 0,
    ) -> None:
        self._options = (dim, metric, dtype, degree, ef_construction)
        self.seed = seed
        # Keys but those of l1 are squared distances; those of ip are no distances.
        self._relax = {"l1": alpha, "ip": 1.0}.get(metric, alpha * alpha)
        self._slack = 3.0 if metric == "poincare" else 0.0
        self.vectors = np.empty((0, dim))
        self._ids = np.empty(0, np.int64)
        self.links: list[list[int]] = []
        self.tree: set[tuple[int, int]] = set()  # (from, to)
        self.entries: list[int] = []
        self.centre = np.zeros(dim)
        self._refined_at = 0

    @classmethod
    def build(
        cls,
        vectors: Any,
        *,
        metric: str = "l2",
        dtype: str = "float32",
        ids: Any = None,
        **options: Any,
    ) -> GraphIndex:
        """Make an index of vectors, shape (n, dim)."""
        index = cls(np.asarray(vectors).shape[1], metric, dtype, **options)
        index.add(vectors, ids)
        return index

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def dim(self) -> int:
        """Dimensions of the vectors."""
        return self._options[0]

    @property
    def metric(self) -> str:
        """What distances are."""
        return self._options[1]

    @property
    def dtype(self) -> str:
        """What went in; computations are in float64."""
        return self._options[2]

    @property
    def degree(self) -> int:
        """Links that a node can hold."""
        return self._options[3]

    @property
    def ef_construction(self) -> int:
        """Width of the beam while building."""
        return self._options[4]

    @property
    def ids(self) -> NDArray[np.int64]:
        """All ids, in the order in which they came."""
        return self._ids

    def id_set(self, chosen: Any) -> NDArray[np.int64]:
        """Return the ids chosen by a mask over `ids`, or as ids."""
        array = np.asarray(chosen)
        return self.ids[array] if array.dtype.kind == "b" else array

    def add(self, vectors: Any, ids: Any = None) -> NDArray[np.int64]:
        """Add vectors, shape (n, dim), a batch at a time; return their ids."""
        rows = np.asarray(vectors, np.float64).reshape(-1, self.dim)
        next_id = int(self.ids.max(initial=-1)) + 1
        given = np.arange(next_id, next_id + len(rows)) if ids is None else ids
        for begin in range(0, len(rows), BATCH):
            self._add_batch(rows[begin : begin + BATCH])
        self._ids = np.concatenate([self.ids, np.asarray(given, np.int64)])
        return np.asarray(given, np.int64)

    def _item_rows(self) -> NDArray[np.float64]:
        """Return the vectors as the keys between them see them."""
        if self.metric == "cosine":
            lengths = np.linalg.norm(self.vectors, axis=1, keepdims=True)
            return self.vectors / np.where(lengths > 0, lengths, 1.0)
        return self.vectors - self.centre if self.metric == "ip" else self.vectors

    def _keys(self, slot: int, others: Any) -> NDArray[np.float64]:
        """Keys between a slot and others."""
        rows = self._item_rows()
        metric = {"cosine": "l2"}.get(self.metric, self.metric)
        keys: NDArray[np.float64] = pairwise_distances(
            rows[[slot]], rows[others], metric=metric
        )[0]
        return np.sinh(keys / 2) ** 2 if metric == "poincare" else keys

    def _add_batch(self, rows: NDArray[np.float64]) -> None:
        first = len(self.vectors)
        self.vectors = np.concatenate([self.vectors, rows])
        if len(self.vectors) >= max(FIRST_REFINEMENT, 2 * self._refined_at):
            self.centre = self.vectors.mean(axis=0)
            if first:
                self.entries = choose_entries(first, self.seed)
            self._refined_at = len(self.vectors)
        batch = range(first, len(self.vectors))

        # Each node of the batch chooses among what it finds and the rest of the batch.
        chosen: dict[int, list[int]] = {}
        parents: dict[int, int] = {}
        for node in batch:
            keys = self._keys(node, slice(None))
            found = beam_search(
                self.links, keys, self.entries, min(self.ef_construction, first)
            )
            others = [(float(keys[slot]), slot) for slot in batch if slot != node]
            earlier = found[:1] + [pair for pair in others if pair[1] < node]
            if earlier:
                parents[node] = min(earlier)[1]
            candidates = sorted(found + others)[: self.ef_construction]
            picked = select_neighbours(
                candidates, self._keys, self.degree // 2, self._relax, self._slack
            )
            chosen[node] = [slot for _, slot in picked]
        self.links += [list(chosen[node]) for node in batch]

        # Whoever was chosen takes the choosers in, in order of slot.
        wanted: dict[int, dict[int, bool]] = {}
        for node in batch:
            for target in chosen[node]:
                wanted.setdefault(target, {})[node] = False
        for node, parent in parents.items():
            wanted.setdefault(parent, {})[node] = True
        for target in sorted(wanted):
            for source in sorted(wanted[target]):
                self._link(target, source, wanted[target][source])
        attached = {to for _, to in self.tree}
        for node in batch:
            if node != 0 and node not in attached:
                self._attach(node, parents[node])
        if not self.entries:
            self.entries = [0]

    def _tree_edges(self, node: int) -> int:
        return sum((node, slot) in self.tree for slot in self.links[node])

    def _link(self, target: int, source: int, tree: bool) -> None:
        """Take `source` in as a link of `target`, pruning if there is no room."""
        links = self.links[target]
        tree = tree and self._tree_edges(target) < self.degree // 2
        if tree:
            self.tree.add((target, source))
        if source in links:
            return
        if len(links) < self.degree:
            links.append(source)
            return
        key = float(self._keys(target, [source])[0])
        there = self._keys(target, links)
        between = self._keys(source, links)
        loose = [j for j, slot in enumerate(links) if (target, slot) not in self.tree]
        rule = self._relax, between
        hidden = occludes(*rule, key, self._slack)
        if not tree and bool(np.any((there <= key) & hidden)):
            return
        hides = occludes(*rule, there, self._slack)
        beaten = [j for j in loose if there[j] > key and hides[j]]
        if not beaten and not tree and max(there[j] for j in loose) <= key:
            return
        # The farthest goes; of equals, the first in the list.
        links[max(beaten or loose, key=lambda j: (there[j], -j))] = source

    def _attach(self, node: int, parent: int) -> None:
        """Give `node` its tree edge from the first descendant of `parent` with room."""
        queue = [parent]
        for candidate in queue:
            links = self.links[candidate]
            if self._tree_edges(candidate) >= self.degree // 2:
                queue += [slot for slot in links if (candidate, slot) in self.tree]
                continue
            if node not in links:
                if len(links) < self.degree:
                    links.append(node)
                else:
                    there = self._keys(candidate, links)
                    loose = [
                        j
                        for j, slot in enumerate(links)
                        if (candidate, slot) not in self.tree
                    ]
                    links[max(loose, key=lambda j: (there[j], -j))] = node
            self.tree.add((candidate, node))
            return

    def search(
        self, queries: Any, k: int = 10, *, ef: int | None = None, filter: Any = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return ids and distances, shape (n_queries, k) or (k,), as the native index.

        With `filter` (ids) this one scans, which is what the native one approximates.
        """
        rows = np.asarray(queries, np.float64)
        distances = pairwise_distances(
            np.atleast_2d(rows), self.vectors, metric=self.metric
        )
        ids = np.full((len(distances), k), -1, np.int64)
        best = np.full((len(distances), k), np.inf)
        width = min(max(ef or max(64, 2 * k), k), len(self))
        for i, keys in enumerate(distances):
            if filter is None:
                found = beam_search(self.links, keys, self.entries, width)
            else:
                allowed = np.flatnonzero(np.isin(self.ids, filter))
                found = [(float(keys[slot]), int(slot)) for slot in allowed]
            near = sorted((key, int(self.ids[slot])) for key, slot in found)[:k]
            for j, (key, id) in enumerate(near):
                ids[i, j], best[i, j] = id, key
        return (ids[0], best[0]) if rows.ndim == 1 else (ids, best)

    def search_radius(
        self, queries: Any, radius: float, *, ef: int | None = None, filter: Any = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Return offsets, ids and distances within the radius, by widest searches."""
        rows = np.atleast_2d(np.asarray(queries))
        ids, distances = self.search(rows, max(len(self), 1), ef=ef, filter=filter)
        inside = (ids >= 0) & (distances <= radius)
        offsets = np.concatenate([[0], np.cumsum(inside.sum(axis=1))])
        return offsets.astype(np.int64), ids[inside], distances[inside]

    def get(self, ids: Any) -> NDArray[np.float64]:
        """Return vectors by id."""
        slots = {int(id): slot for slot, id in enumerate(self.ids)}
        return self.vectors[[slots[int(id)] for id in np.atleast_1d(ids)]]

    def neighbours(self, id: int) -> NDArray[np.int64]:
        """Return the ids that a vector links to."""
        slot = int(np.flatnonzero(self.ids == id)[0])
        return self.ids[self.links[slot]]
