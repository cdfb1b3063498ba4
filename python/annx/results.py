# SPDX-License-Identifier: Apache-2.0
"""What a search returns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["RadiusResult", "SearchResult"]


@dataclass(frozen=True, eq=False, init=False)
class SearchResult:
    """The nearest neighbours of one query or of several.

    Unpacks into ``ids, distances``.

    Attributes
    ----------
    ids : ndarray of int64, shape (n_queries, k) or (k,)
        Nearest first, ties by id; -1 where there are fewer than k.
    distances : ndarray of float32, the same shape
        Smaller is nearer; +inf where there are fewer than k.
    metric : str
        What the distances are.

    Examples
    --------
    >>> import numpy as np
    >>> from annx import SearchResult
    >>> found = SearchResult(np.array([[1, 0]]), np.float32([[1.0, 25.0]]), "l2")
    >>> ids, distances = found
    >>> ids.tolist(), distances.tolist(), found.scores.tolist()
    ([[1, 0]], [[1.0, 25.0]], [[-1.0, -25.0]])
    """

    ids: NDArray[np.int64]
    distances: NDArray[np.float32]
    metric: str = "l2"

    def __init__(
        self,
        ids: NDArray[np.int64],
        distances: NDArray[np.float32],
        metric: str = "l2",
    ) -> None:
        # A frozen dataclass sets its fields one by one through object.__setattr__,
        # which costs more than validating a query.
        self.__dict__.update(ids=ids, distances=distances, metric=metric)

    def __iter__(self) -> Iterator[Any]:
        return iter((self.ids, self.distances))

    @property
    def scores(self) -> NDArray[np.float32]:
        """Larger is better, -inf where there are fewer than k.

        The inner product for ``"ip"``; ``1 - distance`` for ``"cosine"`` (the cosine)
        and ``"jaccard"`` (the similarity); otherwise the negated distance.
        """
        if self.metric in ("cosine", "jaccard"):
            return 1 - self.distances
        return -self.distances


@dataclass(frozen=True, eq=False)
class RadiusResult:
    """Everything within a radius, ragged: query i owns ``offsets[i]:offsets[i + 1]``.

    Unpacks into ``offsets, ids, distances``. ``result[i]`` gives the ids and distances
    of query i as views.

    Attributes
    ----------
    offsets : ndarray of int64, shape (n_queries + 1,)
    ids : ndarray of int64, shape (offsets[-1],)
        For each query nearest first, ties by id.
    distances : ndarray of float32, the same shape
    """

    offsets: NDArray[np.int64]
    ids: NDArray[np.int64]
    distances: NDArray[np.float32]

    def __iter__(self) -> Iterator[Any]:
        yield self.offsets
        yield self.ids
        yield self.distances

    def __len__(self) -> int:
        """Return the number of queries."""
        return int(self.offsets.shape[0]) - 1

    def __getitem__(self, i: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the ids and distances of query `i`."""
        n = len(self)
        if not -n <= i < n:
            raise IndexError(f"query {i} of {n}")
        part = slice(int(self.offsets[i % n]), int(self.offsets[i % n + 1]))
        return self.ids[part], self.distances[part]

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many each query has."""
        return np.diff(self.offsets)
