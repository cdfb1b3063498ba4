# SPDX-License-Identifier: Apache-2.0
"""Exact search in plain NumPy and float64: the truth that all else is held to."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from annx.reference.topk import top_k

__all__ = ["FlatIndex", "exact_search", "pairwise_distances"]

# A float32 vector whose squared norm is below this counts as zero.
LEAST_SQUARE = float(np.finfo(np.float32).tiny)


def pairwise_distances(
    a: Any, b: Any, *, metric: str = "l2", dtype: str | None = None
) -> NDArray[np.float64]:
    """Return the distances of all pairs of rows, in float64.

    Parameters
    ----------
    a : array_like, shape (n, dim)
    b : array_like, shape (m, dim)
        Numbers; booleans, one a bit, for hamming and jaccard.
    metric : str
        With q a row of `a` and x one of `b`:

        ========= ============================================================
        l2        sum (q - x)^2
        ip        - sum q x
        cosine    |q / |q| - x / |x||^2 / 2 = 1 - cos; 1 where either is zero
        l1        sum abs(q - x)
        poincare  2 arsinh(|q - x| / sqrt((1 - |q|^2) (1 - |x|^2)))
        hamming   the number of bits that differ
        jaccard   1 - bits in both / bits in either; 0 where neither has any
        ========= ============================================================
    dtype : str, optional
        Of no effect: everything is float64.

    Returns
    -------
    ndarray of float64, shape (n, m)

    Notes
    -----
    O(n m dim) time, O(m dim) memory beside the result. Cosine by the difference of
    directions does not cancel as ``1 - cos`` does (Kahan's advice on angles, 2006).

    Examples
    --------
    >>> from annx.reference.flat import pairwise_distances
    >>> pairwise_distances([[0, 0], [1, 1]], [[3, 4]]).tolist()
    [[25.0], [13.0]]
    """
    del dtype
    left = np.asarray(a).astype(np.float64)
    right = np.asarray(b).astype(np.float64)
    result = np.empty((left.shape[0], right.shape[0]))
    if metric == "cosine":
        left, left_zero = _directions(left)
        right, right_zero = _directions(right)
    for i, q in enumerate(left):
        if metric == "l2":
            result[i] = np.square(q - right).sum(axis=1)
        elif metric == "ip":
            result[i] = -(right * q).sum(axis=1)
        elif metric == "cosine":
            result[i] = np.square(q - right).sum(axis=1) / 2
            result[i, right_zero | left_zero[i]] = 1.0
        elif metric == "poincare":
            gaps = (1 - np.square(q).sum()) * (1 - np.square(right).sum(axis=1))
            square = np.square(q - right).sum(axis=1)
            result[i] = 2 * np.arcsinh(np.sqrt(square / gaps))
        elif metric in ("l1", "hamming"):
            result[i] = np.abs(q - right).sum(axis=1)
        elif metric == "jaccard":
            both = np.minimum(q, right).sum(axis=1)
            either = np.maximum(q, right).sum(axis=1)
            result[i] = np.where(either > 0, 1 - both / np.maximum(either, 1), 0.0)
        else:
            raise ValueError(f"metric is {metric!r}")
    return result


def exact_search(
    queries: Any,
    vectors: Any,
    k: int = 10,
    *,
    metric: str = "l2",
    dtype: str | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the k nearest rows of each query: their numbers and distances, (n, k).

    Nearest first, ties by number, padded with -1 and +inf. Arguments as for
    `pairwise_distances`.

    Examples
    --------
    >>> from annx.reference.flat import exact_search
    >>> ids, distances = exact_search([[0, 0]], [[3, 4], [1, 0]], 3)
    >>> ids.tolist(), distances.tolist()
    ([[1, 0, -1]], [[1.0, 25.0, inf]])
    """
    del dtype
    distances = pairwise_distances(queries, vectors, metric=metric)
    return _best(distances, np.arange(distances.shape[1]), k)


class FlatIndex:
    """A dictionary of vectors with exact search.

    The twin of `annx.FlatIndex`: the same names and rules, without checks of bad input.

    Examples
    --------
    >>> from annx.reference.flat import FlatIndex
    >>> index = FlatIndex(2)
    >>> index.add([[0, 0], [3, 4]]).tolist()
    [0, 1]
    >>> index.remove([0])
    >>> index.add([[1, 1]]).tolist(), index.search([[0, 0]], 2)[0].tolist()
    ([2], [[2, 1]])
    """

    dim: int = 0
    metric: str = "l2"
    dtype: str = "float32"

    def __init__(
        self, dim: int, metric: str = "l2", dtype: str = "float32", *, seed: int = 0
    ) -> None:
        del seed  # nothing here is random
        self.dim = dim
        self.metric = metric
        self.dtype = dtype
        self._rows: dict[int, NDArray[Any]] = {}
        self._next_id = 0

    @classmethod
    def build(
        cls,
        vectors: Any,
        metric: str = "l2",
        dtype: str | None = None,
        *,
        ids: Any = None,
    ) -> FlatIndex:
        """Make an index of vectors, (n, dim)."""
        index = cls(np.shape(vectors)[1], metric, dtype or "float32")
        index.add(vectors, ids)
        return index

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, id: int) -> bool:
        return id in self._rows

    @property
    def ids(self) -> NDArray[np.int64]:
        """All ids, in the order in which they came."""
        return np.array(list(self._rows), np.int64)

    def add(self, vectors: Any, ids: Any = None) -> NDArray[np.int64]:
        """Add vectors under new ids, which it returns."""
        rows = np.asarray(vectors)
        if ids is None:
            ids = np.arange(self._next_id, self._next_id + len(rows))
        self.upsert(rows, ids)
        return np.asarray(ids, np.int64)

    def upsert(self, vectors: Any, ids: Any) -> None:
        """Put vectors under ids, replacing those that are there."""
        for id, row in zip(np.asarray(ids).tolist(), np.asarray(vectors), strict=True):
            self._rows[id] = row
            self._next_id = max(self._next_id, id + 1)

    def remove(self, ids: Any) -> None:
        """Remove ids that are there."""
        for id in np.asarray(ids).tolist():
            del self._rows[id]

    def get(self, ids: Any) -> NDArray[Any]:
        """Return vectors by id, (n, dim)."""
        return np.array([self._rows[id] for id in np.asarray(ids).tolist()])

    def id_set(self, chosen: Any) -> NDArray[np.int64]:
        """Return the ids that a mask chooses, or the ids given."""
        array = np.asarray(chosen)
        return self.ids[array] if array.dtype.kind == "b" else np.unique(array)

    def search(
        self,
        queries: Any,
        k: int = 10,
        *,
        filter: Any = None,
        recall: float | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the k nearest among `filter`'s ids, or all: ids and distances."""
        del recall  # always 1
        chosen = self._chosen(filter)
        rows = self.get(chosen) if len(chosen) else np.zeros((0, self.dim))
        return _best(pairwise_distances(queries, rows, metric=self.metric), chosen, k)

    def search_radius(
        self, queries: Any, radius: float, *, filter: Any = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Return everything at a distance <= radius: offsets, ids, distances."""
        ids, distances = self.search(queries, len(self) + 1, filter=filter)
        inside = distances <= radius
        offsets = np.concatenate([[0], np.cumsum(inside.sum(axis=1))])
        return offsets.astype(np.int64), ids[inside], distances[inside]

    def count_radius(
        self, queries: Any, radius: float, *, filter: Any = None
    ) -> NDArray[np.int64]:
        """Return how many lie at a distance <= radius of each query."""
        return np.diff(self.search_radius(queries, radius, filter=filter)[0])

    def _chosen(self, filter: Any) -> NDArray[np.int64]:
        wanted = None if filter is None else set(np.asarray(filter).tolist())
        kept = [id for id in self._rows if wanted is None or id in wanted]
        return np.array(kept, np.int64)


def _best(
    distances: NDArray[np.float64], ids: NDArray[np.int64], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the k nearest of each row."""
    best = [top_k(row, ids, k) for row in distances]
    return (
        np.array([b[0] for b in best], np.int64).reshape(-1, k),
        np.array([b[1] for b in best], np.float64).reshape(-1, k),
    )


def _directions(x: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """Return rows of length 1, and which rows are zero."""
    square = np.square(x).sum(axis=1)
    zero = square < LEAST_SQUARE
    return x / np.sqrt(np.where(zero, 1.0, square))[:, None], zero
