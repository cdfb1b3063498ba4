# SPDX-License-Identifier: Apache-2.0
"""An index of any family with a transform before it."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annx import _core
from annx._index import Index, Progress
from annx.errors import FormatError
from annx.graph import GraphIndex
from annx.io import class_of, encoded, register
from annx.results import RadiusResult, SearchResult
from annx.transforms import Transform

__all__ = ["TransformedIndex"]


@register("transformed")
class TransformedIndex(Index):
    """An index with a transform before it: vectors and queries go through both.

    Parameters
    ----------
    index : Index
        Of any family, over float32, float16 or bfloat16 vectors of ``transform.dim``
        dimensions; empty, or holding vectors that went through the same transform.
    transform : Transform
        One of `annx.transforms`, or a `annx.transforms.Chain` of them.

    Notes
    -----
    **Distances, radii and what `get` returns are of the transformed space**, under the
    metric of `index`: after a `Bilinear` and under ``"ip"`` they are ``- q^T A x``;
    after whitening they are no longer those of the original vectors.

    A batch is transformed into one new array (float32, `transform.dim` columns), which
    the index then reads where it lies. A single query costs the transform and about 2
    microseconds more. `save` writes one file that holds both.

    Examples
    --------
    >>> import numpy as np
    >>> import annx
    >>> vectors = np.random.default_rng(0).standard_normal((500, 32))
    >>> pca = annx.transforms.PCA.fit(vectors, 8)
    >>> index = annx.TransformedIndex(annx.GraphIndex(8), pca)
    >>> ids = index.add(vectors)
    >>> found = index.search(vectors[7], k=3)
    >>> int(found.ids[0]), float(found.distances[0])
    (7, 0.0)
    """

    def __init__(self, index: Index, transform: Transform) -> None:
        if not isinstance(index, Index):
            raise TypeError(f"index is of type {type(index).__name__}; it must be one")
        if isinstance(index, TransformedIndex):
            raise TypeError(
                "index has a transform already; put both into one with "
                "annx.transforms.Chain"
            )
        if not isinstance(transform, Transform):
            raise TypeError(
                f"transform is of type {type(transform).__name__}; it must be one of "
                "annx.transforms"
            )
        if index.dtype not in ("float32", "float16", "bfloat16"):
            raise ValueError(
                f"index is over {index.dtype}; what transforms give are floats"
            )
        if index.dim != transform.dim:
            raise ValueError(
                f"index has {index.dim} dimensions; the transform gives {transform.dim}"
            )
        self._index: Any = index
        self._native = index._native
        self._transform = transform

    @property
    def index(self) -> Index:
        """The index behind the transform, over transformed vectors."""
        index: Index = self._index
        return index

    @property
    def transform(self) -> Transform:
        """The transform."""
        return self._transform

    @property
    def dim(self) -> int:
        """Dimensions of a vector that goes in."""
        return self._transform.input_dim

    @property
    def query_dim(self) -> int:
        """Dimensions of a query."""
        return self._transform.query_dim

    def train(
        self,
        vectors: Any,
        *,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> TransformedIndex:
        """Train the index on vectors, (n, dim), where its family needs that.

        The transform stays as it is.
        """
        rows = self._transform.transform(vectors, threads=threads)
        self._index.train(rows, threads=threads, progress=progress)
        return self

    def add(
        self,
        vectors: Any,
        ids: Any = None,
        *,
        queries: Any = None,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> NDArray[np.int64]:
        """Add vectors, (n, dim), as the family's ``add``: all, or none if it raises.

        Parameters
        ----------
        vectors : array_like, shape (n, dim)
        ids : array_like of int, shape (n,), optional
        queries : array_like, shape (n_queries, query_dim), optional
            For a `GraphIndex`: a sample of the queries to come, as `search` takes them.
        threads : int, optional
        progress : callable, optional

        Returns
        -------
        ndarray of int64, shape (n,)
            The ids.

        Raises
        ------
        TypeError
            Where `queries` are given and the index is no `GraphIndex`.
        """
        options: dict[str, Any] = {}
        if queries is not None:
            if not isinstance(self._index, GraphIndex):
                raise TypeError(
                    "queries are what a GraphIndex makes links for; the index is a "
                    f"{type(self._index).__name__}"
                )
            options["queries"] = self._transform.transform_queries(
                queries, threads=threads
            )
        rows = self._transform.transform(vectors, threads=threads)
        added: NDArray[np.int64] = self._index.add(
            rows, ids, threads=threads, progress=progress, **options
        )
        return added

    def upsert(self, vectors: Any, ids: Any) -> None:
        """Put vectors under ids, where the family can."""
        self._index.upsert(self._transform.transform(vectors), ids)

    def remove(self, ids: Any) -> None:
        """Remove vectors, where the family can."""
        self._index.remove(ids)

    def get(self, ids: Any) -> NDArray[Any]:
        """Return transformed vectors by id, as the index keeps them."""
        rows: NDArray[Any] = self._index.get(ids)
        return rows

    def search(self, queries: Any, k: int = 10, **options: Any) -> SearchResult:
        """Find the k nearest vectors of each query.

        Parameters
        ----------
        queries : array_like, shape (n, query_dim) or (query_dim,)
        k : int, default 10
        **options
            Of the family's ``search``: ``filter``, ``threads``, ``ef``, ``n_probe``...

        Returns
        -------
        SearchResult
            Ids, and distances in the transformed space.
        """
        rows = self._queries(queries, options)
        found: SearchResult = self._index.search(rows, k, **options)
        return found

    def search_radius(
        self, queries: Any, radius: float, **options: Any
    ) -> RadiusResult:
        """Find what lies within a radius of each query, in the transformed space.

        Parameters
        ----------
        queries : array_like, shape (n, query_dim) or (query_dim,)
        radius : float
        **options
            Of the family's ``search_radius``.
        """
        rows = self._queries(queries, options)
        found: RadiusResult = self._index.search_radius(rows, radius, **options)
        return found

    def count_radius(
        self, queries: Any, radius: float, **options: Any
    ) -> NDArray[np.int64]:
        """Count what `search_radius` would find, where the family can."""
        rows = self._queries(queries, options)
        counts: NDArray[np.int64] = self._index.count_radius(rows, radius, **options)
        return counts

    def _queries(self, queries: Any, options: dict[str, Any]) -> NDArray[np.float32]:
        """Transform queries on as many threads as their search may take."""
        threads = options.get("threads")
        return self._transform.transform_queries(queries, threads=threads)

    def memory_usage(self) -> dict[str, int]:
        """Return the bytes of memory held, by purpose; ``"transform"`` is one."""
        held = int(self._transform._native.memory_bytes)
        parts: dict[str, int] = self._index.memory_usage()
        return {**parts, "transform": held, "total": parts["total"] + held}

    def stats(self) -> dict[str, Any]:
        """Return facts about the index, by name; ``"index"`` holds the family's."""
        return {
            **super().stats(),
            "transform": repr(self._transform),
            "index": self._index.stats(),
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the transform and the index to one file; as the save of any index."""
        self._native.save_transformed(encoded(path), self._transform._native)

    def __reduce__(self) -> tuple[type[TransformedIndex], tuple[Index, Transform]]:
        return type(self), (self._index, self._transform)

    @classmethod
    def _load(cls, path: bytes, mmap: bool, verify: bool) -> TransformedIndex:
        name = os.fsdecode(path)
        kind = _core.transformed_kind(path)
        family = class_of(kind, name)
        if not issubclass(family, Index) or issubclass(family, TransformedIndex):
            raise FormatError(f"{name}: meta: {kind!r} is no index")
        native, transform = family._native_type.load_transformed(path, mmap, verify)
        try:
            return cls(family._from_native(native), Transform._from_native(transform))
        except ValueError as error:
            raise FormatError(f"{name}: meta: {error}") from None
