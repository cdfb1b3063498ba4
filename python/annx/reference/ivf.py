# SPDX-License-Identifier: Apache-2.0
"""Inverted lists of vectors or codes in plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from annx.reference.codec import KMeans, draw_distinct
from annx.reference.flat import LEAST_SQUARE, FlatIndex, pairwise_distances
from annx.reference.links import RandomRotation, principal_axes
from annx.reference.random import Random
from annx.reference.topk import top_k

__all__ = ["GridCodec", "IVFIndex", "PieceCodec", "learn_rotation"]

LEVELS = {"rabitq": 16, "pq4": 16, "pq8": 256}
SIGNS = 4
# Of learn_rotation; see cpp/annx/codec/learnt_rotation.h for what they are.
ROUNDS = 12
FIRST_STEPS = 4
MOST_ROWS = 8192
SHARE = 0.1
LEAST_SHARE = 1e-6
CODE_SAMPLE = 16384
SEED_STREAM = 2

Floats = NDArray[np.float64]

# Of GridCodec; see cpp/annx/codec/grid_codec.h for what they are.
WIDTHS = 16
NORMAL_STEPS = (0.9957, 0.5860, 0.3352, 0.1881, 0.1041, 0.0569, 0.0308)
SPANS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
SPAN_ROWS = 4096
SCALAR_BITS = {"sq8": 8, "sq4": 4}


def learn_rotation(
    rows: Any, starts: NDArray[np.int64], levels: int, seed: int
) -> Floats:
    """Return a rotation under which product codes of rows leave less.

    Parameters
    ----------
    rows : array_like, shape (n, dim)
    starts : ndarray, shape (segments + 1,)
        Where segments of rotated rows begin.
    levels : int
        Centroids of each segment.
    seed : int
        Of k-means.

    Returns
    -------
    ndarray, shape (dim, dim)
        Orthonormal rows.

    Notes
    -----
    The start is the principal axes, each in its turn given to the segment with the
    least product of variances. Then in turn: a step of k-means on every segment, and
    the rotation that brings rows x nearest to what their codes stand for, z: ``U V^T``
    of the singular value decomposition of ``sum z x^T``, to which a share of the
    rotation so far is added.

    References
    ----------
    Ge, He, Ke and Sun, "Optimized product quantization", 2013.

    Examples
    --------
    >>> r = learn_rotation(np.eye(16), np.array([0, 8, 16]), 4, seed=0)
    >>> bool(np.allclose(r @ r.T, np.eye(16)))
    True
    """
    x = np.asarray(rows, np.float32)[: max(MOST_ROWS, levels)].astype(np.float64)
    dim = x.shape[1]
    axes, variances = principal_axes(x)
    places = [list(range(a, b)) for a, b in zip(starts, starts[1:])]  # noqa: B905, RUF007 - neighbours in Python 3.10
    products = np.zeros(len(places))
    rotation = np.empty((dim, dim))
    least = LEAST_SHARE * max(variances[0], 0.0)
    for axis, variance in zip(axes, variances, strict=True):
        open_to = [p for p in range(len(places)) if places[p]]
        best = min(open_to, key=lambda p: (products[p], p))
        rotation[places[best].pop(0)] = axis
        products[best] += np.log(max(variance, 0) / least + 1) if least > 0 else 1.0
    books: list[Any] = ["random"] * (len(starts) - 1)
    for turn in range(ROUNDS):
        turned = (x @ rotation.T).astype(np.float32)
        standing = np.empty_like(turned)
        for p in range(len(starts) - 1):
            part = turned[:, starts[p] : starts[p + 1]]
            piece = KMeans(
                levels,
                init=books[p],
                n_iterations=1 if turn else FIRST_STEPS,
                max_points_per_cluster=None,
                seed=seed + p,
            ).train(part)
            books[p] = piece.centroids
            cells = piece.assign(part)[0]
            standing[:, starts[p] : starts[p + 1]] = piece.centroids[cells]
        wanted = standing.T.astype(np.float64) @ x
        wanted += SHARE * np.sqrt((wanted**2).sum() / dim) * rotation
        left, strengths, right = np.linalg.svd(wanted)
        if strengths[0] == 0:
            break
        rotation = left @ right
    return np.asarray(rotation, np.float64)


class PieceCodec:
    """4-bit or 8-bit codes of what is left of vectors after their list's centroid.

    Parameters
    ----------
    residuals : array_like, shape (n, dim)
        A sample, to learn from.
    kind : {"rabitq", "pq4", "pq8"}
    segments : int
        Of ``"pq4"`` and ``"pq8"``.
    rotation : {None, "random", "opq"}
        Of the same; ``"rabitq"`` always has ``"random"``.
    seed : int

    Notes
    -----
    ``r = |r| z`` in a rotated basis, or as it is (pq4 and pq8 unless told); every piece
    of z is replaced by the nearest of 16 or 256 levels, which makes z^, and ``<q, r>``
    is estimated by ``f <q, z^>`` with ``f = |r| / <z, z^>``: exact along r, and over
    random rotations right on average. O(16 dim) or O(256 dim) to code, a look-up a
    piece to estimate.

    References
    ----------
    Gao and Long, "RaBitQ", 2024. Jegou, Douze and Schmid, 2011.

    Examples
    --------
    >>> codec = PieceCodec(np.eye(16), "rabitq", seed=3)
    >>> codes, factors, spreads = codec.encode(2 * np.eye(16)[:1])
    >>> decoded = codec.decode(codes, factors)
    >>> round(float(decoded[0, 0]), 6)
    2.0
    """

    def __init__(
        self,
        residuals: Any,
        kind: str,
        *,
        segments: int = 0,
        rotation: str | None = None,
        seed: int = 0,
    ) -> None:
        r = np.asarray(residuals, np.float64)
        self.dim = r.shape[1]
        self.kind = kind
        levels = LEVELS[kind]
        self.axes = np.eye(self.dim)
        if kind == "rabitq" or rotation == "random":
            self.axes = RandomRotation(self.dim, seed).apply(self.axes).T
        if kind == "rabitq":
            starts = np.append(np.arange(0, self.dim, SIGNS), self.dim)
            signs = np.arange(levels)[:, None] >> np.arange(SIGNS) & 1
            book = (2.0 * signs - 1.0) / np.sqrt(self.dim)
            self.books = [book[:, : b - a] for a, b in zip(starts, starts[1:])]  # noqa: B905, RUF007 - neighbours in Python 3.10
        else:
            short, longer = divmod(self.dim, segments)
            widths = [short + (i < longer) for i in range(segments)]
            starts = np.concatenate([[0], np.cumsum(widths)])
            seeds = Random(seed, SEED_STREAM)
            if rotation == "opq":
                self.axes = learn_rotation(_unit(r), starts, levels, seed)
            z = self.rotate(_unit(r)).astype(np.float32)
            self.books = [
                np.asarray(
                    KMeans(
                        levels,
                        n_iterations=15,
                        max_points_per_cluster=None,
                        seed=int(seeds.bits(p)),
                    )
                    .train(z[:, starts[p] : starts[p + 1]])
                    .centroids,
                    np.float64,
                )
                for p in range(segments)
            ]
        self.starts = np.asarray(starts, np.int64)

    def rotate(self, rows: Any) -> Floats:
        """Return rows, (n, dim), in the basis of the codes."""
        rotated: Floats = np.asarray(rows, np.float64) @ self.axes.T
        return rotated

    def encode(self, residuals: Any) -> tuple[NDArray[np.int64], Floats, Floats]:
        """Return codes (n, pieces), f and ``sqrt(|z^|^2 - <z, z^>^2)`` of each row."""
        r = np.asarray(residuals, np.float64)
        z = self.rotate(_unit(r))
        codes = np.empty((len(r), len(self.books)), np.int64)
        for p, book in enumerate(self.books):
            part = z[:, self.starts[p] : self.starts[p + 1]]
            # Half the squared distance less what does not depend on the level.
            scores = (book**2).sum(axis=1) / 2 - part @ book.T
            codes[:, p] = scores.argmin(axis=1)
        levels = self.levels(codes)
        dots = (z * levels).sum(axis=1)
        length = np.sqrt((r**2).sum(axis=1))
        factors = np.where(dots > 0, length / np.where(dots > 0, dots, 1), 0)
        spreads = np.sqrt(np.maximum((levels**2).sum(axis=1) - dots**2, 0))
        return codes, factors, np.where(factors > 0, spreads, 0)

    def levels(self, codes: NDArray[np.int64]) -> Floats:
        """Return z^, shape (n, dim)."""
        parts = [book[column] for book, column in zip(self.books, codes.T, strict=True)]
        return np.concatenate(parts, axis=1)

    def decode(self, codes: NDArray[np.int64], factors: Floats) -> Floats:
        """Return the vectors that codes stand for, shape (n, dim)."""
        rows: Floats = self.levels(codes) * factors[:, None] @ self.axes
        return rows


class GridCodec:
    """Codes of 2 to 8 bits a coordinate for what is left after a list's centroid.

    Parameters
    ----------
    residuals : array_like, shape (n, dim)
        A sample, for ``"scalar"`` to learn from.
    kind : {"scalar", "rabitq"}
    bits : int
    seed : int
        Of the rotation, for ``"rabitq"``.

    Notes
    -----
    scalar: ``r_k ~ low_k + step_k u_k``, the ends chosen by the least square error.
    rabitq: ``r ~ f z^`` for rotated r, ``z^ = u - (2^bits - 1) / 2`` and ``f = |r|^2 /
    <r, z^>``, the grid's width the best of 16 for each row, each u then tried one up
    and one down. O(16 dim) a row.

    References
    ----------
    Gao et al., "Practical and asymptotically optimal quantization of high-dimensional
    vectors in Euclidean space for approximate nearest neighbor search", 2025.

    Examples
    --------
    >>> codec = GridCodec(np.zeros((1, 4)), "rabitq", 8, seed=3)
    >>> decoded, spreads = codec.approximate([[1.0, 0.0, 0.0, 0.0]])
    >>> bool(abs(decoded[0] @ [1, 0, 0, 0] - 1) < 1e-9), bool(spreads[0] < 0.02)
    (True, True)
    """

    def __init__(self, residuals: Any, kind: str, bits: int, *, seed: int = 0) -> None:
        r = np.asarray(residuals, np.float64)
        self.dim = r.shape[1]
        self.kind = kind
        self.bits = bits
        self.most = 2**bits - 1
        if kind == "rabitq":
            self.rotation = RandomRotation(self.dim, seed)
            return
        count = min(len(r), SPAN_ROWS)
        r = r[np.arange(count) * len(r) // count]
        low, high = r.min(axis=0), r.max(axis=0)
        least = np.full(self.dim, np.inf)
        self.lows, self.steps = low, np.zeros(self.dim)
        for span in SPANS:
            half = span * (high - low) / 2
            start, step = (low + high) / 2 - half, 2 * half / self.most
            codes = self._even(r, start, step)
            errors = ((r - start - step * codes) ** 2).sum(axis=0)
            better = errors < least
            least = np.where(better, errors, least)
            self.lows = np.where(better, start, self.lows)
            self.steps = np.where(better, step, self.steps)

    def approximate(self, residuals: Any) -> tuple[Floats, Floats]:
        """Return what codes of rows stand for, (n, dim), and ``f t`` of each row.

        That is the part of ``f z^`` across the row, 0 for ``"scalar"``, whose errors
        are not random.
        """
        r = np.asarray(residuals, np.float64)
        if self.kind == "scalar":
            codes = self._even(r, self.lows, self.steps)
            return self.lows + self.steps * codes, np.zeros(len(r))
        basis = self.rotation.apply(np.eye(self.dim))
        length = np.sqrt((r**2).sum(axis=1))
        levels = np.array([self._choose(z) for z in self.rotation.apply(_unit(r))])
        dots = (self.rotation.apply(_unit(r)) * levels).sum(axis=1)
        factors = np.where(length > 0, length / np.where(dots > 0, dots, 1), 0)
        across = np.sqrt(np.maximum((levels**2).sum(axis=1) - dots**2, 0))
        return (levels * factors[:, None]) @ basis.T, factors * across

    def _even(self, r: Floats, low: Floats, step: Floats) -> Floats:
        scaled = (r - low) / np.where(step > 0, step, 1) + 0.5
        codes: Floats = np.floor(np.clip(scaled, 0, self.most))
        return np.where(step > 0, codes, 0.0)

    def _choose(self, z: Floats) -> Floats:
        """Levels of a rotated row of length 1."""
        widest = np.abs(z).max()
        if widest == 0:
            return np.full(self.dim, -self.most / 2)
        whole = 2 ** (self.bits - 1) / widest
        normal = np.sqrt(self.dim) / NORMAL_STEPS[self.bits - 2]
        first, last = 0.9 * whole, 1.1 * max(whole, normal)
        widths = first * (last / first) ** (np.arange(WIDTHS) / (WIDTHS - 1))
        grid = np.floor(z * widths[:, None] + 2 ** (self.bits - 1))
        levels = np.clip(grid, 0, self.most) - self.most / 2
        cosines = levels @ z / np.sqrt((levels**2).sum(axis=1))
        best: Floats = levels[cosines.argmax()]
        dot, square = float(best @ z), float(best @ best)
        for k in range(self.dim):
            for by in (-1, 1):
                moved = best[k] + by
                if abs(moved) > self.most / 2:
                    continue
                new_dot, new_square = dot + by * z[k], square + 2 * by * best[k] + 1
                if new_dot > 0 and new_dot**2 * square > dot**2 * new_square:
                    best[k], dot, square = moved, new_dot, new_square
                    break
        return best


class IVFIndex(FlatIndex):
    """Lists around centroids, codes to shortlist, vectors to rank (flat: no codes).

    The twin of `annx.IVFIndex`. Estimates are not rounded here, and every candidate is
    measured: the native index leaves out those that the error bound excludes. With
    `spill` the estimate is that of the first list's code, wherever a row was found.

    Notes
    -----
    ``|q - x|^2 = |q - c|^2 + |r|^2 - 2 <q - c, r>`` and ``-<q, x> = -<q, c> - <q, r>``
    for ``r = x - c``; cosine is half of the first on directions. O(n_lists dim) for
    the centroids, O(dim / 4) a code of the lists probed, O(dim) a candidate.

    References
    ----------
    Jegou, Douze and Schmid, "Product quantization for nearest neighbor search", 2011.
    Gao and Long, "RaBitQ", 2024.
    Sun, Simcha, Dopson, Guo and Kumar, "SOAR", 2023.
    """

    def __init__(
        self,
        dim: int,
        metric: str = "l2",
        dtype: str = "float32",
        *,
        storage: str | None = None,
        codec: str = "rabitq",
        bits: int = 1,
        spill: float | None = None,
        n_lists: int | None = None,
        n_segments: int | None = None,
        rotation: str | None = None,
        residual: bool = True,
        n_iterations: int = 10,
        max_points_per_list: int | None = 256,
        n_probe: int = 16,
        seed: int = 0,
    ) -> None:
        super().__init__(dim, metric, dtype)
        self._storage = dtype if storage is None else storage
        self._codec = codec
        self._bits = bits
        self._spill = spill
        self._rotation = "random" if codec == "rabitq" else rotation
        self._residual = residual
        self._wanted_lists = n_lists
        width = 4 if codec == "pq8" else 2
        self._segments = -(-dim // width) if n_segments is None else n_segments
        self._iterations = n_iterations
        self._limit = max_points_per_list
        self._n_probe = n_probe
        self._seed = seed
        self._coarse: KMeans | None = None

    @classmethod
    def build(  # type: ignore[override]
        cls,
        vectors: Any,
        metric: str = "l2",
        dtype: str = "float32",
        *,
        ids: Any = None,
        **options: Any,
    ) -> IVFIndex:
        """Train on vectors, (n, dim), and add them."""
        index = cls(np.shape(vectors)[1], metric, dtype, **options).train(vectors)
        index.add(vectors, ids)
        return index

    @property
    def trained(self) -> bool:
        """Whether there are centroids."""
        return self._coarse is not None

    @property
    def n_lists(self) -> int:
        """How many lists; 0 before `train`."""
        return 0 if self._coarse is None else self._coarse.n_clusters

    @property
    def n_probe(self) -> int:
        """Lists that a search looks at unless told otherwise."""
        return self._n_probe

    @property
    def codec(self) -> str:
        """How vectors are coded."""
        return self._codec

    @property
    def bits(self) -> int:
        """Bits a dimension of ``codec="rabitq"``; 0 for other codecs."""
        return self._bits if self._codec == "rabitq" else 0

    @property
    def rotation(self) -> str | None:
        """How differences are rotated before they are coded."""
        return self._rotation

    @property
    def residual(self) -> bool:
        """Whether codes are relative to the centroids of lists."""
        return self._residual

    @property
    def spill(self) -> float | None:
        """How second lists are chosen; None without them."""
        return self._spill

    @property
    def centroids(self) -> NDArray[np.float32]:
        """The centroids of the lists, shape (n_lists, dim)."""
        if self._coarse is None:
            return np.zeros((0, self.dim), np.float32)
        return self._coarse.centroids

    @property
    def list_sizes(self) -> NDArray[np.int64]:
        """Vectors in each list, shape (n_lists,)."""
        rows = self.get(self.ids)
        lists = np.append(self._cells(rows), self._seconds(rows))
        return np.bincount(lists, minlength=self.n_lists)

    def train(self, vectors: Any) -> IVFIndex:
        """Learn centroids and codes."""
        rows = np.asarray(vectors)
        lists = self._wanted_lists
        if lists is None:
            lists = max(1, min(round(2 * np.sqrt(len(rows))), len(rows) // 39))
        if self._limit is not None and self._limit * lists < len(rows):
            drawn = draw_distinct(len(rows), self._limit * lists, Random(self._seed, 0))
            rows = rows[np.sort(drawn)]
        x = self._prepared(rows)
        self._coarse = KMeans(
            lists,
            n_iterations=self._iterations,
            max_points_per_cluster=None,
            seed=self._seed,
        ).train(x)
        if self._codec == "flat":
            return self
        part = min(len(x), CODE_SAMPLE)
        self._mean = np.zeros(self.dim)
        if self.metric != "ip":
            self._mean = x.astype(np.float64).mean(axis=0)
        x = x[np.arange(part) * len(x) // part]
        residuals = x - self._origins(self._coarse.assign(x)[0])
        self._pieces = PieceCodec(
            residuals.astype(np.float32),
            self._codec,
            segments=self._segments,
            rotation=self._rotation,
            seed=self._seed,
        )
        if self._storage in SCALAR_BITS:
            self._grid = GridCodec(residuals, "scalar", SCALAR_BITS[self._storage])
        elif self._bits > 1:
            self._grid = GridCodec(residuals, "rabitq", self._bits, seed=self._seed)
        return self

    def estimates(
        self, queries: Any, *, longer: bool = False
    ) -> tuple[NDArray[np.int64], Floats, Floats]:
        """Return estimated distances from codes, unrounded, or from the longer ones.

        Returns
        -------
        ids : ndarray of int64, shape (n,)
        estimates : ndarray, shape (nq, n)
        deviations : ndarray, shape (nq, n)
            Standard deviations of the estimates' errors over random rotations.
        """
        ids = self.ids
        x = self._prepared(self.get(ids)).astype(np.float64)
        cells = self._cells(self.get(ids))
        centroids = self._origins(cells)
        squares = ((x - centroids) ** 2).sum(axis=1)
        if longer:
            residuals, across = self._grid.approximate(x - centroids)
            if self._grid.kind == "scalar":
                squares = (residuals**2).sum(axis=1)
        else:
            codes, factors, spreads = self._pieces.encode(x - centroids)
            residuals = self._pieces.decode(codes, factors)
            across = factors * spreads
        across = across / np.sqrt(max(self.dim, 2) - 1)
        found, deviations = [], []
        for q in self._prepared(queries).astype(np.float64):
            if self.metric == "ip":
                found.append(-(centroids @ q) - residuals @ q)
                deviations.append(np.sqrt(q @ q) * across)
                continue
            apart = q - centroids
            reach = (apart**2).sum(axis=1)
            unit = 0.5 if self.metric == "cosine" else 1.0
            keys = reach + squares - 2 * (apart * residuals).sum(axis=1)
            found.append(unit * keys)
            deviations.append(unit * 2 * np.sqrt(reach) * across)
        return ids, np.array(found), np.array(deviations)

    def search(  # type: ignore[override]
        self,
        queries: Any,
        k: int = 10,
        *,
        n_probe: int | None = None,
        rerank: float = 10,
        epsilon: float = 1.9,
        filter: Any = None,
    ) -> tuple[NDArray[np.int64], Floats]:
        """Return about the k nearest: ids and distances, (n, k)."""
        del epsilon  # only saves work
        rows = np.asarray(queries)
        ids = np.full((len(rows), k), -1)
        distances = np.full((len(rows), k), np.inf)
        if len(self) == 0:
            return ids, distances
        stored = self.ids
        flat = self._codec == "flat"
        if not flat:
            stored, estimates, _ = self.estimates(rows)
            longer = self._bits > 1 or self._storage in SCALAR_BITS
            if longer:
                _, finer, _ = self.estimates(rows, longer=True)
        allowed = np.isin(stored, self._chosen(filter))
        cells = self._cells(self.get(stored))
        seconds = self._seconds(self.get(stored))
        probes = min(n_probe or self._n_probe, self.n_lists)
        keys = self._list_keys(rows)
        for i in range(len(rows)):
            order = np.lexsort((np.arange(self.n_lists), keys[i]))
            while True:
                near_enough = np.isin(cells, order[:probes])
                if len(seconds):
                    near_enough |= np.isin(seconds, order[:probes])
                kept = allowed & near_enough
                if filter is None or kept.sum() >= k or probes == self.n_lists:
                    break
                probes += 1
            if flat:
                exact = pairwise_distances(
                    rows[i : i + 1], self._kept(stored[kept]), metric=self.metric
                )
                ids[i], distances[i] = top_k(exact[0], stored[kept], k)
                continue
            near = estimates[i, kept]
            if rerank == 0 or (self._storage == "codes" and not longer):
                if self.metric != "ip":
                    near = np.maximum(near, 0)
                ids[i], distances[i] = top_k(near, stored[kept], k)
                continue
            count = min(int(kept.sum()), int(max(rerank, 1) * k))
            best = top_k(near, stored[kept], count)[0]
            if longer:
                chosen = np.isin(stored, best)
                near = finer[i, chosen]
                if self.metric != "ip":
                    near = np.maximum(near, 0)
                ids[i], distances[i] = top_k(near, stored[chosen], k)
                continue
            if count:
                exact = pairwise_distances(
                    rows[i : i + 1], self._kept(best), metric=self.metric
                )
                ids[i], distances[i] = top_k(exact[0], best, k)
        return ids, distances

    def search_radius(
        self, queries: Any, radius: float, *, filter: Any = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
        """Return everything at a distance <= radius, by the vectors."""
        flat = FlatIndex(self.dim, self.metric)
        ids = self._chosen(filter)
        flat.upsert(self._kept(ids) if len(ids) else np.zeros((0, self.dim)), ids)
        return flat.search_radius(queries, radius)

    def _prepared(self, rows: Any) -> NDArray[np.float32]:
        x = np.asarray(rows).astype(np.float64)
        if self.metric in ("cosine", "jaccard"):
            square = (x**2).sum(axis=1, keepdims=True)
            zero = square < LEAST_SQUARE
            x = np.where(zero, 0.0, x / np.sqrt(np.where(zero, 1, square)))
        return x.astype(np.float32)

    def _origins(self, cells: NDArray[np.int64]) -> Floats:
        """Return what codes of vectors in these lists are relative to, (n, dim)."""
        if self._residual:
            return self.centroids.astype(np.float64)[cells]
        return np.tile(self._mean, (len(cells), 1))

    def _cells(self, rows: Any) -> NDArray[np.int64]:
        if self._coarse is None or len(rows) == 0:
            return np.zeros(0, np.int64)
        return self._coarse.assign(self._prepared(rows))[0]

    def _seconds(self, rows: Any) -> NDArray[np.int64]:
        """Return the second list of each row; of none without `spill`."""
        if self._spill is None or self.n_lists < 2 or len(rows) == 0:
            return np.zeros(0, np.int64)
        x = self._prepared(rows).astype(np.float64)
        own = self._cells(rows)
        apart = x[:, None] - self.centroids.astype(np.float64)
        along = _unit(apart[np.arange(len(x)), own])
        across = (apart * along[:, None]).sum(axis=-1)
        loss = (apart**2).sum(axis=-1) + self._spill * across**2
        loss[np.arange(len(x)), own] = np.inf
        found: NDArray[np.int64] = loss.argmin(axis=1)
        return found

    def _list_keys(self, queries: Any) -> Floats:
        metric = "ip" if self.metric == "ip" else "l2"
        return pairwise_distances(
            self._prepared(queries), self.centroids, metric=metric
        )

    def _kept(self, ids: Any) -> NDArray[Any]:
        """Vectors as they are kept."""
        rows = self.get(ids)
        return rows.astype(np.float16) if self._storage == "float16" else rows


def _unit(x: Floats) -> Floats:
    """Rows of length 1; zero rows stay."""
    length = np.sqrt((x**2).sum(axis=1, keepdims=True))
    return x / np.where(length == 0, 1, length)
