# SPDX-License-Identifier: Apache-2.0
"""The choice of the k best, in plain NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["top_k"]


def top_k(
    keys: NDArray[np.float64], ids: NDArray[np.int64], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the k smallest keys and their ids, ordered by key and then by id.

    Parameters
    ----------
    keys : ndarray, shape (n,)
    ids : ndarray of int64, shape (n,)
    k : int

    Returns
    -------
    ids : ndarray of int64, shape (k,)
        Padded with -1 if n < k.
    keys : ndarray, shape (k,)
        Padded with +inf.

    Notes
    -----
    O(n log n); the native twin keeps a heap, O(n + m log k) for m entries that get in.

    Examples
    --------
    >>> import numpy as np
    >>> from annx.reference.topk import top_k
    >>> ids, keys = top_k(np.array([2.0, 1.0, 1.0]), np.array([7, 9, 8]), 2)
    >>> ids.tolist(), keys.tolist()
    ([8, 9], [1.0, 1.0])
    """
    order = np.lexsort((ids, keys))[:k]
    best_ids = np.full(k, -1, np.int64)
    best_keys = np.full(k, np.inf)
    best_ids[: order.shape[0]] = ids[order]
    best_keys[: order.shape[0]] = keys[order]
    return best_ids, best_keys
