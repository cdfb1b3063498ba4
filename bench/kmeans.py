# SPDX-License-Identifier: Apache-2.0
"""k-means beside faiss on one thread: processor time, interleaved, and objectives.

python -m bench.kmeans [--repeats 3] [--sets fashion-mnist-784,glove-50] [--columns 8]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np  # noqa: E402

import annx  # noqa: E402
from bench.ann import data  # noqa: E402


def load_set(name):
    """Base and query vectors of a set, as float32, and its metric."""
    found = data.load(name)
    return found.base, found.queries, found.metric


def load_base(name):
    """The base vectors of a set."""
    return load_set(name)[0]


def load_queries(name):
    """The query vectors of a set."""
    return load_set(name)[1]


def objective(x, centroids):
    """Sum of squared distances to the nearest centroid, the same way for all."""
    k = annx.KMeans(len(centroids), init=centroids, n_iterations=0)
    return k.train(centroids).assign(x, threads=1)[1].sum(dtype=np.float64)


def run_annx(x, k, iterations, seed):
    """Centroids by annx."""
    model = annx.KMeans(
        k, n_iterations=iterations, max_points_per_cluster=None, seed=seed
    )
    return model.train(x, threads=1).centroids


def run_faiss(x, k, iterations, seed):
    """Centroids by faiss."""
    import faiss

    faiss.omp_set_num_threads(1)
    model = faiss.Kmeans(
        x.shape[1], k, niter=iterations, max_points_per_centroid=10**9, seed=seed
    )
    model.train(x)
    return model.centroids


def main():
    """Measure and print a line a set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sets", default="fashion-mnist-784,glove-50")
    parser.add_argument("--clusters", type=int, default=1024)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--columns", type=int, help="only the middle so many")
    args = parser.parse_args()
    for name in args.sets.split(","):
        x = load_base(name)
        if args.columns:
            first = (x.shape[1] - args.columns) // 2
            x = np.ascontiguousarray(x[:, first : first + args.columns])
        seconds = {"annx": [], "faiss": []}
        reached = {"annx": [], "faiss": []}
        for seed in range(args.repeats):
            for peer, run in (("annx", run_annx), ("faiss", run_faiss)):
                start = time.process_time()
                centroids = run(x, args.clusters, args.iterations, seed)
                seconds[peer].append(time.process_time() - start)
                reached[peer].append(float(objective(x, centroids)))
        median = {p: statistics.median(s) for p, s in seconds.items()}
        mean = {p: statistics.mean(r) for p, r in reached.items()}
        line = {
            "set": name,
            "shape": x.shape,
            "clusters": args.clusters,
            "iterations": args.iterations,
            "cpu_seconds": seconds,
            "objectives": reached,
            "speedup": median["faiss"] / median["annx"],
            "objective_ratio": mean["annx"] / mean["faiss"],
            "isa": annx._core.isa(),
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
