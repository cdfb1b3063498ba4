# SPDX-License-Identifier: Apache-2.0
"""What a library must provide to take part, and the registry of those that do.

An algorithm is a folder of ``bench/ann`` with two files:

- ``module.py``: one :class:`Adapter` subclass per index kind;
- ``config.json``: the library's name, its module and distribution, where the grid comes
  from, and the *variants*: each names its class, the build parameters to try and the
  search parameters to sweep, from least to most effort.

and, once swept, a folder ``pareto`` with one small JSON a data set. Adding a library
means adding a folder; nothing else mentions it.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import importlib.util
import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Adapter", "Algorithm", "Variant", "algorithms", "load_algorithm"]

Array = np.ndarray[Any, Any]
Params = dict[str, Any]

HERE = Path(__file__).resolve().parent


class Adapter(ABC):
    """One index of one library, in its own process.

    ``unit_rows`` asks for base and queries of length 1 where the metric is cosine, for
    libraries whose documentation says to normalise and use the inner product. The
    normalisation is done before the clock starts, in their favour.

    Search options are bound before the clock starts too: :meth:`searcher` returns the
    cheapest callable that the library allows for one query, :meth:`batcher` one for all
    queries at once. What they return is turned into ids afterwards by :meth:`ids`.
    """

    unit_rows = False
    index: Any

    def __init__(self, dim: int, metric: str, threads: int, **params: Any) -> None:
        self.dim = dim
        self.metric = metric
        self.threads = threads
        self.params = params

    @abstractmethod
    def build(self, base: Array) -> None:
        """Index the rows of a float32 matrix; row numbers are the ids."""

    def split(self, queries: Array) -> Sequence[Any]:
        """Single queries in the form the library takes; rows by default."""
        return list(queries)

    @abstractmethod
    def searcher(self, k: int, **params: Any) -> Callable[[Any], Any]:
        """A function of one query (as :meth:`split` gives them)."""

    def batcher(self, k: int, **params: Any) -> Callable[[Array], Any] | None:
        """A function of the query matrix, or None if the library has no such call."""
        return None

    def ids(self, found: Any) -> Array:
        """Ids of one answer of a searcher or batcher, shape (k,) or (nq, k)."""
        return np.asarray(found)

    def close(self) -> None:  # noqa: B027 - most indexes leave nothing behind
        """Remove what the index left on disk."""


@dataclasses.dataclass(frozen=True)
class Variant:
    """One index kind of a library with its grid."""

    algorithm: str
    name: str
    class_name: str
    build: tuple[Params, ...]
    search: tuple[Params, ...]
    exact: bool = False
    quick: bool = False
    metrics: tuple[str, ...] = ("l2", "cosine", "ip")

    @property
    def label(self) -> str:
        """Name in tables and plots."""
        return self.name


@dataclasses.dataclass(frozen=True)
class Algorithm:
    """A library: where it is, whether it is installed, and its variants."""

    name: str
    module: str
    distribution: str
    install: str
    source: str
    variants: tuple[Variant, ...]
    subject: bool = False

    @property
    def folder(self) -> Path:
        return HERE / self.name

    def installed(self) -> bool:
        """Whether the library's module can be found (it is not imported here)."""
        return importlib.util.find_spec(self.module) is not None

    def version(self) -> str:
        """The installed distribution's version, or an empty string."""
        try:
            return importlib.metadata.version(self.distribution)
        except importlib.metadata.PackageNotFoundError:
            pass
        # A build in the source tree has no distribution.
        try:
            module = importlib.import_module(self.module)
        except Exception:
            # Whatever keeps it from loading is told where it is used, with the reason.
            return ""
        return str(getattr(module, "__version__", ""))

    def adapter(self, class_name: str) -> type[Adapter]:
        """The adapter class; importing it imports the library."""
        module = importlib.import_module(f"bench.ann.{self.name}.module")
        found = getattr(module, class_name)
        if not (isinstance(found, type) and issubclass(found, Adapter)):
            raise TypeError(f"{self.name}: {class_name} is not an Adapter")
        return found


def expand(grid: Any) -> tuple[Params, ...]:
    """All combinations of a grid: a dict of lists, or a list of such dicts.

    The last key varies fastest, so listing the effort last keeps it ascending.
    """
    grids = grid if isinstance(grid, list) else [grid]
    out: list[Params] = []
    for one in grids:
        lists = [v if isinstance(v, list) else [v] for v in one.values()]
        out += [
            dict(zip(one, values, strict=True)) for values in itertools.product(*lists)
        ]
    return tuple(out)


def load_algorithm(name: str) -> Algorithm:
    """Read one algorithm's configuration.

    Raises
    ------
    KeyError
        If there is no such folder.
    """
    path = HERE / name / "config.json"
    if not path.exists():
        raise KeyError(f"no algorithm {name!r}; there are {_names()}")
    config = json.loads(path.read_text(encoding="utf-8"))
    variants = tuple(
        Variant(
            algorithm=name,
            name=item["name"],
            class_name=item["class"],
            build=expand(item.get("build", {})),
            search=expand(item.get("search", {})),
            exact=item.get("exact", False),
            quick=item.get("quick", False),
            metrics=tuple(item.get("metrics", ("l2", "cosine", "ip"))),
        )
        for item in config["variants"]
    )
    return Algorithm(
        name=name,
        module=config["module"],
        distribution=config["distribution"],
        install=config["install"],
        source=config["source"],
        variants=variants,
        subject=config.get("subject", False),
    )


def algorithms() -> list[Algorithm]:
    """Every algorithm there is, annx first, the others by name."""
    found = [load_algorithm(name) for name in _names()]
    return sorted(found, key=lambda item: (not item.subject, item.name))


def _names() -> list[str]:
    return sorted(path.parent.name for path in HERE.glob("*/config.json"))
