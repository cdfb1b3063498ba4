# SPDX-License-Identifier: Apache-2.0
"""What one query costs in Python, above the native search itself.

    python bench/overhead.py [--rounds 300] [--json out.json]

Indexes of 1 to 10 vectors, whose search takes next to no time. In turn are timed, in
processor time: ``index.search(query, k)``; the same search repeated in a native loop,
which is the search itself; and ``len(index)``, the least that a call of a method
implemented in C costs here. The difference of the first two is the overhead; medians
over the rounds. The peers, where installed, are timed by their own call for one query
on as small an index, in the same turns: whole calls, because theirs cannot be divided.
"""

import os

# ruff: noqa: E402
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np

import annx

CALLS = 400  # a turn


def timed(call):
    """Microseconds a call, over one turn."""
    start = time.process_time_ns()
    for _ in range(CALLS):
        call()
    return 1e-3 * (time.process_time_ns() - start) / CALLS


def annx_case(family, count, dim, k):
    """The whole call, and a function that gives the native time."""
    rng = np.random.default_rng(0)
    index = family.build(rng.standard_normal((count, dim), np.float32))
    query = rng.standard_normal(dim, np.float32)

    def native():
        return 1e6 * index._native.search_seconds(query[None], k, CALLS)

    return (lambda: index.search(query, k)), native, index


def peer_calls(count, dim, k):
    """One query by each peer that is installed."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((count, dim), np.float32)
    one = rng.standard_normal((1, dim), np.float32)
    calls = {}
    try:
        import faiss

        flat = faiss.IndexFlatL2(dim)
        flat.add(rows)
        calls["faiss IndexFlatL2"] = lambda: flat.search(one, k)
    except ImportError:
        pass
    try:
        import hnswlib

        graph = hnswlib.Index("l2", dim)
        graph.init_index(count)
        graph.add_items(rows)
        graph.set_num_threads(1)
        calls["hnswlib"] = lambda: graph.knn_query(one, k)
    except ImportError:
        pass
    return calls


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--dim", type=int, default=16)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    dim = options.dim
    calls, natives, empty = {}, {}, {}
    for family in (annx.FlatIndex, annx.GraphIndex):
        for count, k in ((1, 1), (10, 10)):
            name = f"annx {family.__name__}, {count} vectors, k = {k}"
            calls[name], natives[name], index = annx_case(family, count, dim, k)
            empty[name] = lambda index=index: len(index)
    for name, call in peer_calls(10, dim, 10).items():
        calls[f"{name}, 10 vectors, k = 10"] = call
    whole = {name: [] for name in calls}
    native = {name: [] for name in natives}
    least = {name: [] for name in natives}
    for _ in range(options.rounds):
        for name, call in calls.items():
            whole[name].append(timed(call))
            if name in natives:
                native[name].append(natives[name]())
                least[name].append(timed(empty[name]))
    result = {}
    for name, times in whole.items():
        line = {"call_us": statistics.median(times)}
        if name in natives:
            line["native_us"] = statistics.median(native[name])
            line["above_us"] = line["call_us"] - line["native_us"]
            line["len_us"] = statistics.median(least[name])
        result[name] = line
        print(f"{name:40}", "  ".join(f"{k} {v:.2f}" for k, v in line.items()))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
