# SPDX-License-Identifier: Apache-2.0
"""Transforms in plain NumPy and float64: what stands before an index."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annx.reference.flat import LEAST_SQUARE
from annx.reference.links import RandomRotation

__all__ = [
    "PCA",
    "Bilinear",
    "Centre",
    "Chain",
    "Linear",
    "Mask",
    "Normalise",
    "Rotation",
    "Transform",
    "TransformedIndex",
]

Floats = NDArray[np.float64]

# Deviations below this part of the vectors' root mean square length are rounding.
NOISE = 2.0**-23


class Transform(ABC):
    """Something done to the rows of a matrix; queries as vectors, unless it says so."""

    input_dim: int = 0
    query_dim: int = 0
    dim: int = 0

    def _dims(self, input_dim: int, dim: int, query_dim: int | None = None) -> None:
        self.input_dim = input_dim
        self.dim = dim
        self.query_dim = input_dim if query_dim is None else query_dim

    @abstractmethod
    def transform(self, vectors: Any) -> Floats:
        """Return vectors, (n, input_dim), as rows of `dim` elements."""

    def transform_queries(self, queries: Any) -> Floats:
        """Return queries, (n, query_dim) or (query_dim,), as rows of `dim` elements."""
        rows = np.asarray(queries, np.float64)
        single = rows.ndim == 1
        result = self.transform(np.atleast_2d(rows))
        return result[0] if single else result


class Centre(Transform):
    """``x - mean``."""

    mean: Floats = np.zeros(0)

    def __init__(self, mean: Any) -> None:
        self.mean = np.asarray(mean, np.float64)
        self._dims(self.mean.size, self.mean.size)

    @classmethod
    def fit(cls, vectors: Any) -> Centre:
        """About the mean of vectors."""
        return cls(np.mean(np.asarray(vectors, np.float64), axis=0))

    def transform(self, vectors: Any) -> Floats:
        """Return the differences."""
        result: Floats = np.asarray(vectors, np.float64) - self.mean
        return result


class PCA(Transform):
    """``scales * (components @ (x - mean))``.

    Examples
    --------
    >>> pca = PCA.fit([[0, 0], [4, 4], [2, 2]], dim=1)
    >>> pca.transform([[3, 3]]).round(3).tolist(), pca.variances.round(3).tolist()
    ([[1.414]], [5.333])
    """

    components: Floats = np.zeros((0, 0))
    mean: Floats = np.zeros(0)
    variances: Floats = np.zeros(0)
    scales: Floats = np.zeros(0)

    def __init__(
        self,
        components: Any,
        mean: Any = None,
        variances: Any = None,
        *,
        whiten: bool = False,
    ) -> None:
        self.components = np.asarray(components, np.float64)
        dim, input_dim = self.components.shape
        self.mean = np.zeros(input_dim) if mean is None else np.asarray(mean)
        self.variances = np.ones(dim) if variances is None else np.asarray(variances)
        self.scales = np.ones(dim)
        if whiten:
            with np.errstate(divide="ignore"):
                inverse = self.variances**-0.5
            self.scales = np.where(self.variances > 0, inverse, 0.0)
        self._dims(input_dim, dim)

    @classmethod
    def fit(cls, vectors: Any, dim: int | None = None, *, whiten: bool = False) -> PCA:
        """Find the strongest components by a singular value decomposition.

        (`annx.transforms.PCA` finds them as eigenvectors of the covariance.)
        """
        rows = np.asarray(vectors, np.float64)
        n = len(rows)
        mean = rows.mean(axis=0)
        _, lengths, axes = np.linalg.svd(rows - mean, full_matrices=True)
        deviations = np.zeros(rows.shape[1])
        deviations[: lengths.size] = lengths / np.sqrt(n)
        length = np.sqrt(np.square(rows).sum() / n)
        deviations[deviations <= NOISE * length] = 0
        largest = np.abs(axes).argmax(axis=1)
        axes = axes * np.sign(axes[np.arange(len(axes)), largest])[:, None]
        return cls(axes[:dim], mean, deviations[:dim] ** 2, whiten=whiten)

    def transform(self, vectors: Any) -> Floats:
        """Return the components of vectors."""
        rows = np.asarray(vectors, np.float64) - self.mean
        result: Floats = rows @ self.components.T * self.scales
        return result


class Rotation(Transform):
    """A random rotation by signs and Hadamard transforms."""

    seed: int = 0

    def __init__(self, dim: int, *, seed: int = 0) -> None:
        self.seed = seed
        self._rotation = RandomRotation(dim, seed)
        self._dims(dim, dim)

    def transform(self, vectors: Any) -> Floats:
        """Return the vectors rotated."""
        return self._rotation.apply(vectors)


class Normalise(Transform):
    """``x / |x|``; a vector that counts as zero becomes zero."""

    def __init__(self, dim: int) -> None:
        self._dims(dim, dim)

    def transform(self, vectors: Any) -> Floats:
        """Return the directions."""
        rows = np.asarray(vectors, np.float64)
        squares = np.square(rows).sum(axis=1, keepdims=True)
        zero = squares < LEAST_SQUARE
        result: Floats = np.where(zero, 0.0, rows / np.sqrt(np.where(zero, 1, squares)))
        return result


class Linear(Transform):
    """``matrix @ x``."""

    matrix: Floats = np.zeros((0, 0))

    def __init__(self, matrix: Any) -> None:
        self.matrix = np.asarray(matrix, np.float64)
        self._dims(self.matrix.shape[1], self.matrix.shape[0])

    def transform(self, vectors: Any) -> Floats:
        """Return the products."""
        result: Floats = np.asarray(vectors, np.float64) @ self.matrix.T
        return result


class Bilinear(Transform):
    """Queries become ``A^T q``; vectors stay.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> a, q = rng.standard_normal((3, 2)), rng.standard_normal((50, 3))
    >>> bool(np.allclose(Bilinear.fit(q, q @ a, ridge=0).matrix, a))
    True
    """

    matrix: Floats = np.zeros((0, 0))

    def __init__(self, matrix: Any) -> None:
        self.matrix = np.asarray(matrix, np.float64)
        query_dim, dim = self.matrix.shape
        self._dims(dim, dim, query_dim)

    @classmethod
    def fit(cls, queries: Any, positives: Any, *, ridge: float = 1e-3) -> Bilinear:
        """Ridge regression, as least squares with a row of zeros for each dimension.

        ``sum_i |A^T q_i - x_i|^2 + n ridge m |A|^2``, m the mean of all ``q_ij^2``.
        """
        left = np.asarray(queries, np.float64)
        right = np.asarray(positives, np.float64)
        dim = left.shape[1]
        weight = np.sqrt(ridge * np.square(left).sum() / dim)
        left = np.concatenate([left, weight * np.eye(dim)])
        right = np.concatenate([right, np.zeros((dim, right.shape[1]))])
        return cls(np.linalg.lstsq(left, right, rcond=NOISE)[0])

    def transform(self, vectors: Any) -> Floats:
        """Return vectors as they are."""
        return np.asarray(vectors, np.float64)

    def transform_queries(self, queries: Any) -> Floats:
        """Return the queries' products with the matrix."""
        result: Floats = np.asarray(queries, np.float64) @ self.matrix
        return result


class Mask(Transform):
    """Some of the dimensions."""

    kept: NDArray[np.int64] = np.zeros(0, np.int64)

    def __init__(self, dim: int, kept: Any) -> None:
        self.kept = np.arange(dim)[np.asarray(kept)]
        self._dims(dim, self.kept.size)

    def transform(self, vectors: Any) -> Floats:
        """Return the dimensions that are kept."""
        return np.asarray(vectors, np.float64)[:, self.kept]


class Chain(Transform):
    """Transforms one after the other."""

    parts: tuple[Transform, ...] = ()

    def __init__(self, *parts: Transform) -> None:
        self.parts = parts
        self._dims(parts[0].input_dim, parts[-1].dim, parts[0].query_dim)

    def transform(self, vectors: Any) -> Floats:
        """Return vectors after all parts."""
        rows = np.asarray(vectors, np.float64)
        for part in self.parts:
            rows = part.transform(rows)
        return rows

    def transform_queries(self, queries: Any) -> Floats:
        """Return queries after all parts."""
        rows = np.asarray(queries, np.float64)
        for part in self.parts:
            rows = part.transform_queries(rows)
        return rows


class TransformedIndex:
    """An index that gets transformed vectors and queries.

    Examples
    --------
    >>> from annx.reference.flat import FlatIndex
    >>> index = TransformedIndex(FlatIndex(1), Mask(2, [1]))
    >>> index.add([[5, 0], [0, 3]]).tolist()
    [0, 1]
    >>> index.search([[7, 2]], 1)[0].tolist()
    [[1]]
    """

    index: Any = None
    transform: Any = None
    dim: int = 0
    query_dim: int = 0
    metric: str = "l2"
    dtype: str = "float32"

    def __init__(self, index: Any, transform: Transform) -> None:
        self.index = index
        self.transform = transform
        self.dim = transform.input_dim
        self.query_dim = transform.query_dim
        self.metric = index.metric
        self.dtype = index.dtype

    def __len__(self) -> int:
        return len(self.index)

    def __contains__(self, id: int) -> bool:
        return id in self.index

    @property
    def ids(self) -> NDArray[np.int64]:
        """All ids."""
        ids: NDArray[np.int64] = self.index.ids
        return ids

    def id_set(self, chosen: Any) -> Any:
        """Return ids, or those that a mask chooses."""
        return self.index.id_set(chosen)

    def train(self, vectors: Any) -> TransformedIndex:
        """Train the index on transformed vectors."""
        self.index.train(self.transform.transform(vectors))
        return self

    def add(
        self, vectors: Any, ids: Any = None, *, queries: Any = None
    ) -> NDArray[np.int64]:
        """Add transformed vectors, and links for transformed queries; the ids."""
        options: dict[str, Any] = {}
        if queries is not None:
            options["queries"] = self.transform.transform_queries(queries)
        added: NDArray[np.int64] = self.index.add(
            self.transform.transform(vectors), ids, **options
        )
        return added

    def upsert(self, vectors: Any, ids: Any) -> None:
        """Put transformed vectors under ids."""
        self.index.upsert(self.transform.transform(vectors), ids)

    def remove(self, ids: Any) -> None:
        """Remove vectors."""
        self.index.remove(ids)

    def get(self, ids: Any) -> Any:
        """Return transformed vectors by id."""
        return self.index.get(ids)

    def search(self, queries: Any, k: int = 10, **options: Any) -> Any:
        """Search with transformed queries."""
        return self.index.search(
            self.transform.transform_queries(queries), k, **options
        )

    def search_radius(self, queries: Any, radius: float, **options: Any) -> Any:
        """Search with transformed queries."""
        rows = self.transform.transform_queries(queries)
        return self.index.search_radius(rows, radius, **options)

    def count_radius(self, queries: Any, radius: float, **options: Any) -> Any:
        """Count with transformed queries."""
        rows = self.transform.transform_queries(queries)
        return self.index.count_radius(rows, radius, **options)
