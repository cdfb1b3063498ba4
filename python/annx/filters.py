# SPDX-License-Identifier: Apache-2.0
"""Sets of ids, to restrict a search to."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annx._validate import as_ids

__all__ = ["IdSet"]


class IdSet:
    """An immutable set of ids, for ``filter=``.

    Ids that an index does not hold match nothing there. The bitmap over an index's rows
    that a search needs is made at the first use and kept until the index changes, so a
    set that is used again costs nothing.

    Parameters
    ----------
    ids : array_like of int, shape (n,)
        Ids >= 0, in any order; repetitions count once.

    Examples
    --------
    >>> import annx
    >>> cheap, new = annx.IdSet([1, 2, 3]), annx.IdSet([3, 4])
    >>> (cheap & new).ids.tolist(), (cheap - new).ids.tolist()
    ([3], [1, 2])
    """

    __slots__ = ("_ids", "_index", "_slots")

    def __init__(self, ids: Any) -> None:
        self._ids: NDArray[np.int64] = np.unique(as_ids(ids))
        self._ids.flags.writeable = False
        self._index: weakref.ref[Any] | None = None
        self._slots: Any = None

    @property
    def ids(self) -> NDArray[np.int64]:
        """The ids, rising; read-only."""
        return self._ids

    def __len__(self) -> int:
        return int(self._ids.shape[0])

    def __iter__(self) -> Iterator[int]:
        return iter(self._ids.tolist())

    def __contains__(self, id: object) -> bool:
        if not isinstance(id, (int, np.integer)):
            return False
        at = int(np.searchsorted(self._ids, id))
        return at < len(self) and int(self._ids[at]) == id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IdSet) and np.array_equal(self._ids, other._ids)

    def __hash__(self) -> int:
        return hash(self._ids.tobytes())

    def __and__(self, other: IdSet) -> IdSet:
        return IdSet(np.intersect1d(self._ids, other._ids, assume_unique=True))

    def __or__(self, other: IdSet) -> IdSet:
        return IdSet(np.union1d(self._ids, other._ids))

    def __sub__(self, other: IdSet) -> IdSet:
        return IdSet(np.setdiff1d(self._ids, other._ids, assume_unique=True))

    def __reduce__(self) -> tuple[type[IdSet], tuple[NDArray[np.int64]]]:
        return IdSet, (self._ids,)

    def __repr__(self) -> str:
        return f"IdSet({len(self)} ids)"

    def _slots_of(self, owner: Any, native: Any) -> Any:
        """Return the native set of rows, made for the present state of the index."""
        held = self._index is not None and self._index() is owner
        if not held or self._slots.version != native.version:
            self._slots = native.slot_set(self._ids)
            self._index = weakref.ref(owner)
        return self._slots
