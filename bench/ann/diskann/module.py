# SPDX-License-Identifier: Apache-2.0
"""DiskANN's in-memory Vamana index, from the wheel diskannpy-rust."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diskannpy
import numpy as np

from bench.ann.adapter import Adapter, Array


class Vamana(Adapter):
    """Built through files in a temporary folder, as the library demands."""

    unit_rows = True

    def build(self, base: Array) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="annx-bench-diskann-"))
        # Rows of length 1 are ordered alike by the Euclidean distance.
        metric = "innerproduct" if self.metric == "ip" else "l2"
        common = {
            "index_directory": str(self.folder),
            "num_threads": self.threads,
            "graph_slack_factor": 1.3,
            "alpha": self.params["alpha"],
        }
        diskannpy.build_async_index(
            data=base,
            distance_metric=metric,
            complexity=self.params["complexity"],
            graph_degree=self.params["degree"],
            num_start_pts=1,
            max_fp_vecs_per_prune=0,
            num_tasks=self.threads,
            pq_seed=0,
            insert_minibatch_size=1,
            **common,
        )
        self.index = diskannpy.AsyncDiskIndex(
            r=self.params["degree"], l=self.params["complexity"], **common
        )

    def searcher(self, k: int, **params: Any) -> Callable[[Any], Any]:
        search, width = self.index.search, max(k, params["l"])
        return lambda query: search(query, k, width)

    def batcher(self, k: int, **params: Any) -> Callable[[Array], Any]:
        search, width = self.index.batch_search, max(k, params["l"])
        threads = self.threads
        return lambda queries: search(queries, k, width, threads)

    def ids(self, found: Any) -> Array:
        return np.asarray(found.identifiers)

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
