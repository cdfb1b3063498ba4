# SPDX-License-Identifier: Apache-2.0
"""Kernels beside their peers: ``python -m bench.micro``.

Every cell (metric, type, dimension, place, shape) is measured in one run: the
contenders take turns, each turn long enough to time, and the figures are medians of
thread CPU time over the turns, with the spread. In cache, where a call is short, what a
call costs by itself is left out: annx's probe repeats its kernel within one call, and
from a peer's call the least that its call on a single row took is taken off. `cache`
rows fill 256 KB, `memory` rows 128 MB; `gather` takes rows at random, `block` compares
96 queries with every row (what exact search and training are made of). The machine's
own figures (read bandwidth, random rows, multiply-adds) come from the loops of
machine.c, interleaved with the cells of the same place.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "python"))

from bench.micro import machine, peers  # noqa: E402

DIMS = [50, 128, 384, 784, 1536]
PLACES = {"cache": 256 << 10, "memory": 128 << 20}
FLOAT_METRICS = ["l2", "ip", "cosine", "l1"]
# l2 and cosine of floats are inner products and what surrounds them.
BLOCKS = [("ip", "float32"), ("hamming", "bits")] + [
    (metric, dtype) for metric in ("l2", "ip") for dtype in ("int8", "uint8")
]
REPEAT = 32  # of annx's kernel within one call, where rows are in cache
BLOCK_QUERIES = 96
GATHERED = 24 << 20  # bytes of rows that one gathering call touches, at most


@dataclasses.dataclass
class Cell:
    """One query against rows, or several; `slots` where rows are gathered."""

    metric: str
    dtype: str
    dim: int
    place: str
    shape: str
    rows: np.ndarray
    query: np.ndarray  # a block's has two dimensions
    slots: np.ndarray | None

    @property
    def results(self):
        """Distances that one call gives."""
        if self.query.ndim == 2:
            return len(self.rows) * len(self.query)
        return len(self.rows) if self.slots is None else len(self.slots)


def width(dtype, dim):
    """Bytes of a row."""
    sizes = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1, "uint8": 1}
    return (dim + 7) // 8 if dtype == "bits" else dim * sizes[dtype]


def make_cell(memory, metric, dtype, dim, place, shape):
    """Rows in the given memory, filled with noise of the type."""
    rng = np.random.default_rng(dim)
    each = width(dtype, dim)
    count = PLACES[place] // each
    columns = (dim + 7) // 8 if dtype == "bits" else dim
    sample = peers.draw(rng, dtype, min(count, 4096), columns)
    rows = memory[: count * each].view(sample.dtype).reshape(count, columns)
    for begin in range(0, count, len(sample)):
        part = rows[begin : begin + len(sample)]
        part[:] = sample[: len(part)]
    slots = None
    if shape == "gather":
        m = max(16, min(count, GATHERED // each))
        slots = rng.integers(0, count, m).astype(np.uint32)
    query = sample[1].copy()
    if shape == "block":
        query = peers.draw(rng, dtype, BLOCK_QUERIES, columns)
    return Cell(metric, dtype, dim, place, shape, rows, query, slots)


def timed(call, times):
    """CPU nanoseconds of `times` calls."""
    start = time.thread_time_ns()
    for _ in range(times):
        call()
    return time.thread_time_ns() - start


def turns_of(calls: dict[str, Callable[[], object]], rounds: int, turn_ns: float):
    """Nanoseconds a call, for each contender and turn; the contenders take turns."""
    times = {}
    for name, call in calls.items():
        call()
        once = max(timed(call, 1), 200)
        times[name] = max(1, min(100_000, math.ceil(turn_ns / once)))
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            taken[name].append(timed(call, times[name]) / times[name])
    return taken


def measure(cell, found, loops, options):
    """One line of the report."""
    calls, singles, repeats = {}, {}, {}
    one = dataclasses.replace(
        cell,
        rows=cell.rows[:1],
        slots=None if cell.slots is None else np.zeros(1, np.uint32),
    )
    for contender in found:
        if cell.place == "cache" and contender.name == "annx":
            contender.repeat = repeats["annx"] = REPEAT
        call = contender.prepare(cell)
        if call is not None:
            calls[contender.name] = call
            once = contender.name not in repeats and cell.shape != "block"
            if once and cell.place == "cache":
                singles[f"{contender.name} alone"] = contender.prepare(one)
        contender.repeat = 1
    each = width(cell.dtype, cell.dim)
    touched = each * cell.results
    # The machine's own loops over the same bytes, each with its best prefetch distance.
    data = cell.rows.reshape(-1).view(np.uint8)
    limits = {}
    if cell.shape == "gather":
        for ahead in (2, 4, 8, 16, 32):
            limits[f"limit {ahead}"] = lambda a=ahead: loops.rows(
                data, each, cell.slots, each, a
            )
    elif cell.shape == "block" and cell.dtype == "float32":
        # As many multiply-adds as the block needs.
        rounds = math.ceil(2 * cell.results * cell.dim / loops.operations(1))
        limits["limit fma"] = lambda: loops.multiply_add(rounds)
    elif cell.place == "memory" and cell.shape == "rows":
        for ahead in (None, 0, 1024):
            limits[f"limit {ahead}"] = lambda a=ahead: loops.read(data, a)
    taken = turns_of(
        {**calls, **limits, **singles}, options.rounds, options.turn_ms * 1e6
    )
    line = {
        "metric": cell.metric, "dtype": cell.dtype, "dim": cell.dim,
        "place": cell.place, "shape": cell.shape, "row_bytes": each,
        "rows": cell.results, "contenders": {},
    }  # fmt: skip
    for name in calls:
        # The least that a call ever cost: noise must not be taken off as well.
        overhead = min(taken.get(f"{name} alone", [0.0]))
        net = [t / repeats.get(name, 1) - overhead for t in taken[name]]
        line["contenders"][name] = {
            "median_ns": statistics.median(net),
            "best_ns": min(net),
            "worst_ns": max(net),
            "call_ns": overhead,
            "turns_ns": taken[name],
            "million_a_second": 1e3 * cell.results / statistics.median(net),
            "gigabytes_a_second": touched / statistics.median(net),
        }
    if limits:
        best = min(limits, key=lambda name: statistics.median(taken[name]))
        line["limit"] = {
            "prefetch": best.split()[1],
            "median_ns": statistics.median(taken[best]),
            "best_ns": min(min(taken[name]) for name in limits),
            "gigabytes_a_second": touched / statistics.median(taken[best]),
        }
    return line


def ratio(line, key="median_ns"):
    """The best peer's time over annx's: above 1 annx is faster."""
    mine = line["contenders"]["annx"][key]
    others = [c[key] for n, c in line["contenders"].items() if n != "annx"]
    return min(others) / mine if others else math.nan


def table_row(line):
    """One line of the table."""
    mine = line["contenders"]["annx"]
    cells = [
        f"{line['metric']:7} {line['dtype']:8} {line['dim']:5} {line['place']:6} "
        f"{line['shape']:6} {mine['million_a_second']:8.2f} "
        f"{mine['gigabytes_a_second']:6.1f}"
    ]
    limit = line.get("limit")
    cells.append(
        f"{limit['median_ns'] / mine['median_ns']:5.2f} "
        f"{limit['best_ns'] / mine['best_ns']:5.2f}"
        if limit
        else "    -     -"
    )
    both = ratio(line), ratio(line, "best_ns")
    cells.append(
        "    -     -" if math.isnan(both[0]) else f"{both[0]:5.2f} {both[1]:5.2f}"
    )
    cells.append(
        "  ".join(
            f"{name} {c['million_a_second']:.2f}"
            for name, c in line["contenders"].items()
            if name != "annx"
        )
    )
    return "  ".join(cells)


HEADER = (
    "metric  dtype      dim place  shape     M/s    GB/s  /limit (best)  "
    "/best peer (best)  peers, M/s"
)


def machine_figures(loops, memory, rounds):
    """Bandwidth by the size of what is read, and multiply-adds."""
    figures = {}
    for size in (16 << 10, 256 << 10, 8 << 20, len(memory)):
        part = memory[:size]
        again = max(1, (32 << 20) // size)
        best = 0.0
        for ahead in (None, 0, 1024):

            def call(part=part, ahead=ahead, again=again):
                for _ in range(again):
                    loops.read(part, ahead)

            call()
            nanoseconds = min(timed(call, 1) for _ in range(rounds))
            best = max(best, again * (size - 8192) / nanoseconds)
        figures[f"read {size >> 10} KB, GB/s"] = best
    loops.multiply_add(1000)
    operations = loops.multiply_add(10)
    figures["multiply-add, GFLOP/s"] = max(
        operations / 10 * 2_000_000 / timed(lambda: loops.multiply_add(2_000_000), 1)
        for _ in range(rounds)
    )
    return figures


def main():
    """Run the cells asked for; print the table; write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.micro", description=__doc__)
    parser.add_argument("--metrics", nargs="*", help="default: all")
    parser.add_argument("--dtypes", nargs="*", help="default: all")
    parser.add_argument("--dims", nargs="*", type=int, default=DIMS)
    parser.add_argument("--places", nargs="*", default=list(PLACES))
    parser.add_argument("--shapes", nargs="*", default=["rows", "gather"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--turn-ms", type=float, default=4.0)
    parser.add_argument("--out", type=Path, default=ROOT / "bench/out/micro.json")
    options = parser.parse_args()

    loops = machine.Machine()
    memory = machine.huge(PLACES["memory"])
    memory[:] = 1
    found = peers.contenders()
    report = {
        "cpu": machine.cpu_name(),
        "versions": {c.name: c.version() for c in found},
        "command": " ".join(sys.argv[1:]),
        "machine": machine_figures(loops, memory, options.rounds),
        "cells": [],
    }
    print(report["cpu"], report["versions"])
    for name, value in report["machine"].items():
        print(f"{name:28} {value:7.1f}")
    print(HEADER)
    wanted = [
        (metric, dtype)
        for dtype in ("float32", "float16", "bfloat16", "int8", "uint8")
        for metric in FLOAT_METRICS
    ] + [("hamming", "bits"), ("jaccard", "bits")]
    for place in options.places:
        for metric, dtype in wanted:
            if options.metrics and metric not in options.metrics:
                continue
            if options.dtypes and dtype not in options.dtypes:
                continue
            for shape in options.shapes:
                if shape == "gather" and (place == "cache" or metric == "l1"):
                    continue
                if shape == "block" and (metric, dtype) not in BLOCKS:
                    continue
                for dim in options.dims:
                    cell = make_cell(memory, metric, dtype, dim, place, shape)
                    line = measure(cell, found, loops, options)
                    report["cells"].append(line)
                    print(table_row(line), flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1))
    print("written to", options.out)


if __name__ == "__main__":
    main()
