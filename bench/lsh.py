# SPDX-License-Identifier: Apache-2.0
"""Locality-sensitive hashing beside faiss and FALCONN on one thread: processor time.

python -m bench.lsh [--sets sift-photos-128,glove-50] [--queries 500] [--repeats 3]

For every engine a grid of parameters is run once; those at the front of recall and time
at each target are then run again, engines in turn. faiss IndexLSH ranks all codes by
their Hamming distance, and a second look at the best (IndexRefineFlat) gives it exact
distances. FALCONN (cross-polytope hashing, multi-probe) is left out if it is not
installed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time

from bench.kmeans import load_set  # first: it limits the threads of BLAS

import annx  # isort: skip
import numpy as np  # isort: skip

K = 10
TARGETS = (0.8, 0.9, 0.95)
TABLES = (4, 16)
SKETCHES = (128, 256)
PROBES = (1, 4, 8, 16, 32, 64)
RERANK = (50, 100, 200, 400)


def timed(call):
    """What a call returns, and its processor time."""
    start = time.process_time()
    result = call()
    return result, time.process_time() - start


def recall(found, truth):
    """Share of the true neighbours that were found."""
    pairs = zip(found, truth, strict=True)
    return sum(len(set(a) & set(b)) for a, b in pairs) / truth.size


def annx_runs(x, metric):
    """(name, building time, bytes, search by query matrix) of each setting."""
    bits = int(np.log2(len(x)))
    shares = (0.7, 0.9) if metric == "cosine" else (0.2, 0.45)
    for n_tables, share, sketch in itertools.product(TABLES, shares, SKETCHES):
        options = {
            "n_tables": n_tables,
            "n_hashes": round(share * bits),
            "sketch_bits": sketch,
        }
        index, built = timed(
            lambda o=options: annx.LSHIndex.build(x, metric, threads=1, **o)
        )
        size = index.memory_usage()["total"]
        for probes, rerank in itertools.product(PROBES, RERANK):
            how = {"n_probe": probes * n_tables, "rerank": rerank}
            yield (
                " ".join(f"{key}={value}" for key, value in (options | how).items()),
                built,
                size,
                lambda q, i=index, h=how: i.search(q, K, threads=1, **h).ids,
            )


def faiss_runs(x, metric):
    """The same of faiss: codes of n_bits, the best k * factor ranked again."""
    import faiss

    faiss.omp_set_num_threads(1)
    del metric  # rows and queries of cosine have length 1 already
    for n_bits in (128, 256, 512):
        codes = faiss.IndexLSH(x.shape[1], n_bits)
        index = faiss.IndexRefineFlat(codes)
        _, trained = timed(lambda i=index: i.train(x))
        _, added = timed(lambda i=index: i.add(x))
        for factor in (1, 5, 10, 20, 50, 100):
            parameters = faiss.IndexRefineSearchParameters(k_factor=factor)
            yield (
                f"bits={n_bits} k_factor={factor}",
                trained + added,
                len(x) * (n_bits // 8 + 4 * x.shape[1]),
                lambda q, i=index, p=parameters: i.search(q, K, params=p)[1],
            )


def falconn_runs(x, metric):
    """The same of FALCONN, of vectors of length 1."""
    import falconn

    centre = x.mean(axis=0) if metric != "cosine" else np.zeros_like(x[0])
    x = x - centre
    for n_tables in (10, 50):
        parameters = falconn.get_default_parameters(
            len(x), x.shape[1], falconn.DistanceFunction.EuclideanSquared
        )
        parameters.l = n_tables
        parameters.num_setup_threads = 1
        index = falconn.LSHIndex(parameters)
        _, built = timed(lambda i=index: i.setup(x))
        searcher = index.construct_query_object()
        for probes in (1, 2, 4, 8, 16, 32, 64, 128):

            def run(q, s=searcher, p=probes * n_tables):
                s.set_num_probes(p)
                found = np.full((len(q), K), -1)
                for i, one in enumerate(q - centre):
                    near = s.find_k_nearest_neighbors(one, K)
                    found[i, : len(near)] = near
                return found

            yield f"tables={n_tables} probes={probes * n_tables}", built, 0, run


def engines():
    """Those that are installed."""
    known = {"annx": annx_runs, "faiss": faiss_runs}
    try:
        import falconn  # noqa: F401
    except ImportError:
        return known
    return known | {"falconn": falconn_runs}


def compare(name, n_queries, repeats):
    """The fastest setting of each engine at each target, in turns."""
    x, q, metric = load_set(name)
    if metric == "cosine":
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        q = q / np.linalg.norm(q, axis=1, keepdims=True)
    q = np.ascontiguousarray(q[:n_queries])
    truth = annx.exact_search(q, x, K, metric=metric, threads=1).ids
    best = {target: {} for target in TARGETS}
    for engine, runs in engines().items():
        for label, built, size, search in runs(x, metric):
            found, seconds = timed(lambda s=search: s(q))
            share = recall(found, truth)
            for target in TARGETS:
                held = best[target].get(engine)
                better = held is None or seconds / len(found) < held["seconds"]
                if share >= target and better:
                    best[target][engine] = {
                        "setting": label,
                        "seconds": seconds / len(found),
                        "build_seconds": round(built, 2),
                        "mib": round(size / 2**20),
                        "search": search,
                    }
    for target, fastest in best.items():
        spent = {engine: [] for engine in fastest}
        shares = {}
        for _ in range(repeats):
            for engine, run in fastest.items():
                found, seconds = timed(lambda s=run["search"]: s(q))
                spent[engine].append(seconds / len(q))
                shares[engine] = recall(found, truth)
        rate = {e: 1 / statistics.median(s) for e, s in spent.items()}
        line = {
            "set": name,
            "target": target,
            "queries_per_second": {e: round(r) for e, r in rate.items()},
            "recall": {e: round(r, 4) for e, r in shares.items()},
            "speedup": {
                e: round(rate["annx"] / r, 2)
                for e, r in rate.items()
                if "annx" in rate and e != "annx"
            },
        }
        for key in ("setting", "build_seconds", "mib"):
            line[key] = {e: run[key] for e, run in fastest.items()}
        print(json.dumps(line), flush=True)


def main():
    """Measure and print a line a set and target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", default="sift-photos-128,glove-50")
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    for name in args.sets.split(","):
        compare(name, args.queries, args.repeats)


if __name__ == "__main__":
    main()
