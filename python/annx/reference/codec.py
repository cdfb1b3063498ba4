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

__all__ = [
    "KMeans",
    "ProductQuantizer",
    "draw_distinct",
    "move_centroids",
    "nearest",
]

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
        self._n_clusters = n_clusters
        self.init = init
        self.n_iterations = n_iterations
        self.n_restarts = n_restarts
        self.max_points_per_cluster = max_points_per_cluster
        self.spherical = spherical
        self.tolerance = tolerance
        self.seed = seed
        self._centroids = np.zeros((0, 0), np.float32)
        self._objectives: list[float] = []

    @property
    def n_clusters(self) -> int:
        """How many centroids."""
        return self._n_clusters

    @property
    def dim(self) -> int:
        """Their dimension; 0 before training."""
        return self._centroids.shape[1]

    @property
    def trained(self) -> bool:
        """Whether there are centroids."""
        return len(self._centroids) != 0

    @property
    def centroids(self) -> NDArray[np.float32]:
        """The centroids, shape (n_clusters, dim)."""
        return self._centroids

    @property
    def objectives(self) -> NDArray[np.float64]:
        """The objective at the start and after every movement of the centroids."""
        return np.array(self._objectives)

    @property
    def objective(self) -> float:
        """The objective of `centroids`."""
        return self._objectives[-1]

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
        self._centroids, self._objectives = min(runs, key=lambda run: run[1][-1])
        return self

    def assign(self, vectors: Any) -> tuple[NDArray[np.int64], Floats]:
        """Return each vector's nearest centroid and the squared distance to it."""
        x = np.asarray(vectors, np.float32)
        return nearest(_unit(x) if self.spherical else x, self._centroids)

    def _start(self, x: Floats, restart: int) -> NDArray[np.float32]:
        random = Random(self.seed, 1 + restart)
        if not isinstance(self.init, str):
            centroids = np.array(self.init, np.float32)
            if self.spherical:
                centroids = _unit(centroids).astype(np.float32)
        elif self.init == "k-means++":
            centroids = _plus_plus(x, self.n_clusters, random).astype(np.float32)
        else:
            chosen = draw_distinct(len(x), self.n_clusters, random)
            centroids = x[chosen].astype(np.float32)
        if self.spherical:
            # A zero vector has no direction: it takes the first axis instead.
            centroids[~centroids.any(axis=1), 0] = 1
        return centroids

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


class ProductQuantizer:
    """Vectors as a centroid number for each of several segments.

    The parameters are those of `annx.ProductQuantizer`.

    Notes
    -----
    The codebook is the product ``C_1 x ... x C_L``. ``|x - decode(x)|**2`` is the sum
    over segments of ``|x_l - c_l(x)|**2``, and a squared distance is estimated by the
    sum of squared distances of segments: symmetric
    ``sum_l |c_l(x) - c_l(y)|**2``, asymmetric ``sum_l |q_l - c_l(x)|**2``. Encoding
    costs O(K d) a vector, a distance O(L).

    References
    ----------
    Jegou, Douze and Schmid, "Product quantization for nearest neighbor search", 2011.

    Examples
    --------
    >>> x = np.float32([[0, 0, 5], [1, 0, 9]] * 8)
    >>> pq = ProductQuantizer(3, 2, n_bits=4).train(x)
    >>> bool((pq.decode(pq.encode(x)) == x).all())
    True
    """

    def __init__(
        self,
        dim: int,
        n_segments: int,
        *,
        n_bits: int = 8,
        metric: str = "l2",
        n_iterations: int = 25,
        max_points_per_centroid: int | None = 256,
        seed: int = 0,
    ) -> None:
        self._dim = dim
        self._n_segments = n_segments
        self._n_bits = n_bits
        self._metric = metric
        self.n_iterations = n_iterations
        self.max_points_per_centroid = max_points_per_centroid
        self.seed = seed
        self._books: list[NDArray[np.float32]] = []

    @property
    def dim(self) -> int:
        """Dimension of the vectors."""
        return self._dim

    @property
    def n_segments(self) -> int:
        """How many segments."""
        return self._n_segments

    @property
    def n_bits(self) -> int:
        """Bits a segment."""
        return self._n_bits

    @property
    def n_centroids(self) -> int:
        """Centroids of each codebook."""
        return 1 << self._n_bits

    @property
    def code_bytes(self) -> int:
        """Bytes a vector."""
        return (self._n_segments * self._n_bits + 7) // 8

    @property
    def metric(self) -> str:
        """What distances are."""
        return self._metric

    @property
    def trained(self) -> bool:
        """Whether there are codebooks."""
        return len(self._books) != 0

    @property
    def starts(self) -> NDArray[np.int64]:
        """Where segments begin, and `dim`; the first ``dim % L`` have one more."""
        short, longer = divmod(self._dim, self._n_segments)
        lengths = [short + (i < longer) for i in range(self._n_segments)]
        return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)

    def codebook(self, segment: int) -> NDArray[np.float32]:
        """Return a segment's centroids, shape (n_centroids, its length)."""
        return self._books[segment]

    def train(self, vectors: Any) -> ProductQuantizer:
        """Run k-means on every segment of `vectors`, shape (n, dim)."""
        x = np.asarray(vectors, np.float32)
        if len(x) < self.n_centroids:
            raise ValueError(
                f"vectors has {len(x)} rows; training {self._n_bits}-bit codes needs "
                f"at least {self.n_centroids}"
            )
        if self.max_points_per_centroid is not None:
            limit = self.max_points_per_centroid * self.n_centroids
            if limit < len(x):
                x = x[np.sort(draw_distinct(len(x), limit, Random(self.seed, 0)))]
        if self._metric == "cosine":
            x = _unit(x)
        seeds = Random(self.seed, 1)
        self._books = [
            KMeans(
                self.n_centroids,
                n_iterations=self.n_iterations,
                max_points_per_cluster=None,
                seed=int(seeds.bits(segment)),
            )
            .train(part)
            .centroids
            for segment, part in enumerate(self._segments(x))
        ]
        return self

    def encode(self, vectors: Any) -> NDArray[np.uint8]:
        """Return codes, shape (n, code_bytes): the nearest centroid of each segment."""
        x, single = _matrix(vectors)
        if self._metric == "cosine":
            x = _unit(x)
        numbers = [
            nearest(part, book)[0]
            for part, book in zip(self._segments(x), self._books, strict=True)
        ]
        codes = self._pack(np.stack(numbers, axis=1))
        return codes[0] if single else codes

    def decode(self, codes: Any) -> NDArray[np.float32]:
        """Return the vectors that codes stand for, shape (n, dim)."""
        numbers, single = self._unpack(codes)
        parts = [
            book[column] for book, column in zip(self._books, numbers.T, strict=True)
        ]
        vectors = np.concatenate(parts, axis=1)
        return vectors[0] if single else vectors

    def symmetric_tables(self) -> Floats:
        """Return the terms between centroids, shape (n_segments, K, K)."""
        return np.stack([self._terms(book, book) for book in self._books])

    def asymmetric_tables(self, queries: Any) -> Floats:
        """Return the terms of queries and centroids, shape (n, n_segments, K)."""
        q, single = _matrix(queries)
        if self._metric == "cosine":
            q = _unit(q)
        terms = [
            self._terms(part, book)
            for part, book in zip(self._segments(q), self._books, strict=True)
        ]
        tables = np.stack(terms, axis=1)
        return tables[0] if single else tables

    def symmetric_distances(self, a: Any, b: Any) -> Floats:
        """Return distances between codes, shape (n, m), by symmetric tables."""
        left, single = self._unpack(a)
        right, _ = self._unpack(b)
        total: Floats = np.zeros((len(left), len(right)))
        for segment, table in enumerate(self.symmetric_tables()):
            total += table[left[:, segment][:, None], right[:, segment]]
        if self._metric == "cosine":
            squares = self._squares(left)[:, None] * self._squares(right)
            total = _one_plus(total, np.sqrt(squares))
        return total[0] if single else total

    def asymmetric_distances(self, queries: Any, codes: Any) -> Floats:
        """Return distances from queries to codes, shape (n, m), by query tables."""
        q, single = _matrix(queries)
        numbers, _ = self._unpack(codes)
        tables = self.asymmetric_tables(q)
        total: Floats = np.zeros((len(q), len(numbers)))
        for segment in range(self._n_segments):
            total += tables[:, segment][:, numbers[:, segment]]
        if self._metric == "cosine":
            total = _one_plus(total, np.sqrt(self._squares(numbers)))
        return total[0] if single else total

    def _segments(self, x: Floats) -> list[Floats]:
        return np.split(x, self.starts[1:-1], axis=1)

    def _terms(self, a: Floats, b: Floats) -> Floats:
        a = a.astype(np.float64)
        if self._metric == "l2":
            return np.stack([((a - row) ** 2).sum(axis=1) for row in b], axis=1)
        products: Floats = -(a @ b.T.astype(np.float64))
        return products

    def _squares(self, numbers: NDArray[np.int64]) -> Floats:
        """Squared lengths of decoded vectors, summed over segments."""
        total = np.zeros(len(numbers))
        for book, column in zip(self._books, numbers.T, strict=True):
            total += (book.astype(np.float64) ** 2).sum(axis=1)[column]
        return total

    def _pack(self, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        if self._n_bits == 8:
            return numbers.astype(np.uint8)
        if self._n_segments % 2:
            numbers = np.pad(numbers, ((0, 0), (0, 1)))
        return (numbers[:, ::2] | numbers[:, 1::2] << 4).astype(np.uint8)

    def _unpack(self, codes: Any) -> tuple[NDArray[np.int64], bool]:
        rows, single = _matrix(codes)
        numbers = rows.astype(np.int64)
        if self._n_bits == 4:
            halves = np.stack([numbers & 15, numbers >> 4], axis=2)
            numbers = halves.reshape(len(rows), -1)[:, : self._n_segments]
        return numbers, single


def _matrix(x: Any) -> tuple[NDArray[Any], bool]:
    """Rows, and whether there was only one of shape (dim,)."""
    array = np.asarray(x)
    return (array[None], True) if array.ndim == 1 else (array, False)


def _one_plus(terms: Floats, lengths: Floats) -> Floats:
    """``1 + terms / lengths``, and 1 where a length is 0."""
    return 1 + np.where(lengths > 0, terms / np.where(lengths > 0, lengths, 1), 0)
