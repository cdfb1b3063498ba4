# SPDX-License-Identifier: Apache-2.0
"""What all transforms have in common, and several one after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from annx import _core
from annx._index import Progress
from annx._validate import as_queries, as_rows, check_progress, check_threads
from annx.io import Saved, register

__all__ = ["Chain", "Floats", "Transform", "native_step", "step"]

Floats = NDArray[np.float32]

TransformT = TypeVar("TransformT", bound="Transform")


@register("transform")
class Transform(Saved):
    """What all transforms have in common; not made directly."""

    _native_type = _core.Transform
    _native: Any

    @classmethod
    def _from_native(cls, native: Any) -> Transform:
        found: type[Transform] = Chain if len(native) > 1 else _KINDS[native.kind]
        result = found.__new__(found)
        result._native = native
        return result

    @property
    def input_dim(self) -> int:
        """Dimensions of the vectors that go in."""
        return int(self._native.input_dim)

    @property
    def query_dim(self) -> int:
        """Dimensions of the queries that go in: `input_dim`, but for `Bilinear`."""
        return int(self._native.query_dim)

    @property
    def dim(self) -> int:
        """Dimensions of what comes out."""
        return int(self._native.dim)

    def transform(
        self,
        vectors: Any,
        *,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> Floats:
        """Transform vectors.

        Parameters
        ----------
        vectors : array_like, shape (n, input_dim)
            Read where they lie, if they are C-contiguous float32.
        threads : int, optional
            All cores unless given. The result does not depend on it.
        progress : callable, optional
            Called with (vectors done, vectors) now and then. Ctrl-C stops the work.

        Returns
        -------
        ndarray of float32, shape (n, dim)

        Raises
        ------
        ValueError
            NaN or infinity, or a result whose squared length is beyond float32.
        """
        rows = as_rows(vectors, name="vectors", dim=self.input_dim, check=False)
        result: Floats = self._native.apply(
            rows, False, check_threads(threads), check_progress(progress)
        )
        return result

    def transform_queries(
        self,
        queries: Any,
        *,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> Floats:
        """Transform queries: as `transform`, but for steps that differ for queries.

        Parameters
        ----------
        queries : array_like, shape (n, query_dim) or (query_dim,)
        threads : int, optional
            One for a single query and all cores otherwise, unless given.
        progress : callable, optional
            As for `transform`.

        Returns
        -------
        ndarray of float32, shape (n, dim) or (dim,)
        """
        one: Floats | None = self._native.apply_one(queries)
        if one is not None:
            return one
        rows, single = as_queries(queries, dim=self._native.query_dim, check=False)
        result: Floats = self._native.apply(
            rows, True, check_threads(threads, rows.shape[0]), check_progress(progress)
        )
        return result[0] if single else result

    def __repr__(self) -> str:
        takes = f"{self.input_dim}"
        if self.query_dim != self.input_dim:
            takes += f" (queries {self.query_dim})"
        return f"{type(self).__name__}({takes} -> {self.dim})"


class Chain(Transform):
    """Several transforms, one after the other.

    Parameters
    ----------
    *parts : Transform
        At least one; each must take as many dimensions as the one before it gives.
        Chains among them are taken apart.

    Notes
    -----
    A few rows at a time go through all steps, so nothing the size of the batch is
    written but the result.

    Examples
    --------
    >>> import numpy as np
    >>> from annx.transforms import PCA, Chain, Normalise
    >>> vectors = np.random.default_rng(0).standard_normal((100, 8))
    >>> chain = Chain(PCA.fit(vectors, 4, whiten=True), Normalise(4))
    >>> chain, chain.transform(vectors).shape
    (Chain(PCA(8 -> 4), Normalise(4 -> 4)), (100, 4))
    """

    def __init__(self, *parts: Transform) -> None:
        for part in parts:
            if not isinstance(part, Transform):
                raise TypeError(
                    f"parts holds a {type(part).__name__}; all must be transforms"
                )
        self._native = _core.Transform.chain([part._native for part in parts])

    @property
    def parts(self) -> tuple[Transform, ...]:
        """The transforms, in order."""
        native = self._native
        return tuple(Transform._from_native(native.part(i)) for i in range(len(native)))

    def __repr__(self) -> str:
        return f"Chain({', '.join(repr(part) for part in self.parts)})"


_KINDS: dict[str, type[Transform]] = {}


def step(kind: str) -> Callable[[type[TransformT]], type[TransformT]]:
    """Class decorator: native steps of this kind are of this class."""

    def decorate(cls: type[TransformT]) -> type[TransformT]:
        _KINDS[kind] = cls
        return cls

    return decorate


def native_step(
    kind: str,
    input_dim: int,
    dim: int | None = None,
    query_input: int | None = None,
    **arrays: Any,
) -> Any:
    """Return a native transform of one step."""
    return _core.Transform(
        kind=kind,
        input=input_dim,
        dim=input_dim if dim is None else dim,
        query_input=input_dim if query_input is None else query_input,
        **arrays,
    )
