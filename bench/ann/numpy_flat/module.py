# SPDX-License-Identifier: Apache-2.0
"""Brute force in NumPy: the smallest adapter there can be, and the one tests use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bench.ann.adapter import Adapter, Array


class Flat(Adapter):
    """Exact search by one matrix product; ``share`` < 1 looks at that part only.

    The share makes an approximate method of it with a recall that can be foretold,
    which is what the tests of the protocol need.
    """

    unit_rows = True

    def build(self, base: Array) -> None:
        self.base = base.copy()
        self.norms = np.square(self.base).sum(axis=1)

    def searcher(self, k: int, **params: Any) -> Callable[[Any], Any]:
        search = self._search
        share = params.get("share", 1.0)
        return lambda query: search(query[None, :], k, share)[0]

    def batcher(self, k: int, **params: Any) -> Callable[[Array], Any]:
        share = params.get("share", 1.0)
        return lambda queries: self._search(queries, k, share)

    def _search(self, queries: Array, k: int, share: float) -> Array:
        rows = max(k, round(share * len(self.base)))
        score = -(queries @ self.base[:rows].T)
        if self.metric == "l2":
            score *= 2
            score += self.norms[:rows]
        k = min(k, rows)
        near = np.argpartition(score, k - 1, axis=1)[:, :k]
        order = np.argsort(np.take_along_axis(score, near, axis=1), axis=1)
        return np.take_along_axis(near, order, axis=1)
