# SPDX-License-Identifier: Apache-2.0
"""The graph index in plain NumPy: the same choices, one at a time.

On data whose distances are exact in float32 (small integers) it builds the very same
graph as `annx.GraphIndex`, link for link.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annx.reference.codec import draw_distinct
from annx.reference.flat import pairwise_distances
from annx.reference.random import Random

__all__ = [
    "GraphIndex",
    "beam_search",
    "choose_entries",
    "choose_heads",
    "choose_listed",
    "entries_of",
    "evenly",
    "find_levels",
    "link_lists",
    "measure_growth",
    "select_neighbours",
    "spread",
    "spread_drawn",
]

BATCH = 512
ENTRIES = 64
DRAWN = 16
MOST_CANDIDATES = 65536
FIRST_REFINEMENT = 64
# Of levels: a level holds a sixteenth of the one below, and four of each component.
SAMPLED = 16
PER_COMPONENT = 4
TOP_ROWS = 256
FAR_NEIGHBOURS = 96
PARENT_DRAWS = 64
GROWTH_ROWS = 1024
GROWTH_QUERIES = 32
# Of links for queries: how many are taken in a round, and near rows of each.
QUERY_ROUND = 64
NEAR_QUERY = 2
MOST_NEAR_QUERY = 1024
MOST_GROWTH = 1e6

Pair = tuple[float, int]
"""A key (smaller is nearer) and a slot."""


def reach(best: list[Pair], k: int, factor: float) -> float:
    """Return the key beyond which a walk does not go, from the best pairs so far.

    Infinite for k = 0, and until there are k.
    """
    return factor * best[k - 1][0] if 0 < k <= len(best) else np.inf


def beam_search(
    links: list[list[int]],
    query_keys: NDArray[np.float64],
    starts: list[int],
    width: int,
    *,
    k: int = 0,
    factor: float = 1.0,
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
    k : int, default 0
        If not 0, the walk goes nowhere whose key is beyond `factor` times that of the
        k-th best so far. Keys are >= 0 then.
    factor : float, default 1
        At least 1.

    Notes
    -----
    Expand the nearest slot not yet expanded; meet its neighbours; keep the best
    `width`; stop when all of those are expanded. Ties go to the lower slot.

    References
    ----------
    Malkov and Yashunin, 2018, algorithm 2. Al-Jazzazi, Diwan, Gou, Musco, Musco and
    Suel, "Distance adaptive beam search for provably accurate graph-based nearest
    neighbor search", 2025 (`factor`).

    Examples
    --------
    >>> beam_search([[1], [2], [1]], np.array([9.0, 4.0, 1.0]), [0], 2)
    [(1.0, 2), (4.0, 1)]
    """
    met = set(starts)
    beam = sorted((float(query_keys[slot]), slot) for slot in met)[:width]
    expanded: set[int] = set()
    while True:
        most = reach(beam, k, factor)
        waiting = [
            slot for key, slot in beam if slot not in expanded and not key > most
        ]
        if not waiting:
            return beam
        expanded.add(waiting[0])
        for slot in links[waiting[0]]:
            if slot in met:
                continue
            met.add(slot)
            if query_keys[slot] > most:
                continue
            insort(beam, (float(query_keys[slot]), slot))
            del beam[width:]


def measure_growth(
    links: list[list[int]], keys: Any, entries: list[int], queries: Any = None
) -> float:
    """Return the power of the key by which the number of neighbours grows.

    From the 10th and the 100th neighbour of 256 slots, or of at most as many queries,
    as searches of width 110 find them; 0 where half of them have no such ratio.

    Parameters
    ----------
    links : list of list of int
        Neighbours of each slot.
    keys : callable
        ``keys(slot, slice(None))`` are the keys of a slot and all others.
    entries : list of int
        Where searches begin.
    queries : ndarray, shape (n_queries, n), optional
        The keys of queries and all slots. Slots are their own nearest neighbours, which
        do not count.

    Notes
    -----
    ``log(100 / 10) / mean(log(key_100 / key_10))``: half the intrinsic dimension, if
    keys are squared distances.

    References
    ----------
    Levina and Bickel, "Maximum likelihood estimation of intrinsic dimension", 2004.
    """
    near, far, sample = 10, 100, 256
    count = len(links) if queries is None else len(queries)
    if queries is not None:
        sample = min(sample, count)
    logs = []
    for i in range(sample):
        place = i * count // sample
        row = keys(place, slice(None)) if queries is None else queries[place]
        found = beam_search(links, row, entries, far + near)
        first = 0 if queries is None else 1
        if len(found) > far and found[near - first][0] > 0:
            logs.append(np.log(found[far - first][0] / found[near - first][0]))
    if 2 * len(logs) < sample or sum(logs) <= 0:
        return 0.0
    return float(min(len(logs) * np.log(far / near) / sum(logs), MOST_GROWTH))


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


def spread(rows: Any, candidates: list[int], count: int, heads: list[int]) -> None:
    """Add candidates to `heads` until it has `count`, each far from all before it.

    Parameters
    ----------
    rows : array_like, shape (n, dim)
    candidates : list of int
        Slots.
    count : int
    heads : list of int
        Slots, at least one. Fewer than `count` come out where every candidate that is
        left equals a head.

    Notes
    -----
    Each time the candidate of the greatest distance from the nearest head is taken, the
    first of those that are equally far. No choice of as many rows leaves all candidates
    within half of what this leaves. O(count n dim).

    References
    ----------
    Gonzalez, "Clustering to minimize the maximum intercluster distance", 1985.

    Examples
    --------
    >>> heads = [0]
    >>> spread([[0.0], [1.0], [9.0], [5.0], [5.0]], [1, 2, 3, 4], 3, heads)
    >>> heads
    [0, 2, 3]
    """
    rows = np.asarray(rows, np.float64)
    near = pairwise_distances(rows[candidates], rows[heads]).min(axis=1, initial=np.inf)
    while len(heads) < count and len(near) and near.max() > 0:
        heads.append(candidates[int(near.argmax())])
        near = np.minimum(
            near, pairwise_distances(rows[candidates], rows[heads[-1:]])[:, 0]
        )


def spread_drawn(
    rows: Any, used: int, seed: int, count: int, heads: list[int]
) -> list[int]:
    """Return `heads` and, far from them, some drawn from the first `used` rows.

    Without any, slot 0 is the first. Sixteen are drawn for each that is asked for.

    Examples
    --------
    >>> spread_drawn([[0.0], [1.0], [9.0]], 3, 0, 2, [])
    [0, 2]
    """
    if used == 0:
        return heads
    random = Random(seed, used)
    drawn = {int(random.below(i, used)) for i in range(DRAWN * count)}
    heads = heads or [0]
    spread(rows, sorted(drawn), count, heads)
    return heads


def entries_of(count: int) -> int:
    """Return how many slots a walk without codes begins from."""
    return 1 + min(ENTRIES, count // 16)


Level = dict[int, list[int]]
"""The near neighbours, by slot, of every slot of a level."""


def find_levels(lists: list[list[int]], keys: Any, seed: int) -> list[Level]:
    """Return lists of near neighbours of all slots and of samples, each of the last.

    Parameters
    ----------
    lists : list of list of int
        Near neighbours of every slot.
    keys : callable
        ``keys(s, slots)`` gives the keys between slot `s` and others.
    seed : int

    Notes
    -----
    A level holds a sixteenth of the slots of the one below, drawn at random, and at
    least four of each connected component of its lists, the lowest ones. The last level
    has one component and at most 256 slots.

    References
    ----------
    Malkov and Yashunin, 2018 (layers).

    Examples
    --------
    >>> line = np.array([0.0, 1.0, 10.0, 11.0])
    >>> lists = [[1], [0], [3], [2]]  # two clusters that know nothing of each other
    >>> find_levels(lists, lambda s, t: (line[t] - line[s]) ** 2, 0)[1]
    {0: [1, 2, 3], 1: [0, 2, 3], 2: [3, 1, 0], 3: [2, 1, 0]}
    """
    levels = [dict(enumerate(lists))]
    while True:
        slots = list(levels[-1])
        root = {slot: slot for slot in slots}

        def find(slot: int, root: dict[int, int] = root) -> int:
            while root[slot] != slot:
                slot = root[slot]
            return slot

        for slot, near in levels[-1].items():
            for other in near:
                low, high = sorted((find(slot), find(other)))
                root[high] = low
        roots = [find(slot) for slot in slots]
        if len(set(roots)) == 1 and len(slots) <= TOP_ROWS:
            return levels
        drawn = draw_distinct(
            len(slots), len(slots) // SAMPLED, Random(seed, len(levels))
        )
        chosen = {slots[int(place)] for place in drawn}
        held = Counter(find(slot) for slot in chosen)
        for slot, component in zip(slots, roots, strict=True):
            if slot not in chosen and held[component] < PER_COMPONENT:
                held[component] += 1
                chosen.add(slot)
        level: Level = {}
        for slot in sorted(chosen):
            others = sorted(chosen - {slot})
            pairs = sorted(zip(keys(slot, others).tolist(), others, strict=True))
            level[slot] = [other for _, other in pairs[:FAR_NEIGHBOURS]]
        levels.append(level)


def evenly(level: Level, most: int) -> list[int]:
    """Return up to `most` slots of a level, evenly.

    Examples
    --------
    >>> evenly({1: [], 4: [], 6: [], 9: []}, 2)
    [1, 6]
    """
    slots = sorted(level)
    taken = min(len(slots), most)
    return [slots[i * len(slots) // taken] for i in range(taken)]


def choose_entries(rows: Any, levels: list[Level], count: int) -> list[int]:
    """Return where walks begin in a graph of levels: slot 0 and others far apart.

    They are of the first level above all slots, which has links from one cluster to
    others.

    Examples
    --------
    >>> near: Level = {slot: [] for slot in range(8)}
    >>> choose_entries(np.arange(8.0)[:, None], [near, {2: [], 5: [], 6: []}], 3)
    [0, 6, 2]
    """
    entries = [0]
    level = levels[min(1, len(levels) - 1)]
    spread(rows, evenly(level, MOST_CANDIDATES), count, entries)
    return entries


def choose_heads(
    rows: Any, levels: list[Level], count: int, entries: list[int]
) -> list[int]:
    """Return the entries and more: where walks by codes begin, which can be many.

    Half of the candidates are evenly of all slots: a small cluster may have none on the
    level above.

    Examples
    --------
    >>> near: Level = {slot: [] for slot in range(8)}
    >>> choose_heads(np.arange(8.0)[:, None], [near, {2: [], 5: [], 6: []}], 4, [0, 6])
    [0, 6, 3, 1]
    """
    heads = list(entries)
    slots = {s for level in levels[:2] for s in evenly(level, MOST_CANDIDATES // 2)}
    spread(rows, sorted(slots), count, heads)
    return heads


def choose_listed(
    levels: list[Level], node: int, keys: Any, degree: int, relax: float
) -> list[int]:
    """Choose the links of a node from its lists, nearest first.

    Parameters
    ----------
    levels : list
        From `find_levels`.
    node : int
    keys : callable
        ``keys(s, slots)`` gives the keys between slot `s` and others.
    degree, relax
        As of `GraphIndex` and `select_neighbours`.

    Notes
    -----
    Up to ``degree / 4`` links from each level above the first, to slots that its list
    on the level below does not name; then what is left of ``degree / 2`` from the
    first, but at least ``degree / 4``. Of equal vectors the first leads to others and
    the rest lead to it.

    Examples
    --------
    >>> line = np.array([0.0, 1.0, 10.0, 11.0])
    >>> between = lambda s, t: (line[t] - line[s]) ** 2
    >>> levels = find_levels([[1], [0], [3], [2]], between, 0)
    >>> [choose_listed(levels, node, between, 4, 1.0) for node in range(4)]
    [[1, 2], [0, 2], [3, 1], [2, 1]]
    """
    far = max(1, degree // 4)
    links: list[Pair] = []
    for number in range(len(levels) - 1, -1, -1):
        below = levels[number - 1][node] if number and node in levels[number] else []
        slots = [
            slot
            for slot in levels[number].get(node, [])
            if slot != node and slot not in below
        ]
        if not slots:
            continue
        candidates = [
            (key, slot)
            for key, slot in sorted(zip(keys(node, slots).tolist(), slots, strict=True))
            if key != 0 or slot < node
        ]
        wanted = far if number else max(far, degree // 2 - len(links))
        room = degree - len(links) - (far if number else 0)
        most = min(wanted, room)
        links += [
            pair
            for pair in select_neighbours(candidates, keys, most, relax)
            if pair not in links
        ]
    return [slot for _, slot in sorted(links)]


def link_lists(
    links: list[list[int]], lists: list[list[int]], keys: Any, degree: int
) -> None:
    """Add the links that queries miss, as far as there is room.

    Parameters
    ----------
    links : list of list of int
        Neighbours of each slot, at most `degree`; changed in place.
    lists : list of list of int
        The slots nearest to each query, nearest first.
    keys : callable
        ``keys(s, slots)`` gives the keys between slot `s` and others.
    degree : int
        Links that a slot can hold.

    Notes
    -----
    Every slot of a list but the first should link to one before it, and be linked from
    one before it. Where either is missing it is added, to or from the one before it
    that is nearest; ties go to the lower slot. A walk for that query that has come to
    any slot of the list then descends to its first, and from there reaches all others
    in their order. Queries are taken 64 at a time: what is missing is judged by the
    links as they were before these.

    References
    ----------
    Chen and others, "RoarGraph", 2024; Jaiswal and others, "OOD-DiskANN", 2022 (links
    between rows that are near to the same query).

    Examples
    --------
    >>> line = np.array([0.0, 1.0, 10.0, 11.0])
    >>> links = [[1], [0], [3], [2]]  # the query is 5.4: its answers are 1, 2, 0, 3
    >>> link_lists(links, [[1, 2, 0]], lambda s, t: (line[t] - line[s]) ** 2, 2)
    >>> links
    [[1], [0, 2], [3, 1], [2]]
    """
    for begin in range(0, len(lists), QUERY_ROUND):
        missing: list[tuple[int, int]] = []
        for near in lists[begin : begin + QUERY_ROUND]:
            for j in range(1, len(near)):
                slot, before = near[j], near[:j]
                leads = any(other in before for other in links[slot])
                led_to = any(slot in links[other] for other in before)
                if leads and led_to:
                    continue
                pairs = zip(keys(slot, before).tolist(), before, strict=True)
                nearest = min(pairs)[1]
                missing += [] if leads else [(slot, nearest)]
                missing += [] if led_to else [(nearest, slot)]
        for slot, to in missing:
            if len(links[slot]) < degree and to not in links[slot]:
                links[slot].append(to)


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
        self.growth = 0.0
        self._growth_at = 0

    @classmethod
    def build(
        cls,
        vectors: Any,
        *,
        metric: str = "l2",
        dtype: str = "float32",
        ids: Any = None,
        neighbours: Any = None,
        queries: Any = None,
        **options: Any,
    ) -> GraphIndex:
        """Make an index of vectors, shape (n, dim), from `neighbours` if given."""
        index = cls(np.asarray(vectors).shape[1], metric, dtype, **options)
        if neighbours is None:
            index.add(vectors, ids, queries=queries)
        else:
            index._link_at_once(np.asarray(vectors, np.float64), neighbours)
            index._ids = np.arange(len(index.vectors)) if ids is None else ids
            index._adapt(queries)
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

    def add(
        self, vectors: Any, ids: Any = None, *, queries: Any = None
    ) -> NDArray[np.int64]:
        """Add vectors, shape (n, dim), a batch at a time; return their ids.

        `queries`, shape (n_queries, dim), are a sample of those to come: see
        `link_lists`, for their ``2 * ef_construction`` nearest vectors each.
        """
        rows = np.asarray(vectors, np.float64).reshape(-1, self.dim)
        next_id = int(self.ids.max(initial=-1)) + 1
        given = np.arange(next_id, next_id + len(rows)) if ids is None else ids
        for begin in range(0, len(rows), BATCH):
            self._add_batch(rows[begin : begin + BATCH])
        self._ids = np.concatenate([self.ids, np.asarray(given, np.int64)])
        self._adapt(queries)
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
                self.entries = spread_drawn(
                    self._item_rows(), first, self.seed, entries_of(first), []
                )
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
        self._link_back(batch, chosen, parents)
        if not self.entries:
            self.entries = [0]

    def _link_at_once(self, rows: NDArray[np.float64], neighbours: Any) -> None:
        """Link the first rows by lists of their near neighbours, level by level."""
        self.vectors = rows
        lists = [[int(j) for j in near if j >= 0] for near in np.asarray(neighbours)]
        levels = find_levels(lists, self._keys, self.seed)
        nodes = range(len(rows))
        links = [
            choose_listed(levels, node, self._keys, self.degree, self._relax)
            for node in nodes
        ]
        parents = {}
        for node in nodes[1:]:
            near = [slot for level in levels for slot in level.get(node, [])]
            earlier = [slot for slot in near if slot < node]
            if not earlier:
                random = Random(self.seed, node)
                earlier = [int(random.below(i, node)) for i in range(PARENT_DRAWS)]
            keys = self._keys(node, earlier)
            parents[node] = min(zip(keys.tolist(), earlier, strict=True))[1]
        self._link_back(nodes, dict(zip(nodes, links, strict=True)), parents)
        self.entries = choose_entries(self._item_rows(), levels, entries_of(len(rows)))
        self._refined_at = len(rows)

    def _adapt(self, queries: Any) -> None:
        """Link what is near to the same query, if some are given; measure growth."""
        n = len(self.vectors)
        keys = None
        if queries is not None and n:
            rows = np.asarray(queries, np.float64).reshape(-1, self.dim)
            keys = pairwise_distances(rows, self.vectors, metric=self.metric)
            most = min(NEAR_QUERY * self.ef_construction, MOST_NEAR_QUERY)
            lists = np.argsort(keys, axis=1, kind="stable")[:, :most].tolist()
            link_lists(self.links, lists, self._keys, self.degree)
            keys = np.sinh(keys / 2) ** 2 if self.metric == "poincare" else keys
            keys = keys if len(keys) >= GROWTH_QUERIES else None
        if n >= GROWTH_ROWS and (keys is not None or n >= 2 * self._growth_at):
            self._growth_at = n
            if self.metric != "ip":
                self.growth = measure_growth(self.links, self._keys, self.entries, keys)

    def _link_back(
        self, batch: range, chosen: dict[int, list[int]], parents: dict[int, int]
    ) -> None:
        """Give nodes the links that they chose, and those whom they chose theirs."""
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
        width = max(ef or max(64, 2 * k), k)
        rule: dict[str, Any] = {"width": width}
        if self.growth > 0 and width < len(self) and self.metric != "ip":
            factor = (width / k) ** (1 / self.growth)
            rule = {"width": 2 * width, "k": k, "factor": factor}
        for i, row in enumerate(distances):
            keys = np.sinh(row / 2) ** 2 if self.metric == "poincare" else row
            if filter is None:
                walked = beam_search(self.links, keys, self.entries, **rule)
                found = [(float(row[slot]), slot) for _, slot in walked]
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
