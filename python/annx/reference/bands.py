# SPDX-License-Identifier: Apache-2.0
"""Bands of ranks and groups under a radius, in plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from annx.reference.flat import pairwise_distances

__all__ = ["connected_components", "search_band"]


def search_band(
    index: Any,
    queries: Any,
    start: int,
    stop: int,
    *,
    exclude: Any = None,
    **options: Any,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the neighbours of ranks `start` to `stop` - 1 that are not excluded.

    `exclude` has a list of ids for each query. Padded with -1 and +inf.

    Examples
    --------
    >>> from annx.reference import FlatIndex, search_band
    >>> index = FlatIndex.build([[0.0], [1.0], [2.0], [4.0]])
    >>> search_band(index, [[0.0]], 1, 3, exclude=[[0]])[0].tolist()
    [[2, 3]]
    """
    n = len(queries)
    every, far = index.search(queries, len(index), **options)
    ids = np.full((n, stop - start), -1, np.int64)
    distances = np.full((n, stop - start), np.inf)
    for i in range(n):
        kept = every[i] >= 0
        if exclude is not None:
            kept &= ~np.isin(every[i], exclude[i])
        band = np.flatnonzero(kept)[start:stop]
        ids[i, : len(band)] = every[i, band]
        distances[i, : len(band)] = far[i, band]
    return ids, distances


def connected_components(
    vectors: Any, radius: float, *, metric: str = "l2", dtype: str | None = None
) -> NDArray[np.int64]:
    """Return the number of each row's component under the radius.

    Examples
    --------
    >>> from annx.reference import connected_components
    >>> connected_components([[0.0], [5.0], [0.5], [1.0]], 0.25).tolist()
    [0, 1, 0, 0]
    """
    del dtype
    near = pairwise_distances(vectors, vectors, metric=metric) <= radius
    labels = np.full(len(near), -1, np.int64)
    for first in range(len(near)):
        if labels[first] >= 0:
            continue
        labels[first] = labels.max() + 1
        reached = [first]
        while reached:
            step = np.flatnonzero(near[reached.pop()] & (labels < 0))
            labels[step] = labels[first]
            reached.extend(step.tolist())
    return labels
