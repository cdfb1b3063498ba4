# SPDX-License-Identifier: Apache-2.0
"""Scalable Vector Search: a Vamana graph over float32 (LVQ runs on Intel only)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import svs

from bench.ann.adapter import Adapter, Array

_DISTANCES = {
    "l2": svs.DistanceType.L2,
    "cosine": svs.DistanceType.Cosine,
    "ip": svs.DistanceType.MIP,
}


class Vamana(Adapter):
    """alpha is the documented one: 1.2 for distances, 0.95 for similarities."""

    unit_rows = True

    def build(self, base: Array) -> None:
        # On rows of length 1 the Euclidean distance orders as the cosine does and needs
        # no norm at every comparison.
        metric = "l2" if self.metric == "cosine" else self.metric
        parameters = svs.VamanaBuildParameters(
            alpha=1.2 if metric == "l2" else 0.95,
            graph_max_degree=self.params["degree"],
            window_size=self.params["window"],
        )
        self.index = svs.Vamana.build(
            parameters, base, _DISTANCES[metric], num_threads=self.threads
        )

    def searcher(self, k: int, **params: Any) -> Callable[[Any], Any]:
        self.index.num_threads = 1
        self.index.search_window_size = max(k, params["window"])
        search = self.index.search
        return lambda query: search(query, k)[0]

    def batcher(self, k: int, **params: Any) -> Callable[[Array], Any]:
        self.index.num_threads = self.threads
        self.index.search_window_size = max(k, params["window"])
        search = self.index.search
        return lambda queries: search(queries, k)[0]

    def ids(self, found: Any) -> Array:
        return np.asarray(found[0] if len(found) == 1 else found)
