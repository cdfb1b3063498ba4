# SPDX-License-Identifier: Apache-2.0
"""voyager, Spotify's HNSW."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import voyager

from bench.ann.adapter import Adapter, Array

_SPACES = {
    "l2": voyager.Space.Euclidean,
    "cosine": voyager.Space.Cosine,
    "ip": voyager.Space.InnerProduct,
}


class Hnsw(Adapter):
    """voyager's index in float32."""

    def build(self, base: Array) -> None:
        self.index = voyager.Index(
            _SPACES[self.metric],
            num_dimensions=self.dim,
            M=self.params["m"],
            ef_construction=self.params["ef_construction"],
            max_elements=len(base),
        )
        self.index.add_items(base, num_threads=self.threads)

    def searcher(self, k: int, **params: Any) -> Callable[[Any], Any]:
        search, ef = self.index.query, max(k, params["ef"])
        return lambda query: search(query, k, 1, ef)[0]

    def batcher(self, k: int, **params: Any) -> Callable[[Array], Any]:
        search, ef, threads = self.index.query, max(k, params["ef"]), self.threads
        return lambda queries: search(queries, k, threads, ef)[0]
