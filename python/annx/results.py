# SPDX-License-Identifier: Apache-2.0
"""What a search returns."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["KnnGraph", "RadiusResult", "SearchResult", "result_of"]


def scipy_module(name: str) -> Any:
    """Import a part of SciPy, or say how to install it."""
    try:
        return importlib.import_module(f"scipy.{name}")
    except ImportError as error:
        raise ImportError(
            "this needs SciPy, which is not installed: pip install annx[scipy]"
        ) from error


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


def result_of(
    ids: NDArray[np.int64], distances: NDArray[np.float32], metric: str, single: bool
) -> SearchResult:
    """Make a result of arrays (n, k); of their only row if the query was single."""
    if single:
        return SearchResult(ids[0], distances[0], metric)
    return SearchResult(ids, distances, metric)


@dataclass(frozen=True, eq=False, init=False)
class KnnGraph(SearchResult):
    """The nearest neighbours of every vector among the others.

    Unpacks into ``ids, distances``, as any `SearchResult`.

    Attributes
    ----------
    ids : ndarray of int64, shape (n, k)
    distances : ndarray of float32, shape (n, k)
    metric : str
    recall : float
        The share of the true edges that is there, as estimated from a sample; 1 where
        the graph is exact.
    """

    recall: float = 1.0

    def __init__(
        self,
        ids: NDArray[np.int64],
        distances: NDArray[np.float32],
        metric: str = "l2",
        recall: float = 1.0,
    ) -> None:
        super().__init__(ids, distances, metric)
        self.__dict__["recall"] = recall

    def to_csr(self) -> Any:
        """Return the graph as a SciPy matrix of distances.

        Returns
        -------
        scipy.sparse.csr_matrix of float32, shape (n, n)
            Row i holds the distances of i's neighbours, those of distance 0 too, in the
            order of `ids` (nearest first, not by column).

        Raises
        ------
        ImportError
            SciPy is not installed: ``pip install annx[scipy]``.

        Examples
        --------
        >>> import annx
        >>> annx.knn_graph([[0.0], [1.0], [3.0]], k=1).to_csr().toarray().tolist()
        [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 4.0, 0.0]]
        """
        sparse = scipy_module("sparse")
        n = self.ids.shape[0]
        held = self.ids >= 0
        offsets = np.concatenate([[0], np.cumsum(held.sum(axis=1))])
        return sparse.csr_matrix(
            (self.distances[held], self.ids[held], offsets), shape=(n, n)
        )


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
