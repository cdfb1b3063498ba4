# SPDX-License-Identifier: Apache-2.0
"""All-pairs search in plain NumPy and float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from annx.reference.codec import KMeans
from annx.reference.flat import pairwise_distances
from annx.reference.random import Random
from annx.reference.topk import top_k

__all__ = ["knn_graph"]

CELL_SIZE = 256
SAMPLE = 400


def knn_graph(
    vectors: Any,
    k: int = 15,
    *,
    metric: str = "l2",
    dtype: str | None = None,
    recall: float = 0.95,
    exact: bool = False,
    seed: int = 0,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the k nearest other rows of each row: their numbers and distances, (n, k).

    Nearest first, ties by number, padded with -1 and +inf.

    Notes
    -----
    The twin of `annx.knn_graph` in what it computes: cells, a sample with its true
    neighbours, and visits to the cells whose mean is hardly farther than a vector's
    own. It differs in the cells themselves (one level of k-means instead of two, with
    other random numbers), so it finds other edges of the same share.

    With l2 and cosine the square of the distance to a cell's mean, less that to the own
    cell's, is the `detour` of a visit. An edge is found if both ends share a cell or if
    the shorter of the two detours between their cells is made; the sample's edges by
    their shorter detour therefore say how far vectors must go for a given recall.

    Examples
    --------
    >>> from annx.reference.knn import knn_graph
    >>> ids, distances = knn_graph([[0.0], [1.0], [3.0]], k=1)
    >>> ids.tolist(), distances.tolist()
    ([[1], [0], [1]], [[1.0], [1.0], [4.0]])
    """
    rows = np.asarray(vectors)
    n = rows.shape[0]
    squares = metric in ("l2", "cosine") and dtype != "bits"
    if exact or recall >= 1 or not squares or n < 1024 or k > n / 8:
        return _settle(rows, [np.arange(n)] * n, k, metric)
    x = rows.astype(np.float64)
    if metric == "cosine":
        length = np.linalg.norm(x, axis=1, keepdims=True)
        x = np.divide(x, length, out=np.zeros_like(x), where=length > 0)
    means = KMeans(max(1, n // CELL_SIZE), seed=seed).train(x.astype(np.float32))
    cell = means.assign(x.astype(np.float32))[0]
    centroids = np.asarray(means.centroids, np.float64)
    detour = pairwise_distances(x, centroids)
    detour -= detour[np.arange(n), cell][:, None]

    sample = np.unique(Random(seed).below(np.arange(SAMPLE), n)).astype(np.int64)
    truth, _ = _settle(rows, [np.arange(n)] * len(sample), k, metric, sample)
    start, end = np.repeat(sample, k), truth.ravel()
    needed = np.minimum(detour[start, cell[end]], detour[end, cell[start]])
    needed[cell[start] == cell[end]] = -np.inf
    reach = np.sort(needed)[int(np.ceil(recall * needed.size)) - 1]

    goes = detour <= max(reach, 0.0)  # a vector visits its own cell at least
    goes[np.arange(n), cell] = True
    met = [
        # Those of the cells that it visits, and those that visit its own.
        np.flatnonzero(goes[i, cell] | goes[:, cell[i]])
        for i in range(n)
    ]
    return _settle(rows, met, k, metric)


def _settle(
    rows: NDArray[Any],
    candidates: list[NDArray[Any]],
    k: int,
    metric: str,
    queries: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the k nearest of each query's candidates, itself left out."""
    if queries is None:
        queries = np.arange(len(rows))
    ids = np.full((len(queries), k), -1, np.int64)
    distances = np.full((len(queries), k), np.inf)
    for i, (query, near) in enumerate(zip(queries, candidates, strict=True)):
        others = near[near != query].astype(np.int64)
        if len(others) == 0:
            continue
        keys = pairwise_distances(rows[query : query + 1], rows[others], metric=metric)
        ids[i], distances[i] = top_k(keys[0], others, k)
    return ids, distances
