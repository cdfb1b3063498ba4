# SPDX-License-Identifier: Apache-2.0
"""Vector quantization in plain NumPy: k-means and product quantization.

The same names, arguments, seeds and tie-breaks as the native classes. Sums are taken in
float64 here, where native code works in float32, so results are the same on
integer-valued data and close elsewhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from annx.reference.random import Random

__all__ = ["KMeans", "draw_distinct", "move_centroids", "nearest"]

Floats = NDArray[np.floating[Any]]


def nearest(vectors: Any, centroids: Any) -> tuple[NDArray[np.int64], Floats]:
    """Return each vector's nearest centroid and the squared distance to it.

    Notes
    -----
    ``argmin_c |x - c|**2``, ties to the lower number. O(k d) a vector.
    """
    x = np.asarray(vectors, np.float64)
    c = np.asarray(centroids, np.float64)
    distances = np.stack([((x - row) ** 2).sum(axis=1) for row in c], axis=1)
    ids = distances.argmin(axis=1)
    return ids, distances[np.arange(len(x)), ids]


def move_centroids(
    vectors: Any, cells: Any, centroids: Any, *, spherical: bool = False
) -> NDArray[np.float32]:
    """Return the mean of every cell, the conditional mean that minimises its error.

    Parameters
    ----------
    vectors : array_like, shape (n, dim)
    cells : array_like of int, shape (n,)
        The centroid that each vector belongs to.
    centroids : array_like, shape (k, dim)
        Kept where a cell is empty.
    spherical : bool
        Scale the means to length 1.

    Notes
    -----
    ``c_j = sum_{x in cell j} x / |cell j|``; O(n d).
    """
    x = np.asarray(vectors, np.float64)
    moved = np.array(centroids, np.float32)
    for j in range(len(moved)):
        members = x[np.asarray(cells) == j]
        if len(members) == 0:
            continue
        mean = members.mean(axis=0)
        if spherical:
            length = np.sqrt((mean**2).sum())
            if length == 0:
                continue
            mean = mean / length
        moved[j] = mean
    return moved


def draw_distinct(n: int, count: int, random: Random) -> NDArray[np.int64]:
    """Draw `count` different numbers below `n`: the start of a Fisher-Yates shuffle."""
    numbers = np.arange(n)
    for i in range(count):
        j = i + int(random.below(i, n - i))
        numbers[[i, j]] = numbers[[j, i]]
    return numbers[:count]


def _plus_plus(x: Floats, k: int, random: Random) -> Floats:
    """Draw each next centroid in proportion to its squared distance (k-means++)."""
    chosen = [int(random.below(0, len(x)))]
    least = np.full(len(x), np.inf)
    while len(chosen) < k:
        least = np.minimum(least, ((x - x[chosen[-1]]) ** 2).sum(axis=1))
        total = least.sum()
        if total > 0:
            target = float(random.unit(len(chosen))) * total
            passed = np.flatnonzero((np.cumsum(least) > target) & (least > 0))
            chosen.append(int(passed[0]))
        else:
            chosen.append(next(i for i in range(len(x)) if i not in chosen))
    return x[chosen]


def _fill_empty(cells: NDArray[np.int64], distances: Floats, k: int) -> None:
    """Give every empty cell the farthest point of a cell of two points or more."""
    counts = np.bincount(cells, minlength=k)
    farthest = iter(np.lexsort((np.arange(len(cells)), -distances)))
    for empty in np.flatnonzero(counts == 0):
        for i in farthest:
            if distances[i] == 0:
                return
            if counts[cells[i]] >= 2:
                counts[cells[i]] -= 1
                cells[i] = empty
                break
        else:
            return


def _unit(x: Floats) -> NDArray[np.float32]:
    """Rows scaled to length 1; zero rows stay."""
    length = np.sqrt((x.astype(np.float64) ** 2).sum(axis=1, keepdims=True))
    return (x / np.where(length == 0, 1, length)).astype(np.float32)


class KMeans:
    """k centroids that make ``sum_x min_c |x - c|**2`` small.

    The parameters are those of `annx.KMeans`.

    Notes
    -----
    Lloyd's iteration: `nearest`, then `move_centroids`; neither can raise the
    objective, and there are finitely many partitions, so it ends. O(n k d) an
    iteration.

    References
    ----------
    Lloyd, "Least squares quantization in PCM", 1982. Arthur and Vassilvitskii,
    "k-means++", 2007. Dhillon and Modha, 2001, for the spherical variant.

    Examples
    --------
    >>> x = np.float32([[0, 0], [0, 1], [9, 9], [9, 8]])
    >>> sorted(KMeans(2, seed=1).train(x).centroids.tolist())
    [[0.0, 0.5], [9.0, 8.5]]
    """

    def __init__(
        self,
        n_clusters: int,
        *,
        init: Any = "random",
        n_iterations: int = 25,
        n_restarts: int = 1,
        max_points_per_cluster: int | None = 256,
        spherical: bool = False,
        tolerance: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.n_clusters = n_clusters
        self.init = init
        self.n_iterations = n_iterations
        self.n_restarts = n_restarts
        self.max_points_per_cluster = max_points_per_cluster
        self.spherical = spherical
        self.tolerance = tolerance
        self.seed = seed
        self.centroids = np.zeros((0, 0), np.float32)
        self.objectives: list[float] = []

    @property
    def objective(self) -> float:
        """The objective of `centroids`."""
        return self.objectives[-1]

    def train(self, vectors: Any) -> KMeans:
        """Learn the centroids from `vectors`, shape (n, dim)."""
        x = np.asarray(vectors, np.float32)
        if len(x) < self.n_clusters:
            raise ValueError(
                f"vectors has {len(x)} rows; n_clusters is {self.n_clusters} and needs "
                "at least as many"
            )
        if self.max_points_per_cluster is not None:
            limit = self.max_points_per_cluster * self.n_clusters
            if limit < len(x):
                x = x[np.sort(draw_distinct(len(x), limit, Random(self.seed, 0)))]
        if self.spherical:
            x = _unit(x)
        runs = [self._lloyd(x, restart) for restart in range(self.n_restarts)]
        self.centroids, self.objectives = min(runs, key=lambda run: run[1][-1])
        return self

    def assign(self, vectors: Any) -> tuple[NDArray[np.int64], Floats]:
        """Return each vector's nearest centroid and the squared distance to it."""
        x = np.asarray(vectors, np.float32)
        return nearest(_unit(x) if self.spherical else x, self.centroids)

    def _start(self, x: Floats, restart: int) -> NDArray[np.float32]:
        random = Random(self.seed, 1 + restart)
        if not isinstance(self.init, str):
            given = np.array(self.init, np.float32)
            return _unit(given) if self.spherical else given
        if self.init == "k-means++":
            return _plus_plus(x, self.n_clusters, random).astype(np.float32)
        return x[draw_distinct(len(x), self.n_clusters, random)].astype(np.float32)

    def _lloyd(
        self, x: Floats, restart: int
    ) -> tuple[NDArray[np.float32], list[float]]:
        centroids = self._start(x, restart)
        before = np.full(len(x), -1)
        objectives: list[float] = []
        while True:
            cells, distances = nearest(x, centroids)
            objectives.append(float(distances.sum()))
            if len(objectives) > self.n_iterations:
                break
            settled = bool((cells == before).all())
            counts = np.bincount(cells, minlength=self.n_clusters)
            _fill_empty(cells, distances, self.n_clusters)
            filled = bool(
                (np.bincount(cells, minlength=self.n_clusters) != counts).any()
            )
            if settled and not filled:
                break
            if len(objectives) > 1 and self.tolerance > 0:
                gain = objectives[-2] - objectives[-1]
                if gain <= self.tolerance * objectives[-2]:
                    break
            before = cells
            centroids = move_centroids(x, cells, centroids, spherical=self.spherical)
        return centroids, objectives
