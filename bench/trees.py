# SPDX-License-Identifier: Apache-2.0
"""k-d trees beside SciPy's and scikit-learn's on one thread: processor time.

python -m bench.trees [--n 1000000] [--dims 2,3,8,16] [--repeats 3]
python -m bench.trees --forest [--sets sift-photos-128,glove-50]

The first compares exact search on points drawn uniformly, and on points of clusters;
all engines take turns in one process. The second prints the recall of a forest by its
budget on real data.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

from bench.kmeans import load_set  # first: it limits the threads of BLAS

import annx  # isort: skip
import numpy as np  # isort: skip

K = 10
# Queries that take about a second in the slowest engine.
QUERIES = {1: 20_000, 2: 20_000, 3: 20_000, 4: 10_000, 8: 1_000, 12: 100, 16: 30}


def timed(call):
    """What a call returns, and its processor time."""
    start = time.process_time()
    result = call()
    return result, time.process_time() - start


def points(kind, n, dim, seed):
    """Points (n, dim): "uniform", or "clusters" of differing widths."""
    rng = np.random.default_rng(seed)
    if kind == "uniform":
        return rng.random((n, dim), dtype=np.float32)
    fixed = np.random.default_rng(12345)
    centres = fixed.random((200, dim))
    widths = 10.0 ** fixed.uniform(-3, -1, 200)
    mine = rng.integers(0, 200, n)
    noise = rng.standard_normal((n, dim)) * widths[mine][:, None]
    return (centres[mine] + noise).astype(np.float32)


def exact_case(kind, n, dim, repeats):
    """Building, one call for all queries, and a call for each."""
    from scipy.spatial import cKDTree
    from sklearn.neighbors import KDTree

    x = points(kind, n, dim, 0)
    q = points(kind, QUERIES[dim], dim, 1)
    few = q[: max(10, min(300, len(q) // 4))]
    builds = {
        "annx": lambda: annx.KDForestIndex.build(x, threads=1),
        "scipy": lambda: cKDTree(x),
        "sklearn": lambda: KDTree(x),
    }
    trees = {}
    spent = {peer: {"build": [], "batch": [], "single": []} for peer in builds}
    for peer, build in builds.items():
        trees[peer], seconds = timed(build)
        spent[peer]["build"].append(seconds)
    batch = {
        "annx": lambda q: trees["annx"].search(q, K, threads=1).distances ** 0.5,
        "scipy": lambda q: trees["scipy"].query(q, K)[0],
        "sklearn": lambda q: trees["sklearn"].query(q, K)[0],
    }
    single = {
        "annx": lambda q: trees["annx"].search(q, K),
        "scipy": lambda q: trees["scipy"].query(q, K),
        "sklearn": lambda q: trees["sklearn"].query(q[None], K),
    }
    distances = {}
    for _ in range(repeats):
        for peer in builds:
            # scikit-learn is shown fewer where it would take minutes.
            part = few if peer == "sklearn" else q
            distances[peer], seconds = timed(lambda p=part, b=batch[peer]: b(p))
            spent[peer]["batch"].append(seconds / len(part) * 1e6)
            _, seconds = timed(lambda s=single[peer]: [s(one) for one in few])
            spent[peer]["single"].append(seconds / len(few) * 1e6)
    error = np.abs(distances["annx"] - distances["scipy"]).max()
    median = {
        peer: {how: statistics.median(values) for how, values in times.items()}
        for peer, times in spent.items()
    }
    line = {
        "points": kind,
        "n": n,
        "dim": dim,
        "queries": len(q),
        "microseconds": {
            peer: {how: round(values[how], 2) for how in ("batch", "single")}
            for peer, values in median.items()
        },
        "build_seconds": {p: round(v["build"], 2) for p, v in median.items()},
        "speedup": {
            peer: {
                how: round(median[peer][how] / median["annx"][how], 2)
                for how in ("build", "batch", "single")
            }
            for peer in ("scipy", "sklearn")
        },
        "largest_error": float(error),
        "bytes_a_point": trees["annx"].memory_usage()["total"] / n,
    }
    print(json.dumps(line), flush=True)


def forest_case(name, n_queries=300):
    """Recall and time by the number of trees and the budget."""
    x, q, metric = load_set(name)
    q = q[:n_queries]
    truth = annx.exact_search(q, x, K, metric=metric, threads=1).ids
    for n_trees in (1, 4, 8):
        index, built = timed(
            lambda t=n_trees: annx.KDForestIndex.build(x, metric, n_trees=t, threads=1)
        )
        for checks in (256, 1024, 4096, 16384):
            found, seconds = timed(
                lambda i=index, c=checks: i.search(q, K, checks=c, threads=1).ids
            )
            hits = [len(set(a) & set(b)) for a, b in zip(found, truth, strict=True)]
            line = {
                "set": name,
                "n_trees": n_trees,
                "checks": checks,
                "recall": round(float(np.mean(hits)) / K, 4),
                "queries_per_second": round(len(q) / seconds),
                "build_seconds": round(built, 2),
                "mib": round(index.memory_usage()["total"] / 2**20, 1),
            }
            print(json.dumps(line), flush=True)


def main():
    """Measure and print a line a case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--dims", default="2,3,8,16")
    parser.add_argument("--points", default="uniform,clusters")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--forest", action="store_true")
    parser.add_argument("--sets", default="sift-photos-128,glove-50")
    args = parser.parse_args()
    if args.forest:
        for name in args.sets.split(","):
            forest_case(name)
        return
    for kind in args.points.split(","):
        for dim in map(int, args.dims.split(",")):
            exact_case(kind, args.n, dim, args.repeats)


if __name__ == "__main__":
    main()
