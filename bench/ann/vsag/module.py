# SPDX-License-Identifier: Apache-2.0
"""VSAG's HGraph: a graph over scalar-quantized codes, re-ordered by float32 or not."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pyvsag

from bench.ann.adapter import Adapter, Array


class HGraph(Adapter):
    """Options go in as JSON text, at building and with each search."""

    unit_rows = True

    def build(self, base: Array) -> None:
        pyvsag.set_logger_off()
        code = self.params["codes"]
        parameters = {
            "dtype": "float32",
            # Rows of length 1 are ordered alike by the Euclidean distance.
            "metric_type": "l2" if self.metric == "cosine" else self.metric,
            "dim": self.dim,
            "index_param": {
                "base_quantization_type": code,
                "use_reorder": self.params.get("reorder", code != "fp32"),
                "precise_quantization_type": "fp32",
                "max_degree": self.params["degree"],
                "ef_construction": self.params["ef_construction"],
                "build_thread_count": self.threads,
                "hgraph_init_capacity": len(base),
            },
        }
        self.index = pyvsag.Index("hgraph", json.dumps(parameters))
        self.index.build(
            vectors=base.reshape(-1),
            ids=np.arange(len(base), dtype=np.int64),
            num_elements=len(base),
            dim=self.dim,
        )

    def searcher(self, k: int, **params: Any) -> Callable[[Any], Any]:
        search = self.index.knn_search
        options = json.dumps({"hgraph": {"ef_search": max(k, params["ef"])}})
        return lambda query: search(query, k, options)[0]
