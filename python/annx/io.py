# SPDX-License-Identifier: Apache-2.0
"""Loading any saved object, and what a class needs to be saved and pickled.

A class takes part by two lines: ``@register("kind")`` before it, and ``Saved`` among
its bases. Files hold no pickle and no code; a pickle holds the bytes of a file.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, TypeVar

from annx import _core
from annx.errors import FormatError

__all__ = ["Saved", "class_of", "encoded", "load", "register", "registered"]

_KINDS: dict[str, type[Saved]] = {}

SavedT = TypeVar("SavedT", bound="Saved")


class _Native(Protocol):
    """What ``bind_persistence`` gives to a native class."""

    def save(self, path: bytes) -> None: ...
    def to_bytes(self) -> bytes: ...
    @staticmethod
    def load(path: bytes, mmap: bool, verify: bool) -> Any: ...
    @staticmethod
    def from_bytes(data: bytes) -> Any: ...


class Saved:
    """Mixin: `save` and pickling through a native object.

    A class sets ``_native_type`` and keeps its native object in ``_native``. Where it
    keeps anything else, it overrides ``_from_native``, which makes an object around a
    native one that was read.
    """

    _native_type: ClassVar[Any]
    _native: Any

    @classmethod
    def _from_native(cls: type[SavedT], native: Any) -> SavedT:
        result = cls.__new__(cls)
        result._native = native
        return result

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one file.

        The file appears whole or not at all: a crash at any moment leaves the old file
        or the new one, and other processes that have the old one loaded or mapped keep
        it.

        Parameters
        ----------
        path : str or os.PathLike
            Where to. An existing file is replaced; its permissions are kept.

        Raises
        ------
        OSError
            The file cannot be written (no such folder, no permission, disk full). What
            was there before is untouched.
        """
        native: _Native = self._native
        native.save(encoded(path))

    @classmethod
    def _load(cls: type[SavedT], path: bytes, mmap: bool, verify: bool) -> SavedT:
        return cls._from_native(cls._native_type.load(path, mmap, verify))

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _restore, (type(self), self._native.to_bytes())


def _restore(cls: type[SavedT], data: bytes) -> SavedT:
    return cls._from_native(cls._native_type.from_bytes(data))


def register(kind: str) -> Callable[[type[SavedT]], type[SavedT]]:
    """Class decorator: files of this kind are loaded as this class."""

    def decorate(cls: type[SavedT]) -> type[SavedT]:
        if kind in _KINDS:
            raise ValueError(f"kind {kind!r} is already {_KINDS[kind].__name__}")
        _KINDS[kind] = cls
        return cls

    return decorate


def registered() -> tuple[str, ...]:
    """Return the kinds that `load` knows."""
    return tuple(sorted(_KINDS))


def load(
    path: str | os.PathLike[str], *, mmap: bool = False, verify: str = "full"
) -> Any:
    """Load an object that was saved by annx, of whatever class.

    Parameters
    ----------
    path : str or os.PathLike
        The file.
    mmap : bool, default False
        Map the file instead of reading it: pages come into memory as they are touched
        and are shared between processes, and the first change copies what it changes.
        The file may be replaced meanwhile (as `save` does), but not be overwritten in
        place.
    verify : {"full", "structure"}, default "full"
        "full" compares the checksum of every section, which reads the whole file (about
        10 GB/s from memory). "structure" checks all but the contents of the big
        sections: what is damaged there gives wrong answers, but never a crash.

    Returns
    -------
    object
        A `FlatIndex`, `GraphIndex`, `KMeans` and so on, ready for use.

    Raises
    ------
    FormatError
        The file is damaged, truncated, not of annx, or of a newer format version; the
        message names the file and the section.
    FileNotFoundError, PermissionError, OSError
        The file cannot be read.

    Notes
    -----
    Format version 1; files of every version remain readable. Loading takes one pass
    over the file, O(bytes), and mapping with ``verify="structure"`` O(1).
    """
    if verify not in ("full", "structure"):
        raise ValueError(f"verify is {verify!r}; it must be 'full' or 'structure'")
    name = encoded(path)
    cls = class_of(_core.file_kind(name), os.fspath(path))
    return cls._load(name, bool(mmap), verify == "full")


def class_of(kind: str, path: str) -> type[Saved]:
    """Return the class that is registered for a kind; `path` is where it was read."""
    if kind not in _KINDS:
        known = ", ".join(registered())
        raise FormatError(
            f"{path}: header: holds a {kind!r}, which this annx does not "
            f"know (it knows {known})"
        )
    return _KINDS[kind]


def encoded(path: str | os.PathLike[str]) -> bytes:
    """Return the path in the file system's encoding (UTF-8 on Windows)."""
    name = os.fsencode(path)
    if b"\0" in name:
        raise ValueError("path contains a null byte; it must not")
    return name
