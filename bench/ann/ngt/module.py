# SPDX-License-Identifier: Apache-2.0
"""NGT: an ANNG whose degrees are adjusted to an ONNG, as its documentation advises.

NGT-QG, its quantized graph, is made by the command ``qbg``, which the wheel lacks.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ngtpy
import numpy as np

from bench.ann.adapter import Adapter, Array

_DISTANCES = {"l2": "L2", "cosine": "Normalized Cosine", "ip": "Inner Product"}


class Onng(Adapter):
    """The index lives in a temporary folder, as the library demands."""

    unit_rows = True

    def build(self, base: Array) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="annx-bench-ngt-"))
        anng, onng = str(self.folder / "anng"), str(self.folder / "onng")
        ngtpy.create(
            anng,
            self.dim,
            edge_size_for_creation=self.params["edges"],
            distance_type=_DISTANCES[self.metric],
        )
        index = ngtpy.Index(anng, log_disabled=True)
        index.batch_insert(base, num_threads=self.threads)
        index.save()
        index.close()
        del index
        optimizer = ngtpy.Optimizer(
            num_of_outgoings=self.params["outgoing"],
            num_of_incomings=self.params["incoming"],
            log_disabled=True,
        )
        # The shortcut reduction is what makes the ONNG. The search coefficients only
        # serve callers who give no epsilon, and tuning the prefetch takes 100 s of
        # processor time on 5,000 rows already.
        optimizer.set_processing_modes(
            shortcut_reduction=True,
            search_parameter_optimization=False,
            prefetch_parameter_optimization=False,
            accuracy_table_generation=False,
        )
        optimizer.execute(anng, onng)
        self.index = ngtpy.Index(onng, read_only=True, log_disabled=True)

    def searcher(self, k: int, **params: Any) -> Callable[[Any], Any]:
        search, epsilon = self.index.search, params["epsilon"]
        edges = params["edges"]
        return lambda query: search(query, k, epsilon, edges, -1.0, False)

    def ids(self, found: Any) -> Array:
        return np.asarray(found, dtype=np.int64)

    def close(self) -> None:
        self.index.close()
        shutil.rmtree(self.folder, ignore_errors=True)
