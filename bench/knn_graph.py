# SPDX-License-Identifier: Apache-2.0
"""All-pairs graphs beside pynndescent and hnswlib, one thread: CPU time and recall.

python -m bench.knn_graph [--sets fashion-mnist-784,glove-50] [--k 15] [--repeats 3]
    [--peers pynndescent,hnswlib] [--exact]

pynndescent runs first, after a small run that compiles it; annx is then asked for the
recall that it reached. hnswlib builds an index (M 16, ef_construction 200) and searches
for every vector, with the least of a few ef that reaches as much. Recall is of 400
vectors other than those by which annx estimates its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import numpy as np

import annx
from bench.kmeans import load_base  # first: it limits the threads of BLAS


def timed(call):
    """What a call returns, and its processor time."""
    start = time.process_time()
    result = call()
    return result, time.process_time() - start


def edge_recall(ids, truth, sample, k):
    """Share of the true neighbours of the sample that are there, itself left out."""
    found = 0
    for row, true in zip(sample, truth, strict=True):
        found += len(
            {int(i) for i in ids[row] if i != row} & {int(i) for i in true if i != row}
        )
    return found / (len(sample) * k)


def pynndescent_graph(x, k, seed):
    """pynndescent's own graph, a vector itself included."""
    import pynndescent

    return pynndescent.NNDescent(
        x, n_neighbors=k + 1, n_jobs=1, random_state=seed
    ).neighbor_graph[0]


def hnswlib_graph(x, k, recall, measure):
    """N searches of hnswlib; the building once, and the searches at the best ef."""
    import hnswlib

    index = hnswlib.Index("l2", x.shape[1])
    index.init_index(len(x), ef_construction=200, M=16)
    _, building = timed(lambda: index.add_items(x, num_threads=1))
    for ef in (k + 1, 32, 64, 128, 256):
        index.set_ef(ef)
        found, searching = timed(lambda: index.knn_query(x, k + 1, num_threads=1)[0])
        if measure(found) >= recall:
            break
    return {"build": building, "search": searching, "ef": ef, "recall": measure(found)}


def run(name, k, repeats, peers, exact):
    """Measure one set and print a line of JSON."""
    x = load_base(name)
    if name.startswith("glove"):
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
    sample = np.random.default_rng(0).choice(len(x), 400, replace=False)
    near = annx.exact_search(x[sample], x, k + 1, threads=1).ids
    truth = [
        [i for i in row if i != s][:k] for row, s in zip(near, sample, strict=True)
    ]

    def measure(ids):
        return edge_recall(ids, truth, sample, k)

    line = {"set": name, "k": k, "runs": []}
    target = 0.95
    if "pynndescent" in peers:
        pynndescent_graph(x[:3000], k, 0)
    for seed in range(repeats):
        entry = {}
        if "pynndescent" in peers:
            ids, entry["pynndescent_s"] = timed(
                lambda s=seed: pynndescent_graph(x, k, s)
            )
            entry["pynndescent_recall"] = target = measure(ids)
        graph, entry["annx_s"] = timed(
            lambda s=seed, t=target: annx.knn_graph(x, k, recall=t, threads=1, seed=s)
        )
        entry["annx_recall"] = measure(graph.ids)
        entry["annx_estimate"] = graph.recall
        line["runs"].append(entry)
    if "pynndescent" in peers:
        line["ratio"] = statistics.median(
            r["pynndescent_s"] / r["annx_s"] for r in line["runs"]
        )
    if exact:
        _, line["exact_s"] = timed(lambda: annx.knn_graph(x, k, exact=True, threads=1))
    if "hnswlib" in peers:
        line["hnswlib"] = hnswlib_graph(x, k, target, measure)
    print(json.dumps(line), flush=True)


def main():
    """Measure and print a line a set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", default="fashion-mnist-784,glove-50")
    parser.add_argument("--k", type=int, default=15)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peers", default="pynndescent,hnswlib")
    parser.add_argument("--exact", action="store_true")
    args = parser.parse_args()
    for name in args.sets.split(","):
        run(name, args.k, args.repeats, args.peers.split(","), args.exact)


if __name__ == "__main__":
    main()
