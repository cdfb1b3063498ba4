# SPDX-License-Identifier: Apache-2.0
"""What every index family has in common.

A family derives from `Index`, keeps its native object in ``_native`` and adds its own
constructor, ``search`` and whatever else it can do. The native object offers what
`_NativeIndex` lists.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from annx._validate import (
    as_ids,
    as_queries,
    as_rows,
    check_progress,
    check_radius,
    check_threads,
    from_stored,
    query_dtype,
    row_width,
    stored_dtype,
)
from annx.filters import IdSet
from annx.io import Saved
from annx.results import RadiusResult

__all__ = ["Index", "Progress", "ScannedIndex", "radius_by_search"]

Progress = Callable[[int, int], Any]
"""Called with (done, total) now and then; what it raises stops the work."""


class _NativeIndex(Protocol):
    dim: int
    metric: str
    dtype: str
    version: int

    def __len__(self) -> int: ...
    def contains(self, id: int) -> bool: ...
    def get(self, ids: NDArray[np.int64]) -> NDArray[np.uint8]: ...
    def ids(self) -> NDArray[np.int64]: ...
    def slot_set(self, ids: NDArray[np.int64]) -> Any: ...
    def memory(self) -> dict[str, int]: ...


class Index(Saved):
    """A set of vectors under ids, which can be searched.

    Safe to use from several threads: searches run side by side, changes wait for them.
    """

    _native: Any
    _facts: tuple[int, str, str] | None = None

    def _known(self) -> tuple[int, str, str]:
        """Return dim, metric and dtype; kept, because every search asks for them."""
        facts = self._facts
        if facts is None:
            native = self._native
            self._facts = facts = (native.dim, native.metric, native.dtype)
        return facts

    @property
    def dim(self) -> int:
        """Dimensions of a vector; bits, for ``dtype="bits"``."""
        return int(self._native.dim)

    @property
    def metric(self) -> str:
        """What distances are."""
        return str(self._native.metric)

    @property
    def dtype(self) -> str:
        """What goes in, and what `get` returns."""
        return str(self._native.dtype)

    @property
    def ids(self) -> NDArray[np.int64]:
        """All ids, in the order of storage: a copy, of shape (len(index),)."""
        ids: NDArray[np.int64] = self._native.ids()
        return ids

    def __len__(self) -> int:
        return len(self._native)

    def __contains__(self, id: object) -> bool:
        if isinstance(id, (bool, np.bool_)) or not isinstance(id, (int, np.integer)):
            return False
        return 0 <= int(id) < 1 << 63 and bool(self._native.contains(int(id)))

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(dim={self.dim}, metric={self.metric!r}, "
            f"dtype={self.dtype!r}, {len(self)} vectors)"
        )

    def get(self, ids: Any) -> NDArray[Any]:
        """Return vectors by id, as they went in, or as the index keeps them.

        Parameters
        ----------
        ids : int or array_like of int, shape (n,)

        Returns
        -------
        ndarray, shape (n, dim), or (dim,) for a single int
            Of the index's dtype. Bits come packed, (n, ceil(dim / 8)) bytes; bfloat16
            as ``ml_dtypes.bfloat16`` if that package is installed, else as float32.

        Raises
        ------
        KeyError
            An id is not in the index.
        """
        wanted = as_ids(ids)
        rows = self._native.get(wanted).view(stored_dtype(self.dtype))
        found = from_stored(
            rows.reshape(-1, row_width(self.dim, self.dtype)), self.dtype
        )
        return found[0] if np.ndim(ids) == 0 else found

    def id_set(self, chosen: Any) -> IdSet:
        """Return a set of ids to filter by.

        Parameters
        ----------
        chosen : array_like of bool, shape (len(index),), or of int, shape (n,)
            A mask in the order of `ids`, or ids.

        Raises
        ------
        ValueError
            The mask has another length.
        """
        array = np.asarray(chosen)
        if array.dtype.kind != "b":
            return IdSet(chosen)
        if array.ndim != 1 or array.shape[0] != len(self):
            raise ValueError(
                f"chosen has shape {array.shape}; a mask must have shape ({len(self)},)"
            )
        return IdSet(self.ids[array])

    def memory_usage(self) -> dict[str, int]:
        """Return the bytes of memory held, by purpose, with their sum as ``"total"``.

        What is mapped from a file is not counted.
        """
        parts = {name: int(size) for name, size in self._native.memory().items()}
        return {**parts, "total": sum(parts.values())}

    def stats(self) -> dict[str, Any]:
        """Return facts about the index, by name."""
        return {
            "family": type(self).__name__,
            "dim": self.dim,
            "metric": self.metric,
            "dtype": self.dtype,
            "count": len(self),
            "memory": self.memory_usage()["total"],
        }

    def _filter(self, filter: Any) -> Any:
        """Return the native form of a filter, or None."""
        if filter is None:
            return None
        if not isinstance(filter, IdSet):
            array = np.asarray(filter)
            if array.dtype.kind == "b":
                raise TypeError(
                    "filter is a boolean array; make it a set with index.id_set(mask), "
                    "which checks its length"
                )
            filter = IdSet(as_ids(filter, name="filter"))
        return filter._slots_of(self, self._native)


def radius_by_search(
    index: Any, queries: NDArray[Any], radius: float, ef: int | None, **options: Any
) -> RadiusResult:
    """Find what lies within a radius by searches for ever more neighbours.

    A query is done once its last neighbour lies outside, or there are no more; the
    others go on with four times as many.
    """
    n = queries.shape[0]
    ids: list[NDArray[np.int64]] = [np.zeros(0, np.int64)] * n
    distances: list[NDArray[np.float32]] = [np.zeros(0, np.float32)] * n
    left = np.arange(n)
    k = 32
    limit = np.float32(radius)
    while left.size:
        k = max(1, min(k, len(index)))
        width = max(2 * k, 64 if ef is None else ef)
        found = index.search(queries[left], k, ef=width, **options)
        inside = (found.distances <= limit) & (found.ids >= 0)
        whole = ~inside[:, -1] | (k >= len(index))
        for row in np.flatnonzero(whole):
            ids[left[row]] = found.ids[row, inside[row]]
            distances[left[row]] = found.distances[row, inside[row]]
        left = left[~whole]
        k *= 4
    offsets = np.zeros(n + 1, np.int64)
    np.cumsum([part.size for part in ids], out=offsets[1:])
    return RadiusResult(
        offsets,
        np.concatenate([*ids, np.zeros(0, np.int64)]),
        np.concatenate([*distances, np.zeros(0, np.float32)]),
    )


class ScannedIndex(Index):
    """An index whose searches scan vectors: they can go, change, and be counted.

    What a family by graph cannot do as easily.
    """

    def add(
        self,
        vectors: Any,
        ids: Any = None,
        *,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> NDArray[np.int64]:
        """Add vectors; all of them or, if it raises, none.

        Parameters
        ----------
        vectors : array_like, shape (n, dim)
            Many at once take less time than one at a time, and make a better index
            where a family learns from its first vectors.
        ids : array_like of int, shape (n,), optional
            Unique, >= 0 and not yet in the index. Otherwise ids go on from the highest
            ever used, beginning with 0.
        threads : int, optional
            All cores unless given. The index does not depend on it.
        progress : callable, optional
            Called with (done, total) of the step at work now and then. Whatever it
            raises, and Ctrl-C, stops the work and leaves the index as it was.

        Returns
        -------
        ndarray of int64, shape (n,)
            The ids.

        Raises
        ------
        NotTrainedError
            The family needs `train`, and it was not called.
        """
        rows = as_rows(
            vectors, name="vectors", dim=self.dim, dtype=self.dtype, check=False
        )
        return self._add(rows, ids, threads, progress)

    def remove(self, ids: Any) -> None:
        """Remove vectors; all of them or, if it raises, none.

        Parameters
        ----------
        ids : int or array_like of int, shape (n,)
            Unique.

        Raises
        ------
        KeyError
            An id is not in the index.
        """
        self._native.remove(as_ids(ids, unique=True))

    def _add(
        self,
        rows: NDArray[Any],
        ids: Any,
        threads: int | None,
        progress: Progress | None,
    ) -> NDArray[np.int64]:
        """Add rows in stored form; native code checks the values."""
        given = None if ids is None else as_ids(ids, count=rows.shape[0])
        added: NDArray[np.int64] = self._native.add(
            rows, given, check_threads(threads), check_progress(progress)
        )
        return added

    def upsert(self, vectors: Any, ids: Any) -> None:
        """Put vectors under ids, replacing those that are there.

        Parameters
        ----------
        vectors : array_like, shape (n, dim)
        ids : array_like of int, shape (n,)
            Unique, >= 0.
        """
        rows = as_rows(vectors, name="vectors", dim=self.dim, dtype=self.dtype)
        self._native.upsert(rows, as_ids(ids, count=rows.shape[0], unique=True))

    def search_radius(
        self,
        queries: Any,
        radius: float,
        *,
        filter: Any = None,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> RadiusResult:
        """Find everything within a radius.

        Parameters
        ----------
        queries : array_like, shape (n, dim) or (dim,)
        radius : float
            The largest distance that is returned: squared for ``"l2"``, the negated
            inner product for ``"ip"``. Compared as float32.
        filter : IdSet or array_like of int, optional
            Search only among these ids.
        threads : int, optional
            One for a single query and all cores otherwise, unless given. The result
            does not depend on it.
        progress : callable, optional
            Called with (queries done, queries) now and then.

        Returns
        -------
        RadiusResult
            Ragged: for each query nearest first, ties by id.

        Raises
        ------
        ValueError
            The index keeps codes alone and no vectors.
        """
        limit = check_radius(radius, self.metric)
        array, _ = as_queries(
            queries, dim=self.dim, dtype=query_dtype(self.dtype), check=False
        )
        found = self._native.search_radius(
            array,
            limit,
            self._filter(filter),
            check_threads(threads, array.shape[0]),
            check_progress(progress),
        )
        return RadiusResult(*found)
