# SPDX-License-Identifier: Apache-2.0
"""PyNNDescent: a pruned nearest-neighbour-descent graph, compiled by numba."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from pynndescent import NNDescent

from bench.ann.adapter import Adapter, Array

_METRICS = {"l2": "euclidean", "cosine": "cosine", "ip": "dot"}


class Graph(Adapter):
    """Its compilation by numba is done on a scrap index before the clock starts.

    The scrap index is large enough to take every path that a real one takes.
    """

    def __init__(self, dim: int, metric: str, threads: int, **params: Any) -> None:
        super().__init__(dim, metric, threads, **params)
        scrap = np.random.default_rng(0).standard_normal((5000, dim))
        index = self._index(scrap.astype(np.float32))
        index.prepare()
        index.query(scrap[:1].astype(np.float32), k=10, epsilon=0.1)

    def _index(self, base: Array) -> NNDescent:
        return NNDescent(
            base,
            metric=_METRICS[self.metric],
            n_neighbors=self.params["n_neighbors"],
            pruning_degree_multiplier=self.params["pruning_degree_multiplier"],
            diversify_prob=self.params["diversify_prob"],
            n_jobs=self.threads,
            random_state=0,
            compressed=True,
        )

    def build(self, base: Array) -> None:
        self.index = self._index(base)
        self.index.prepare()

    def split(self, queries: Array) -> Sequence[Any]:
        return [queries[i : i + 1] for i in range(len(queries))]

    def searcher(self, k: int, **params: Any) -> Callable[[Any], Any]:
        search, epsilon = self.index.query, params["epsilon"]
        return lambda query: search(query, k=k, epsilon=epsilon)[0][0]

    def batcher(self, k: int, **params: Any) -> Callable[[Array], Any]:
        search, epsilon = self.index.query, params["epsilon"]
        return lambda queries: search(queries, k=k, epsilon=epsilon)[0]
