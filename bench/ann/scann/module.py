# SPDX-License-Identifier: Apache-2.0
"""ScaNN: partitions, asymmetric hashing and re-ordering; and its brute force."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scann

from bench.ann.adapter import Adapter, Array


class _Scann(Adapter):
    unit_rows = True

    @property
    def measure(self) -> str:
        return "squared_l2" if self.metric == "l2" else "dot_product"

    def ids(self, found: Any) -> Array:
        return np.asarray(found[0])


class Tree(_Scann):
    """Leaves as a multiple of the square root of n."""

    def build(self, base: Array) -> None:
        leaves = max(1, round(self.params["leaves_per_sqrt_n"] * len(base) ** 0.5))
        dot = self.measure == "dot_product"
        builder = scann.scann_ops_pybind.builder(base, 10, self.measure)
        builder.set_n_training_threads(self.threads)
        builder.tree(
            num_leaves=leaves,
            num_leaves_to_search=max(1, leaves // 20),
            training_sample_size=len(base),
            spherical=dot,
            quantize_centroids=True,
            soar_lambda=self.params.get("soar_lambda") if dot else None,
        )
        # The anisotropic loss is meant for the inner product only.
        threshold = self.params["threshold"] if dot else float("nan")
        builder.score_ah(
            self.params["block"], anisotropic_quantization_threshold=threshold
        )
        builder.reorder(100, quantize=self.params.get("reorder_int8", False))
        self.index = builder.build()
        self.leaves = leaves

    def searcher(self, k: int, **params: Any) -> Callable[[Any], Any]:
        search = self.index.searcher.search
        leaves, reorder = min(params["leaves"], self.leaves), params["reorder"]
        return lambda query: search(query, k, reorder, leaves)

    def batcher(self, k: int, **params: Any) -> Callable[[Array], Any]:
        search = self.index.search_batched
        if self.threads > 1:
            search = self.index.search_batched_parallel
        leaves, reorder = min(params["leaves"], self.leaves), params["reorder"]
        return lambda queries: search(queries, k, reorder, leaves)


class BruteForce(_Scann):
    """Exact search."""

    def build(self, base: Array) -> None:
        builder = scann.scann_ops_pybind.builder(base, 10, self.measure)
        builder.set_n_training_threads(self.threads)
        self.index = builder.score_brute_force().build()

    def searcher(self, k: int, **params: Any) -> Callable[[Any], Any]:
        search = self.index.searcher.search
        return lambda query: search(query, k, -1, -1)

    def batcher(self, k: int, **params: Any) -> Callable[[Array], Any]:
        search = self.index.search_batched
        if self.threads > 1:
            search = self.index.search_batched_parallel
        return lambda queries: search(queries, k)
