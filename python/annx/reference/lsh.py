# SPDX-License-Identifier: Apache-2.0
"""Locality-sensitive hashing in plain NumPy: hash families, tables, multi-probe."""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annx.reference.flat import FlatIndex, pairwise_distances
from annx.reference.random import Random, mix64
from annx.reference.topk import top_k

__all__ = ["LSHIndex"]

# Streams of the seed.
_FUNCTIONS, _OFFSETS, _KEYS, _DIRECTIONS = 0, 1, 2, 8
_LARGEST = 1 << 30


def gaussians(random: Random, count: int) -> NDArray[np.float64]:
    """Return the first `count` standard normal numbers, by Box and Muller (1958)."""
    i = np.arange(count)
    radius = np.sqrt(-2 * np.log(1 - random.unit(2 * i)))
    result: NDArray[np.float64] = radius * np.cos(2 * np.pi * random.unit(2 * i + 1))
    return result


def cauchys(random: Random, count: int) -> NDArray[np.float64]:
    """Return the first `count` standard Cauchy numbers, by inversion."""
    unit = random.unit(np.arange(count))
    result: NDArray[np.float64] = np.tan(np.pi * (unit - 0.5))
    return result


class LSHIndex(FlatIndex):
    """Vectors in the buckets of many hash tables, the likeliest of which are searched.

    The twin of `annx.LSHIndex`.

    Notes
    -----
    ==========  ============================================================
    cosine      h(x) = [a x > 0], a normal; collisions 1 - angle / pi
    l2          h(x) = floor((a x + b) / width), a normal, b uniform
    l1          the same, a Cauchy
    hamming     h(x) = one bit of x; collisions 1 - distance / dim
    jaccard     h(x) = the bit of x that comes first in a random order;
                collisions 1 - distance
    ==========  ============================================================

    A bucket holds what agrees in all functions of a table. Other buckets are tried by
    what it would take to fall into them: the squared distance of the query to the
    boundaries between, or one for each function where there is no such distance. Of
    many vectors met those are measured whose sketches, a bit for each direction, differ
    least from the query's; where the buckets have half as many places as there are
    vectors, of all vectors.

    References
    ----------
    Indyk and Motwani, 1998 (bits). Broder, 1997 (first of a random order). Charikar,
    2002 (signs). Datar, Immorlica, Indyk and Mirrokni, 2004 (p-stable). Lv, Josephson,
    Wang, Charikar and Li, "Multi-probe LSH", 2007.

    Examples
    --------
    >>> import numpy as np
    >>> from annx.reference import LSHIndex
    >>> x = np.eye(8, dtype=np.float32)
    >>> index = LSHIndex.build(x, "cosine", n_tables=4, n_hashes=3)
    >>> index.search(x[:1], 1, n_probe=4)[0].tolist()
    [[0]]
    """

    n_tables: int = 16
    n_hashes: int | None = None
    width: float | None = None
    sketch_bits: int = 0

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
        super().__init__(dim, metric, dtype)
        if sketch_bits is None:
            sketch_bits = 0 if dtype == "bits" else 256
        self.sketch_bits = sketch_bits
        self._limits: NDArray[np.float64] | None = None
        self.n_tables = n_tables
        self.n_hashes = n_hashes
        self.width = width
        self.seed = seed

    @classmethod
    def build(
        cls,
        vectors: Any,
        metric: str = "l2",
        dtype: str | None = None,
        *,
        ids: Any = None,
        **options: Any,
    ) -> LSHIndex:
        """Make an index of vectors, (n, dim); bits one an element."""
        if dtype is None:
            dtype = "bits" if metric in ("hamming", "jaccard") else "float32"
        index = cls(np.shape(vectors)[1], metric, dtype, **options)
        index.add(vectors, ids)
        return index

    def add(self, vectors: Any, ids: Any = None) -> NDArray[np.int64]:
        """Add vectors under new ids, which it returns."""
        result = super().add(vectors, ids)
        if self._limits is None and self.sketch_bits:
            first = self.get(self.ids)[: 1 << 10].astype(np.float64)
            mean = np.zeros(self.dim) if self.metric == "cosine" else first.mean(axis=0)
            self._limits = self._directions() @ mean
        if self.n_hashes is None:
            bits = max(1.0, np.log2(max(1, len(self))))
            per_bit = {"cosine": 1.0, "hamming": 1.0, "l2": 0.5, "l1": 0.5}
            wanted = (bits - 2) * per_bit.get(self.metric, 0.25)
            self.n_hashes = int(np.clip(np.floor(wanted), 2, 24))
        if self.width is None and self.metric in ("l2", "l1"):
            rows = self.get(self.ids)[: 1 << 10]
            self.width = max(self._spread(rows.astype(np.float64)), 1e-30)
        return result

    def hash_values(self, vectors: Any) -> NDArray[np.int64]:
        """Return the values of all functions, (n, n_tables, n_hashes)."""
        values = self._values(np.asarray(vectors))[0]
        return values.reshape(-1, self.n_tables, self.n_hashes or 1)

    def search(  # type: ignore[override]
        self,
        queries: Any,
        k: int = 10,
        *,
        n_probe: int | None = None,
        rerank: int | None = None,
        filter: Any = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return about the k nearest: ids and distances, (n, k)."""
        queries = np.asarray(queries)
        ids = np.full((len(queries), k), -1)
        distances = np.full((len(queries), k), np.inf)
        if len(self) == 0:
            return ids, distances
        n_probe = 4 * self.n_tables if n_probe is None else n_probe
        all_ids = self.ids
        rows = self.get(all_ids)
        keys = self._keys(self._values(rows)[0])
        buckets = sum(len(set(keys[:, t].tolist())) for t in range(self.n_tables))
        allowed = np.isin(all_ids, self._chosen(filter))
        for i, query in enumerate(queries):
            met = np.zeros(len(rows), bool)
            wanted = max(256, 32 * k) if rerank is None else rerank
            places = 0
            if n_probe >= buckets:
                met[:] = True
            else:
                for table, key in self._probes(query, n_probe):
                    here = keys[:, table] == np.uint64(key)
                    places += int(here.sum())
                    met |= here
            if self.sketch_bits and places * 2 >= len(rows) and places > wanted:
                met[:] = True
            met &= allowed
            if n_probe < buckets and self.sketch_bits:
                met = self._sift(query, rows, met, wanted)
            exact = pairwise_distances(query[None], rows[met], metric=self.metric)
            ids[i], distances[i] = top_k(exact[0], all_ids[met], k)
        return ids, distances

    def sketches(self, vectors: Any) -> NDArray[np.bool_]:
        """Return the bits of sketches, (n, sketch_bits)."""
        sums = np.asarray(vectors, np.float64) @ self._directions().T
        bits: NDArray[np.bool_] = sums > self._limits
        return bits

    def _sift(
        self,
        query: NDArray[Any],
        rows: NDArray[Any],
        met: NDArray[np.bool_],
        wanted: int,
    ) -> NDArray[np.bool_]:
        """Keep the rows met whose sketches differ least, ties with the last too."""
        if met.sum() <= wanted:
            return met
        differing = (self.sketches(rows) != self.sketches(query[None])).sum(axis=1)
        limit = np.sort(differing[met])[wanted - 1]
        kept: NDArray[np.bool_] = met & (differing <= limit)
        return kept

    def _directions(self) -> NDArray[np.float64]:
        """Return unit vectors, orthogonal in groups of dim, (sketch_bits, dim)."""
        count = self.sketch_bits * self.dim
        drawn = gaussians(Random(self.seed, _DIRECTIONS), count)
        result = drawn.reshape(self.sketch_bits, self.dim).copy()
        for b in range(self.sketch_bits):
            for o in range(b // self.dim * self.dim, b):
                result[b] -= (result[b] @ result[o]) * result[o]
            length = np.sqrt(result[b] @ result[b])
            result[b] *= 1 / length if length > 0 else 0.0
        rounded: NDArray[np.float64] = result.astype(np.float32).astype(np.float64)
        return rounded

    def _projections(self) -> NDArray[np.float32]:
        count = self.n_tables * (self.n_hashes or 1)
        draw = cauchys if self.metric == "l1" else gaussians
        flat = draw(Random(self.seed, _FUNCTIONS), count * self.dim)
        return flat.reshape(count, self.dim).astype(np.float32)

    def _spread(self, rows: NDArray[np.float64]) -> float:
        """Half the middle half of the projections, as a standard deviation."""
        sums = np.sort(rows @ self._projections().T.astype(np.float64), axis=0)
        n = len(sums)
        quarters = sums[3 * (n - 1) // 4] - sums[(n - 1) // 4]
        return float(np.mean(quarters)) / 1.349

    def _values(
        self, rows: NDArray[Any]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return values (n, functions), and where in its cell each projection lies."""
        count = self.n_tables * (self.n_hashes or 1)
        if self.metric == "hamming":
            bits = Random(self.seed, _FUNCTIONS).below(np.arange(count), self.dim)
            return rows[:, bits].astype(np.int64), np.ones((len(rows), count))
        if self.metric == "jaccard":
            values = np.full((len(rows), count), self.dim)
            second = np.full((len(rows), count), self.dim, np.float64)
            for f in range(count):
                place = np.arange(self.dim) + f * self.dim
                order = Random(self.seed, _FUNCTIONS).bits(place) >> np.uint64(32)
                for i, row in enumerate(rows):
                    held = np.flatnonzero(row)
                    held = held[np.argsort(order[held], kind="stable")]
                    if len(held) > 0:
                        values[i, f] = held[0]
                    if len(held) > 1:
                        second[i, f] = held[1]
            return values, second
        sums = rows.astype(np.float64) @ self._projections().T.astype(np.float64)
        if self.metric == "cosine":
            return (sums > 0).astype(np.int64), sums
        offsets = Random(self.seed, _OFFSETS).unit(np.arange(count))
        cells = sums / (self.width or 1.0) + offsets
        values = np.clip(np.floor(cells), -_LARGEST, _LARGEST).astype(np.int64)
        return values, cells - np.floor(cells)

    def _factors(self) -> NDArray[np.uint64]:
        count = self.n_tables * (self.n_hashes or 1)
        words: NDArray[np.uint64] = Random(self.seed, _KEYS).bits(np.arange(count))
        return words

    def _keys(self, values: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Return the keys of the buckets, (n, n_tables): 32 bits of a mixed sum."""
        parts = values.astype(np.uint64) * self._factors()
        sums = parts.reshape(len(values), self.n_tables, -1).sum(axis=2)
        result: NDArray[np.uint64] = mix64(sums) >> np.uint64(32)
        return result

    def _probes(self, query: NDArray[Any], n_probe: int) -> list[tuple[int, int]]:
        """Return the likeliest buckets: tables and keys, in order."""
        m = self.n_hashes or 1
        values, places = (part[0] for part in self._values(query[None]))
        # Cost, table, and the moves as bits, which settle ties, and as numbers.
        heap: list[tuple[float, int, int, tuple[int, ...]]] = []
        moves: list[list[tuple[float, int, int]]] = []
        for table in range(self.n_tables):
            options = []
            for f in range(table * m, table * m + m):
                here = int(values[f])
                if self.metric == "cosine":
                    options.append((float(places[f]) ** 2, f, 1 - 2 * here))
                elif self.metric == "hamming":
                    options.append((1.0, f, 1 - 2 * here))
                elif self.metric == "jaccard":
                    if int(places[f]) != self.dim:
                        options.append((1.0, f, int(places[f]) - here))
                else:
                    options.append((float(places[f]) ** 2, f, -1))
                    options.append((float(1 - places[f]) ** 2, f, 1))
            moves.append(sorted(options, key=lambda o: o[0]))
            heap.append((0.0, table, 0, ()))
        heapq.heapify(heap)
        probes: list[tuple[int, int]] = []
        while heap and len(probes) < n_probe:
            cost, table, bits, chosen = heapq.heappop(heap)
            options = moves[table]
            functions = [options[i][1] for i in chosen]
            if len(set(functions)) == len(functions):
                moved = values[table * m : table * m + m].copy()
                for i in chosen:
                    moved[options[i][1] - table * m] += options[i][2]
                row = values.copy()
                row[table * m : table * m + m] = moved
                probes.append((table, int(self._keys(row[None])[0, table])))
            last = chosen[-1] if chosen else -1
            if last + 1 < len(options):
                more = cost + options[last + 1][0]
                bits |= 1 << (last + 1)
                heapq.heappush(heap, (more, table, bits, (*chosen, last + 1)))
                if chosen:
                    less = more - options[last][0]
                    bits ^= 1 << last
                    heapq.heappush(heap, (less, table, bits, (*chosen[:-1], last + 1)))
        return probes
