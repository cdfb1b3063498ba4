# SPDX-License-Identifier: Apache-2.0
"""usearch; ``dtype`` is what it keeps (f32, or the narrower types it recommends)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


class Hnsw8(Hnsw):
    """The same over int8.

    usearch narrows floats by itself for angles only. For l2 it gets int8 rows: all
    coordinates around their middle, over the largest.
    """

    def narrow(self, rows: Array) -> Array:
        if self.metric != "l2":
            return rows
        codes = np.rint((rows - self.middle) * self.scale)
        return np.clip(codes, -127, 127).astype(np.int8)

    def build(self, base: Array) -> None:
        low, high = base.min(axis=0), base.max(axis=0)
        self.middle = (low + high) / 2
        self.scale = 254 / float((high - low).max())
        super().build(self.narrow(base))

    def split(self, queries: Array) -> Sequence[Any]:
        return list(self.narrow(queries))

    def batcher(self, k: int, **params: Any) -> Callable[[Array], Any]:
        search = super().batcher(k, **params)
        return lambda queries: search(self.narrow(queries))
