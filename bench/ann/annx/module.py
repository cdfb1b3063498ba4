# SPDX-License-Identifier: Apache-2.0
"""annx itself: the exact index and the approximate ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import annx
from bench.ann.adapter import Adapter, Array


class Flat(Adapter):
    """Exact search."""

    def build(self, base: Array) -> None:
        self.index = annx.FlatIndex.build(base, metric=self.metric)

    def searcher(self, k: int, **params: Any) -> Callable[[Any], Any]:
        search = self.index.search
        return lambda query: search(query, k, threads=1)

    def batcher(self, k: int, **params: Any) -> Callable[[Array], Any]:
        search, threads = self.index.search, self.threads
        return lambda queries: search(queries, k, threads=threads)

    def ids(self, found: Any) -> Array:
        return np.asarray(found.ids)


class Family(Flat):
    """An approximate index; search parameters are those of its `search`."""

    kind: type[Any]

    def build(self, base: Array) -> None:
        self.index = self.kind.build(
            base, metric=self.metric, threads=self.threads, seed=0, **self.params
        )

    def searcher(self, k: int, **params: Any) -> Callable[[Any], Any]:
        search = self.index.search
        return lambda query: search(query, k, threads=1, **params)

    def batcher(self, k: int, **params: Any) -> Callable[[Array], Any]:
        search, threads = self.index.search, self.threads
        return lambda queries: search(queries, k, threads=threads, **params)


class Graph(Family):
    """Graph search; ``ef`` is the length of the candidate list."""

    kind = annx.GraphIndex


class Ivf(Family):
    """Inverted lists; ``n_probe`` of them are looked at."""

    kind = annx.IVFIndex


class Lsh(Family):
    """Hashing; ``n_probe`` buckets of each table are looked at."""

    kind = annx.LSHIndex
