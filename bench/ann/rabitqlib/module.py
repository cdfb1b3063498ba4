# SPDX-License-Identifier: Apache-2.0
"""The RaBitQ library: SymphonyQG, its graph with 1-bit codes at every node, and IVF.

Cosine is done as its documentation says, with rows of length 1; ``space`` then chooses
between the inner product and the Euclidean distance, which order such rows alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import rabitqlib

from bench.ann.adapter import Adapter, Array


class _Rabitq(Adapter):
    unit_rows = True

    @property
    def space(self) -> str:
        if self.metric == "l2":
            return "l2"
        return "ip" if self.metric == "ip" else self.params.get("space", "ip")

    @property
    def padded_dim(self) -> int:
        """Its rotation takes 64 dimensions or more; zeros change no distance."""
        return max(64, self.dim)

    def pad(self, rows: Array) -> Array:
        missing = self.padded_dim - self.dim
        return np.pad(rows, ((0, 0), (0, missing))) if missing else rows

    def split(self, queries: Array) -> Sequence[Any]:
        queries = self.pad(queries)
        return [queries[i : i + 1] for i in range(len(queries))]


class SymphonyQG(_Rabitq):
    """SymphonyQG with raw vectors, or 4- or 8-bit ones, at the nodes."""

    def build(self, base: Array) -> None:
        self.index = rabitqlib.SymqgIndex(
            self.padded_dim,
            self.params["degree"],
            metric=self.space,
            quantization_bits=self.params["bits"],
        )
        self.index.build(
            self.pad(base), self.params["ef_construction"], num_threads=self.threads
        )

    def searcher(self, k: int, **params: Any) -> Callable[[Any], Any]:
        search, ef = self.index.search, max(k, params["ef"])
        return lambda query: search(query, k, ef, 1)[0][0]

    def batcher(self, k: int, **params: Any) -> Callable[[Array], Any]:
        search, ef, threads = self.index.search_batch, params["ef"], self.threads
        ef = max(k, ef)
        return lambda queries: search(self.pad(queries), k, ef, threads)[0]


class Ivf(_Rabitq):
    """IVF with RaBitQ codes of ``bits`` bits (32: raw vectors re-rank)."""

    def build(self, base: Array) -> None:
        lists = max(1, round(self.params["lists_per_sqrt_n"] * len(base) ** 0.5))
        base = self.pad(base)
        clustering = rabitqlib.RaBitQKMeans(
            self.padded_dim, lists, num_threads=self.threads
        )
        clustering.train(base)
        self.index = rabitqlib.IvfIndex(
            dim=self.padded_dim,
            max_elements=len(base),
            num_clusters=lists,
            nbits=self.params["bits"],
            metric=self.space,
        )
        self.index.build(
            base,
            clustering.centroids,
            clustering.assignments,
            num_threads=self.threads,
            fast_quantization=True,
        )
        self.lists = lists

    def searcher(self, k: int, **params: Any) -> Callable[[Any], Any]:
        search, probes = self.index.search, min(params["n_probe"], self.lists)
        return lambda query: search(query, k, probes, num_threads=1)[0][0]

    def batcher(self, k: int, **params: Any) -> Callable[[Array], Any]:
        search, probes = self.index.search, min(params["n_probe"], self.lists)
        pad, threads = self.pad, self.threads
        return lambda queries: search(pad(queries), k, probes, num_threads=threads)[0]
