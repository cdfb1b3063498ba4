# SPDX-License-Identifier: Apache-2.0
"""faiss: exact, HNSW, and IVF with 4-bit product quantization and exact refinement.

Cosine is done as its documentation says: rows of length 1 and the inner product.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import faiss
import numpy as np

from bench.ann.adapter import Adapter, Array


class _Faiss(Adapter):
    unit_rows = True

    @property
    def faiss_metric(self) -> int:
        return faiss.METRIC_L2 if self.metric == "l2" else faiss.METRIC_INNER_PRODUCT

    def split(self, queries: Array) -> Sequence[Any]:
        return [queries[i : i + 1] for i in range(len(queries))]

    def configure(self, **params: Any) -> None:
        """Set the search options on the index."""

    def searcher(self, k: int, **params: Any) -> Callable[[Any], Any]:
        faiss.omp_set_num_threads(1)
        self.configure(**params)
        search = self.index.search
        return lambda query: search(query, k)[1][0]

    def batcher(self, k: int, **params: Any) -> Callable[[Array], Any]:
        faiss.omp_set_num_threads(self.threads)
        self.configure(**params)
        search = self.index.search
        return lambda queries: search(queries, k)[1]


class Flat(_Faiss):
    """IndexFlat: BLAS for blocks of queries, its own kernels for single ones."""

    def build(self, base: Array) -> None:
        faiss.omp_set_num_threads(self.threads)
        self.index = faiss.IndexFlat(self.dim, self.faiss_metric)
        self.index.add(base)


class Hnsw(_Faiss):
    """IndexHNSWFlat."""

    def build(self, base: Array) -> None:
        faiss.omp_set_num_threads(self.threads)
        self.index = faiss.IndexHNSWFlat(self.dim, self.params["m"], self.faiss_metric)
        self.index.hnsw.efConstruction = self.params["ef_construction"]
        self.index.add(base)

    def configure(self, **params: Any) -> None:
        self.index.hnsw.efSearch = params["ef"]


class HnswSq8(Hnsw):
    """``HNSW{m},SQ8``: the graph over scalar codes of 8 bits."""

    def build(self, base: Array) -> None:
        faiss.omp_set_num_threads(self.threads)
        self.index = faiss.index_factory(
            self.dim, f"HNSW{self.params['m']},SQ8", self.faiss_metric
        )
        self.index.hnsw.efConstruction = self.params["ef_construction"]
        self.index.train(base)
        self.index.add(base)


class IvfPqFastScan(_Faiss):
    """``IVF{lists},PQ{d / block}x4fs,RFlat``; `refine` names other rows, as ``SQ8``.

    ``lists`` comes as a multiple of the square root of n (faiss's guidelines: 4 to 16).
    """

    def build(self, base: Array) -> None:
        faiss.omp_set_num_threads(self.threads)
        lists = 2 ** round(
            math.log2(self.params["lists_per_sqrt_n"] * len(base) ** 0.5)
        )
        segments = self.dim // self.params["block"]
        # Residuals against the coarse centroid (the r of 4fsr) are what faiss uses by
        # default for the inner product of ordinary PQ; both are in the grid.
        residual = "r" if self.params["residual"] else ""
        rows = (
            f"Refine({self.params['refine']})" if "refine" in self.params else "RFlat"
        )
        self.index = faiss.index_factory(
            self.dim,
            f"IVF{lists},PQ{segments}x4fs{residual},{rows}",
            self.faiss_metric,
        )
        inner = faiss.extract_index_ivf(self.index)
        inner.cp.min_points_per_centroid = 5
        self.index.train(base)
        self.index.add(base)
        self.inner = inner

    def configure(self, **params: Any) -> None:
        self.inner.nprobe = min(params["n_probe"], self.inner.nlist)
        self.index.k_factor = float(params["k_factor"])

    def ids(self, found: Any) -> Array:
        return np.asarray(found)


class IvfRows(_Faiss):
    """``IVF{lists},Flat``, or ``SQ8`` and others: `rows` says which."""

    def build(self, base: Array) -> None:
        faiss.omp_set_num_threads(self.threads)
        lists = round(self.params["lists_per_sqrt_n"] * len(base) ** 0.5)
        self.index = faiss.index_factory(
            self.dim, f"IVF{lists},{self.params['rows']}", self.faiss_metric
        )
        self.index.cp.min_points_per_centroid = 5
        self.index.train(base)
        self.index.add(base)

    def configure(self, **params: Any) -> None:
        self.index.nprobe = min(params["n_probe"], self.index.nlist)
