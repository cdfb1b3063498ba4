# SPDX-License-Identifier: Apache-2.0
"""Hyperbolic search: flat and graph, on trees laid out in the unit ball, one thread.

python -m bench.poincare [--n 100000] [--dims 2,10,50] [--repeats 3]

Queries are nodes that are held out. Recall@10 counts what is within the distance of the
tenth nearest, found exactly; microseconds are of processor time, medians of the rounds.
NumPy's exact search (a matrix product, float64) is the peer: no package at hand has
hyperbolic search by an index. What exact search by l2 would find says how much the
metric matters.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

# ruff: noqa: E402
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np

import annx

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from strategies import tree_in_ball

QUERIES = 500
K = 10


def timed(call, repeats):
    """What a call returns, and the median of its processor times in us a query."""
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        result = call()
        taken.append(1e6 * (time.process_time() - start) / QUERIES)
    return result, statistics.median(taken)


def by_numpy(queries, base):
    """Distances by a product of matrices, then a partial sort."""
    left, right = queries.astype(np.float64), base.astype(np.float64)
    squares = np.square(left).sum(axis=1)[:, None], np.square(right).sum(axis=1)[None]
    between = np.maximum(squares[0] + squares[1] - 2 * left @ right.T, 0)
    keys = between / ((1 - squares[0]) * (1 - squares[1]))
    best = np.argpartition(keys, K, axis=1)[:, :K]
    return np.take_along_axis(
        best, np.argsort(np.take_along_axis(keys, best, axis=1), axis=1), axis=1
    )


def case(n, dim, repeats):
    """One data set."""
    rows = tree_in_ball(dim, n + QUERIES, dim).astype(np.float32)
    order = np.random.default_rng(1).permutation(len(rows))
    queries, base = rows[order[:QUERIES]], np.ascontiguousarray(rows[order[QUERIES:]])
    lengths = np.linalg.norm(base.astype(np.float64), axis=1)
    print(f"\n{n} x {dim}, median length {np.median(lengths):.5f}")
    flat = annx.FlatIndex.build(base, "poincare")
    truth, exact = timed(lambda: flat.search(queries, K, threads=1), repeats)
    found, peer = timed(lambda: by_numpy(queries, base), repeats)
    print(
        f"  exact: annx {exact:.0f} us, NumPy {peer:.0f} us, ratio {peer / exact:.1f}"
    )
    euclid = annx.exact_search(queries, base, K, threads=1).ids
    agree, other = (
        np.mean([np.isin(a, b).mean() for a, b in zip(truth.ids, ids, strict=True)])
        for ids in (found, euclid)
    )
    print(f"  of the exact ones NumPy finds {agree:.4f}, l2 would find {other:.3f}")
    start = time.process_time()
    graph = annx.GraphIndex.build(base, metric="poincare", threads=1)
    print(f"  graph built in {time.process_time() - start:.1f} s")
    for ef in (10, 20, 50, 100):
        result, spent = timed(
            lambda ef=ef: graph.search(queries, K, ef=ef, threads=1), repeats
        )
        recall = (result.distances <= truth.distances[:, -1:]).mean()
        print(f"  ef {ef:4d}: recall {recall:.4f}, {spent:.1f} us")


def main():
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--dims", default="2,10,50")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    for dim in options.dims.split(","):
        case(options.n, int(dim), options.repeats)


if __name__ == "__main__":
    main()
