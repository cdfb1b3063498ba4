# SPDX-License-Identifier: Apache-2.0
"""Exact search beside faiss's flat index and ScaNN's brute force, interleaved.

    python -m bench.exact [--repeats 5] [--sets glove-50] [--json out.json]

Needs the data sets (README.md says where they are looked for) and a C compiler; peers
that are not installed are left out. Everything runs on one thread, in turn, and medians
of processor time are reported: 1,000 queries at once, k = 10; one query at a time, as
bandwidth; and annx on two threads, in wall time.
"""

import os

# ruff: noqa: E402
# Before NumPy: the peers' libraries read these when they are loaded.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import argparse
import ctypes
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

import annx
from bench.ann import data

HERE = Path(__file__).resolve().parent
SETS = {
    "fashion-mnist-784": "l2",
    "wordnet-minilm-384": "ip",
    "glove-50": "ip",
}


def load_set(name, metric):
    """Rows and 1,000 queries; of length 1 where the metric is the inner product."""
    found = data.load(name, queries=1000)
    rows, queries = found.base, found.queries
    if metric == "ip":
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    return rows, queries


def annx_flat(rows, metric):
    index = annx.FlatIndex(rows.shape[1], metric)
    index.add(rows)
    return lambda q, threads=1: index.search(q, 10, threads=threads).ids


def faiss_flat(rows, metric):
    import faiss

    faiss.omp_set_num_threads(1)
    kind = faiss.IndexFlatL2 if metric == "l2" else faiss.IndexFlatIP
    index = kind(rows.shape[1])
    index.add(rows)
    return lambda q: index.search(q, 10)[1]


def scann_brute(rows, metric):
    import scann

    name = "squared_l2" if metric == "l2" else "dot_product"
    make = scann.scann_ops_pybind.builder(rows, 10, name)
    index = make.score_brute_force().build()
    return lambda q: index.search_batched(q, final_num_neighbors=10)[0]


ENGINES = {"annx": annx_flat, "faiss": faiss_flat, "scann": scann_brute}


class Machine:
    """The loops of micro/machine.c: multiply-adds and reading, on this processor."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        library = Path(self.folder.name) / "machine.so"
        source = HERE / "micro" / "machine.c"
        isa = annx._core.isa()
        flags = {"avx2": ["-mavx2", "-mfma"], "avx512": ["-mavx512f"]}.get(isa, [])
        subprocess.run(
            ["cc", "-O3", *flags, "-fPIC", "-shared", source, "-o", library], check=True
        )
        self.code = ctypes.CDLL(str(library))
        size, pointer = ctypes.c_size_t, ctypes.c_void_p
        self.code.read_all.argtypes = [pointer, size, size]
        self.code.read_quarters.argtypes = [pointer, size]
        self.code.multiply_add.argtypes = [size, ctypes.c_float]
        self.code.multiply_add.restype = ctypes.c_float
        self.lanes = {"avx2": 8, "avx512": 16}.get(isa, 4)

    def gflops(self):
        rounds = 20_000_000
        start = time.process_time()
        self.code.multiply_add(rounds, 0.5)
        return 2e-9 * 12 * self.lanes * rounds / (time.process_time() - start)

    def read(self, array):
        """Read an array in one stream and in four; the better of the two."""
        best = 0.0
        for call in (
            lambda: self.code.read_all(array.ctypes.data, array.nbytes, 0),
            lambda: self.code.read_quarters(array.ctypes.data, array.nbytes),
        ):
            start = time.process_time()
            call()
            best = max(best, array.nbytes * 1e-9 / (time.process_time() - start))
        return best


def measure(call):
    start, wall = time.process_time(), time.perf_counter()
    result = call()
    return time.process_time() - start, time.perf_counter() - wall, result


def run_set(name, metric, repeats, machine):
    rows, queries = load_set(name, metric)
    n, dim = rows.shape
    engines = {}
    for engine, make in ENGINES.items():
        try:
            engines[engine] = make(rows, metric)
        except ImportError as error:
            print(f"{engine}: not installed ({error})")
    times = {engine: [] for engine in engines}
    singles = {engine: [] for engine in engines}
    peaks, reads, two = [], [], []
    found = {}
    for _ in range(repeats):
        peaks.append(machine.gflops())
        for engine, search in engines.items():
            cpu, _, found[engine] = measure(lambda s=search: s(queries))
            times[engine].append(cpu)
        one_wall = measure(lambda: engines["annx"](queries))[1]
        two_wall = measure(lambda: engines["annx"](queries, 2))[1]
        two.append(one_wall / two_wall)
        for i in range(20):
            reads.append(machine.read(rows))
            for engine, search in engines.items():
                cpu = measure(lambda s=search, i=i: s(queries[i : i + 1]))[0]
                singles[engine].append(rows.nbytes * 1e-9 / cpu)
    peak = statistics.median(peaks)
    read = statistics.median(reads)
    result = {
        "set": name,
        "rows": n,
        "dim": dim,
        "metric": metric,
        "peak_gflops": peak,
        "read_gb_per_s": read,
        "two_threads": statistics.median(two),
        "engines": {},
    }
    print(f"\n{name}: {n} x {dim}, {metric}, isa {annx._core.isa()}")
    print(f"  FMA peak {peak:.1f} GFLOP/s, read {read:.1f} GB/s")
    for engine, seconds in times.items():
        cpu = statistics.median(seconds)
        gflops = 2e-9 * n * dim * len(queries) / cpu
        single = statistics.median(singles[engine])
        agree = float((np.sort(found[engine]) == np.sort(found["annx"])).mean())
        result["engines"][engine] = {
            "queries_per_s": len(queries) / cpu,
            "seconds": seconds,
            "gflops": gflops,
            "single_gb_per_s": single,
            "agrees_with_annx": agree,
        }
        print(
            f"  {engine:6} {len(queries) / cpu:7.0f} queries/s  {gflops:6.1f} GFLOP/s "
            f"({100 * gflops / peak:3.0f} % of peak)  one query {single:5.1f} GB/s "
            f"({100 * single / read:3.0f} % of read)  same ids {100 * agree:.2f} %"
        )
    print(f"  annx on two threads: {result['two_threads']:.2f}x (wall time)")
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    machine = Machine()
    results = [run_set(s, SETS[s], options.repeats, machine) for s in options.sets]
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
