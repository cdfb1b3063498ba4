# SPDX-License-Identifier: Apache-2.0
"""hnswlib; its cosine space normalises by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hnswlib

from bench.ann.adapter import Adapter, Array


class Hnsw(Adapter):
    """One HNSW index; M is its name for half of the bottom layer's degree."""

    def build(self, base: Array) -> None:
        self.index = hnswlib.Index(space=self.metric, dim=self.dim)
        self.index.init_index(
            max_elements=len(base),
            M=self.params["m"],
            ef_construction=self.params["ef_construction"],
            random_seed=100,
        )
        self.index.set_num_threads(self.threads)
        self.index.add_items(base, num_threads=self.threads)

    def searcher(self, k: int, **params: Any) -> Callable[[Any], Any]:
        self.index.set_ef(max(k, params["ef"]))
        self.index.set_num_threads(1)
        search = self.index.knn_query
        return lambda query: search(query, k)[0][0]

    def batcher(self, k: int, **params: Any) -> Callable[[Array], Any]:
        self.index.set_ef(max(k, params["ef"]))
        search, threads = self.index.knn_query, self.threads
        return lambda queries: search(queries, k, num_threads=threads)[0]
