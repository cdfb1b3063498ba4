# SPDX-License-Identifier: Apache-2.0
"""Ground truth and recall, both from distances computed in float64.

Distances follow annx's convention, smaller is nearer: squared Euclidean for ``l2``,
``1 - cos`` for ``cosine`` and the negated inner product for ``ip``.

A result counts as found when its true distance is at most ``d_k + eps * |d_k|``, where
``d_k`` is the distance of the k-th true neighbour: ids that tie with it are as good as
it is. ``eps`` is 1e-3 as in ann-benchmarks (here relative, and on the squared distance,
which is the stricter reading), and 1e-6 where a target of 0.999 or more is asked.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["EPSILON", "STRICT_EPSILON", "distances_to", "exact_neighbors", "recall"]

Array = np.ndarray[Any, Any]

EPSILON = 1e-3
STRICT_EPSILON = 1e-6

METRICS = ("l2", "cosine", "ip")


def _check_metric(metric: str) -> None:
    if metric not in METRICS:
        raise ValueError(f"metric is {metric!r}; it should be one of {METRICS}")


def distances_to(base: Array, queries: Array, ids: Array, metric: str) -> Array:
    """Float64 distances from each query to the base rows that ``ids`` names.

    Parameters
    ----------
    base : ndarray of shape (n, d)
    queries : ndarray of shape (nq, d)
    ids : int ndarray of shape (nq, k)
        Ids outside ``0 .. n - 1`` (padding) get an infinite distance.
    metric : {"l2", "cosine", "ip"}

    Returns
    -------
    ndarray of shape (nq, k), float64
    """
    _check_metric(metric)
    ids = np.asarray(ids, dtype=np.int64)
    good = (ids >= 0) & (ids < len(base))
    safe = np.where(good, ids, 0)
    out = np.empty(ids.shape, dtype=np.float64)
    # Blocks of queries bound the gathered copy to about 64 MB.
    step = max(1, (8 << 20) // max(1, ids.shape[1] * base.shape[1]))
    for start in range(0, len(ids), step):
        part = slice(start, start + step)
        rows = base[safe[part]].astype(np.float64)
        query = queries[part].astype(np.float64)[:, None, :]
        if metric == "l2":
            out[part] = np.square(rows - query).sum(axis=2)
            continue
        dots = (rows * query).sum(axis=2)
        if metric == "ip":
            out[part] = -dots
            continue
        norms = np.linalg.norm(rows, axis=2) * np.linalg.norm(query, axis=2)
        # The cosine distance to a zero vector is 1 by definition.
        out[part] = 1.0 - np.divide(
            dots, norms, out=np.zeros_like(dots), where=norms > 0
        )
    out[~good] = np.inf
    return out


def exact_neighbors(base: Array, queries: Array, metric: str, k: int = 100) -> Array:
    """Ids of the k exact nearest rows, ties by the lower id.

    A blocked float64 matrix product shortlists a few rows more than k, and the
    shortlist is settled by :func:`distances_to`, which does not lose digits to
    cancellation as ``|x|^2 - 2xy + |y|^2`` does.

    Parameters
    ----------
    base : ndarray of shape (n, d)
    queries : ndarray of shape (nq, d)
    metric : {"l2", "cosine", "ip"}
    k : int
        At most n are returned.

    Returns
    -------
    ndarray of shape (nq, min(k, n)), int64
        Nearest first.
    """
    _check_metric(metric)
    count = len(base)
    k = min(k, count)
    short = min(count, k + 20)
    # Centring keeps the products small where the data lie far from the origin; only
    # the Euclidean distance is indifferent to it.
    centre = base.mean(axis=0, dtype=np.float64) if metric == "l2" and count else 0.0
    result = np.empty((len(queries), k), dtype=np.int64)
    rows_per_block = max(1, (32 << 20) // max(1, base.shape[1]))
    for start in range(0, len(queries), 256):
        part = slice(start, min(start + 256, len(queries)))
        query = queries[part].astype(np.float64) - centre
        best_value = np.empty((len(query), 0))
        best_id = np.empty((len(query), 0), dtype=np.int64)
        for low in range(0, count, rows_per_block):
            rows = base[low : low + rows_per_block].astype(np.float64) - centre
            score = -(query @ rows.T)
            if metric == "l2":
                score *= 2.0
                score += np.square(rows).sum(axis=1)
            elif metric == "cosine":
                norms = np.linalg.norm(rows, axis=1)
                score /= np.where(norms > 0, norms, 1.0)
            ids = np.broadcast_to(
                np.arange(low, low + len(rows), dtype=np.int64), score.shape
            )
            value = np.concatenate([best_value, score], axis=1)
            ids = np.concatenate([best_id, ids], axis=1)
            if value.shape[1] > short:
                keep = np.argpartition(value, short - 1, axis=1)[:, :short]
                value = np.take_along_axis(value, keep, axis=1)
                ids = np.take_along_axis(ids, keep, axis=1)
            best_value, best_id = value, ids
        true = distances_to(base, queries[part], best_id, metric)
        order = np.lexsort((best_id, true), axis=1)[:, :k]
        result[part] = np.take_along_axis(best_id, order, axis=1)
    return result


def recall(found: Array, kth: Array, k: int, epsilon: float = EPSILON) -> float:
    """Mean share of the k answers that are as near as the k-th true neighbour.

    Parameters
    ----------
    found : ndarray of shape (nq, >= k)
        Float64 distances of the answers as :func:`distances_to` gives them; answers
        given twice must have been set to infinity (see :func:`mask_repeats`).
    kth : ndarray of shape (nq,)
        Distance of the k-th true neighbour.
    k : int
    epsilon : float
        Relative tolerance.

    Returns
    -------
    float between 0 and 1
    """
    bound = kth + epsilon * np.abs(kth)
    return float(np.mean(found[:, :k] <= bound[:, None])) if len(found) else 1.0


def mask_repeats(ids: Array) -> Array:
    """Set every id that a row holds a second time to -1, so it cannot count twice."""
    ids = np.array(ids, dtype=np.int64)
    order = np.argsort(ids, axis=1, kind="stable")
    ranked = np.take_along_axis(ids, order, axis=1)
    again = np.zeros(ids.shape, dtype=bool)
    again[:, 1:] = ranked[:, 1:] == ranked[:, :-1]
    rows, columns = np.nonzero(again)
    ids[rows, order[rows, columns]] = -1
    return ids
