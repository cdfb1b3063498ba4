# SPDX-License-Identifier: Apache-2.0
"""zvec: the graphs of an in-process vector database, over floats or narrower codes."""

from __future__ import annotations

import shutil
import tempfile
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zvec

from bench.ann.adapter import Adapter, Array

_METRICS = {"l2": zvec.MetricType.L2, "ip": zvec.MetricType.IP}
_FIELD = "vector"
# An insertion takes 1,024 documents at most.
_BLOCK = 1024


class _Graph(Adapter):
    """A collection of one vector field, written, optimized and opened for reading.

    Only a collection that is open for reading alone has the search that returns row
    numbers, the fastest of its interface. What it answers becomes the documents' ids
    after the clock has stopped.
    """

    unit_rows = True

    def __init__(self, dim: int, metric: str, threads: int, **params: Any) -> None:
        super().__init__(dim, metric, threads, **params)
        zvec.init(
            log_level=zvec.LogLevel.ERROR, query_threads=1, optimize_threads=threads
        )

    @property
    def common(self) -> dict[str, Any]:
        """Options that both graphs have; the arena is what its own benchmarks use."""
        return {
            # Rows of length 1 are ordered alike by the Euclidean distance.
            "metric_type": _METRICS["l2" if self.metric == "cosine" else self.metric],
            "quantize_type": zvec.QuantizeType.__members__[self.params["codes"]],
            "use_contiguous_memory": True,
            "use_flat_contiguous_memory": self.params["codes"] != "UNDEFINED",
        }

    @abstractmethod
    def index_param(self) -> Any:
        """The graph's own options beside :attr:`common`."""

    @abstractmethod
    def query_param(self, ef: int, refine: bool) -> Any:
        """Options of one search; `refine` ranks again by the float32 rows."""

    def build(self, base: Array) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="annx-bench-zvec-"))
        path = str(self.folder / "rows")
        field = zvec.VectorSchema(
            _FIELD, zvec.DataType.VECTOR_FP32, self.dim, index_param=self.index_param()
        )
        written = zvec.create_and_open(
            path, zvec.CollectionSchema(name="bench", vectors=field)
        )
        for low in range(0, len(base), _BLOCK):
            block = enumerate(base[low : low + _BLOCK], low)
            done = written.insert(
                [zvec.Doc(id=str(i), vectors={_FIELD: row}) for i, row in block]
            )
            if not all(one.ok() for one in done):
                raise RuntimeError(f"rows from {low} on were not inserted")
        written.optimize(zvec.OptimizeOption(concurrency=self.threads))
        written.close()
        self.index = zvec.open(path, zvec.CollectionOption(read_only=True))

    def searcher(self, k: int, **params: Any) -> Callable[[Any], Any]:
        search = self.index.query_internal_ids
        param = self.query_param(max(k, params["ef"]), params.get("refine", False))
        query = zvec.Query
        return lambda row: search(query(_FIELD, vector=row, param=param), topk=k)

    def ids(self, found: Any) -> Array:
        names = self.index.resolve_internal_ids(found)
        return np.array([-1 if name is None else int(name) for name in names])

    def close(self) -> None:
        self.index.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Hnsw(_Graph):
    """HNSW; `m` is half of the bottom layer's degree."""

    def index_param(self) -> Any:
        return zvec.HnswIndexParam(
            m=self.params["m"],
            ef_construction=self.params["ef_construction"],
            **self.common,
        )

    def query_param(self, ef: int, refine: bool) -> Any:
        return zvec.HnswQueryParam(ef=ef, is_using_refiner=refine)


class Vamana(_Graph):
    """Vamana, built in two passes as it is by default."""

    def index_param(self) -> Any:
        return zvec.VamanaIndexParam(
            max_degree=self.params["degree"],
            search_list_size=self.params["list"],
            alpha=self.params["alpha"],
            **self.common,
        )

    def query_param(self, ef: int, refine: bool) -> Any:
        return zvec.VamanaQueryParam(ef_search=ef, is_using_refiner=refine)
