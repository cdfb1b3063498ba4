# SPDX-License-Identifier: Apache-2.0
"""Search over product codes in plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from annx.reference.codec import ProductQuantizer
from annx.reference.flat import FlatIndex, pairwise_distances
from annx.reference.topk import top_k

__all__ = ["PQFlatIndex"]


class PQFlatIndex(FlatIndex):
    """Distances from product codes shortlist, distances from the vectors rank.

    The twin of `annx.PQFlatIndex`.

    Notes
    -----
    ``n n_segments`` table look-ups a query, then ``k rerank dim`` operations.

    References
    ----------
    Jegou, Douze and Schmid, "Product quantization for nearest neighbor search", 2011.
    """

    def __init__(
        self,
        dim: int,
        metric: str = "l2",
        dtype: str = "float32",
        *,
        n_segments: int | None = None,
        n_bits: int = 8,
        n_iterations: int = 25,
        max_points_per_centroid: int | None = 256,
        seed: int = 0,
    ) -> None:
        super().__init__(dim, metric, dtype)
        self.quantizer = ProductQuantizer(
            dim,
            (dim + 7) // 8 if n_segments is None else n_segments,
            n_bits=n_bits,
            metric=metric,
            n_iterations=n_iterations,
            max_points_per_centroid=max_points_per_centroid,
            seed=seed,
        )

    @classmethod
    def build(  # type: ignore[override]
        cls, vectors: Any, metric: str = "l2", *, ids: Any = None, **options: Any
    ) -> PQFlatIndex:
        """Train on vectors, (n, dim), and add them."""
        index = cls(np.shape(vectors)[1], metric, **options).train(vectors)
        index.add(vectors, ids)
        return index

    @property
    def trained(self) -> bool:
        """Whether there are codebooks."""
        return self.quantizer.trained

    def train(self, vectors: Any) -> PQFlatIndex:
        """Learn the codebooks."""
        self.quantizer.train(vectors)
        return self

    def search(  # type: ignore[override]
        self, queries: Any, k: int = 10, *, rerank: int = 10, filter: Any = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return about the k nearest: ids and distances, (n, k)."""
        chosen = self._chosen(filter)
        ids = np.full((len(queries), k), -1)
        distances = np.full((len(queries), k), np.inf)
        if len(chosen) == 0:
            return ids, distances
        rows = self.get(chosen)
        codes = self.quantizer.encode(rows)
        estimates = self.quantizer.asymmetric_distances(queries, codes)
        for i, query in enumerate(np.asarray(queries)):
            near = np.asarray(estimates[i], np.float64)
            if rerank > 0:
                best = top_k(near, chosen, min(len(chosen), k * rerank))[0]
                kept = np.isin(chosen, best)
                exact = pairwise_distances(query[None], rows[kept], metric=self.metric)
                ids[i], distances[i] = top_k(exact[0], chosen[kept], k)
            else:
                ids[i], distances[i] = top_k(near, chosen, k)
        return ids, distances

    def search_radius(
        self, queries: Any, radius: float, *, filter: Any = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Return everything at a distance <= radius, by the vectors."""
        exact = FlatIndex(self.dim, self.metric)
        exact._rows = self._rows
        return exact.search_radius(queries, radius, filter=filter)
