# SPDX-License-Identifier: Apache-2.0
"""The process in which one index is built and measured.

It reads one JSON object a line from standard input and answers each with one line. The
libraries' own chatter is kept out of the way: their standard output becomes standard
error, and the answers go through a private copy of the original one.

Requests
--------
``{"do": "build", "algorithm", "class", "params", "metric", "threads", "base",
"queries"}``
    Builds; answers wall and processor seconds and memory (see :func:`_build`).
``{"do": "measure", "search", "mode", "k", "warm_up", "min_seconds", "ids"}``
    Runs all queries; answers seconds and latencies, and writes the ids to a file.
``{"do": "quit"}``

Every answer has ``"ok"``; a failed one has ``"error"`` and ``"trace"`` instead.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
import traceback
from typing import Any, TextIO

import numpy as np

from bench.ann import memory
from bench.ann.adapter import Adapter, load_algorithm

Array = np.ndarray[Any, Any]
Message = dict[str, Any]

MAX_PASSES = 50


class Worker:
    """State of one worker process: at most one index and its queries."""

    def __init__(self) -> None:
        self.adapter: Adapter | None = None
        self.queries: Array | None = None

    def answer(self, message: Message) -> Message:
        """Carry out one request."""
        if message["do"] == "build":
            return self._build(message)
        if message["do"] == "measure":
            return self._measure(message)
        raise ValueError(f"unknown request {message['do']!r}")

    def _build(self, message: Message) -> Message:
        algorithm = load_algorithm(message["algorithm"])
        kind = algorithm.adapter(message["class"])
        metric = message["metric"]
        dim = int(np.load(message["base"], mmap_mode="r").shape[1])
        # Made before the baseline: what it compiles or sets up is not the index.
        adapter = kind(dim, metric, message["threads"], **message.get("params", {}))
        memory.settle()
        held_before = memory.held()
        base = np.load(message["base"], allow_pickle=False)
        queries = np.load(message["queries"], allow_pickle=False)
        if metric == "cosine" and kind.unit_rows:
            _normalise(base)
            _normalise(queries)
        reset = memory.reset_peak()
        resident_before = memory.resident()
        processor = time.process_time()
        wall = time.perf_counter()
        adapter.build(base)
        wall = time.perf_counter() - wall
        processor = time.process_time() - processor
        top = memory.peak() if reset else None
        # The input goes: what a library keeps of it counts as its index.
        query_bytes = queries.nbytes
        del base
        memory.settle()
        held_after = memory.held()
        self.adapter, self.queries = adapter, queries
        index_bytes = None
        if held_before is not None and held_after is not None:
            index_bytes = max(0, held_after - held_before - query_bytes)
        build_peak = None
        if top is not None and resident_before is not None:
            build_peak = max(0, top - resident_before)
        return {
            "wall_s": wall,
            "cpu_s": processor,
            "index_bytes": index_bytes,
            "build_peak_bytes": build_peak,
        }

    def _measure(self, message: Message) -> Message:
        if self.adapter is None or self.queries is None:
            raise ValueError("measure was asked before build")
        k = message["k"]
        params = message.get("search", {})
        if message["mode"] == "batch":
            result = self._batch(k, params, message)
        else:
            result = self._single(k, params, message)
        found = result.pop("found")
        if found is not None:
            np.save(message["ids"], found)
        return result

    def _single(self, k: int, params: Message, message: Message) -> Message:
        adapter, queries = self.adapter, self.queries
        assert adapter is not None
        assert queries is not None
        search = adapter.searcher(k, **params)
        rows = adapter.split(queries)
        # Another competitor had the caches a moment ago; the first queries bring this
        # one's hot data back and are not counted.
        for row in rows[: message["warm_up"]]:
            search(row)
        clock = time.perf_counter_ns
        least = int(message["min_seconds"] * 1e9)
        stamps: list[int] = []
        spent = passes = processor = 0
        latencies = []
        found: list[Any] = []
        gc.collect()
        gc.disable()
        try:
            while passes == 0 or (spent < least and passes < MAX_PASSES):
                found = []
                stamps = []
                keep, stamp = found.append, stamps.append
                before = time.process_time_ns()
                stamp(clock())
                for row in rows:
                    keep(search(row))
                    stamp(clock())
                processor += time.process_time_ns() - before
                spent += stamps[-1] - stamps[0]
                latencies.append(np.diff(stamps))
                passes += 1
        finally:
            gc.enable()
        times = np.concatenate(latencies) / 1e3
        return {
            "queries": len(rows) * passes,
            "wall_s": spent / 1e9,
            "cpu_s": processor / 1e9,
            "latency_us": {
                name: float(np.percentile(times, percent))
                for name, percent in (("p50", 50), ("p95", 95), ("p99", 99))
            },
            "found": _padded([adapter.ids(one) for one in found], k),
        }

    def _batch(self, k: int, params: Message, message: Message) -> Message:
        adapter, queries = self.adapter, self.queries
        assert adapter is not None
        assert queries is not None
        search = adapter.batcher(k, **params)
        if search is None:
            return {"unsupported": True, "found": None}
        if message["warm_up"]:
            search(queries[: message["warm_up"]])
        spent = processor = 0
        passes = 0
        found: Any = None
        least = int(message["min_seconds"] * 1e9)
        while passes == 0 or (spent < least and passes < MAX_PASSES):
            before = time.process_time_ns()
            start = time.perf_counter_ns()
            found = search(queries)
            spent += time.perf_counter_ns() - start
            processor += time.process_time_ns() - before
            passes += 1
        return {
            "queries": len(queries) * passes,
            "wall_s": spent / 1e9,
            "cpu_s": processor / 1e9,
            "found": _padded(list(adapter.ids(found)), k),
        }


def _normalise(rows: Array) -> None:
    """Scale rows to length 1 in place; zero rows stay zero."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    rows /= np.where(norms > 0, norms, 1)


def _padded(rows: list[Array], k: int) -> Array:
    """Ids as one int64 matrix; -1 where a library gave fewer than k."""
    out = np.full((len(rows), k), -1, dtype=np.int64)
    for line, row in zip(out, rows, strict=True):
        count = min(k, len(row))
        line[:count] = np.asarray(row[:count]).astype(np.int64)
    return out


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer requests until told to quit or until the other side is gone."""
    worker = Worker()
    for line in requests:
        message = json.loads(line)
        if message["do"] == "quit":
            break
        try:
            reply: Message = {"ok": True} | worker.answer(message)
        except Exception as error:
            reply = {
                "ok": False,
                "error": f"{type(error).__name__}: {error}",
                "trace": traceback.format_exc(),
            }
        answers.write(json.dumps(reply) + "\n")
        answers.flush()
    if worker.adapter is not None:
        worker.adapter.close()


def main() -> None:
    """Entry point of ``python -m bench.ann.worker``."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
