# SPDX-License-Identifier: Apache-2.0
"""usearch; ``dtype`` is what it keeps (f32, or the narrower types it recommends)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from usearch.index import Index

from bench.ann.adapter import Adapter, Array

_METRICS = {"l2": "l2sq", "cosine": "cos", "ip": "ip"}


class Hnsw(Adapter):
    """usearch's HNSW."""

    def build(self, base: Array) -> None:
        self.index = Index(
            ndim=self.dim,
            metric=_METRICS[self.metric],
            dtype=self.params["dtype"],
            connectivity=self.params["connectivity"],
            expansion_add=self.params["expansion_add"],
            # Keys are row numbers and are never looked up by key.
            enable_key_lookups=False,
        )
        keys = np.arange(len(base), dtype=np.uint64)
        self.index.add(keys, base, threads=self.threads)

    def searcher(self, k: int, **params: Any) -> Callable[[Any], Any]:
        self.index.expansion_search = params["expansion_search"]
        search = self.index.search
        return lambda query: search(query, k, threads=1)

    def batcher(self, k: int, **params: Any) -> Callable[[Array], Any]:
        self.index.expansion_search = params["expansion_search"]
        search, threads = self.index.search, self.threads
        return lambda queries: search(queries, k, threads=threads)

    def ids(self, found: Any) -> Array:
        return np.asarray(found.keys)
