# SPDX-License-Identifier: Apache-2.0
"""Product quantization beside faiss on one thread: processor time, error, search.

python -m bench.pq [--repeats 3] [--only train|search]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import annx
from bench.kmeans import (  # first: it limits the threads of BLAS
    load_base,
    load_queries,
)

CASES = (
    ("sift-photos-128", 16, 8),
    ("glove-50", 10, 8),
    ("wordnet-minilm-384", 48, 8),
    ("wordnet-minilm-384", 96, 4),
    ("fashion-mnist-784", 98, 8),
)


def timed(call):
    """What a call returns, and its processor time."""
    start = time.process_time()
    result = call()
    return result, time.process_time() - start


def recall(found, truth, k):
    """Share of the true neighbours that were found."""
    pairs = zip(found[:, :k], truth[:, :k], strict=True)
    return sum(len(set(a) & set(b)) for a, b in pairs) / (len(found) * k)


def search_case(name, segments, bits, repeats, k=10, rerank=10, n_queries=200):
    """Search of the same kind of codes, by the codes alone and ranked again."""
    import faiss

    x = load_base(name)
    queries = load_queries(name)[:n_queries]
    dim = x.shape[1]
    truth = annx.exact_search(queries, x, k, threads=1).ids
    ours = annx.PQFlatIndex(dim, n_segments=segments, n_bits=bits).train(x, threads=1)
    ours.add(x, threads=1)
    theirs = faiss.IndexPQ(dim, segments, bits)
    refined = faiss.IndexRefineFlat(theirs)
    refined.train(x)
    refined.add(x)
    refined.k_factor = rerank
    runs = {
        "codes": {
            "annx": lambda q: ours.search(q, k, rerank=0, threads=1).ids,
            "faiss": lambda q: theirs.search(q, k)[1],
        },
        "ranked again": {
            "annx": lambda q: ours.search(q, k, rerank=rerank, threads=1).ids,
            "faiss": lambda q: refined.search(q, k)[1],
        },
    }
    line = {"set": name, "segments": segments, "bits": bits, "queries": n_queries}
    for kind, peers in runs.items():
        spent = {peer: {"batch": [], "single": []} for peer in peers}
        recalls = {}
        for _ in range(repeats):
            for peer, search in peers.items():
                found, seconds = timed(lambda s=search: s(queries))
                spent[peer]["batch"].append(seconds)
                recalls[peer] = recall(found, truth, k)
                _, seconds = timed(
                    lambda s=search: [s(queries[i : i + 1]) for i in range(n_queries)]
                )
                spent[peer]["single"].append(seconds)
        rate = {
            p: {how: n_queries / statistics.median(s) for how, s in t.items()}
            for p, t in spent.items()
        }
        line[kind] = {
            "queries_per_second": rate,
            "recall": recalls,
            "speedup": {
                how: rate["annx"][how] / rate["faiss"][how] for how in rate["annx"]
            },
        }
    print(json.dumps(line), flush=True)


def main():
    """Measure and print a line a case."""
    import faiss

    faiss.omp_set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=("train", "search"))
    parser.add_argument("--sets", help="only these, separated by commas")
    args = parser.parse_args()
    cases = [c for c in CASES if not args.sets or c[0] in args.sets.split(",")]
    if args.only != "search":
        for case in cases:
            train_case(*case, args.repeats)
    if args.only != "train":
        for case in cases:
            search_case(*case, args.repeats)


def train_case(name, segments, bits, repeats):
    """Training and encoding, on the sample that faiss takes too: 256 a centroid."""
    import faiss

    x = load_base(name)
    dim = x.shape[1]
    spent = {}
    errors = {}
    for seed in range(repeats):
        ours = annx.ProductQuantizer(dim, segments, n_bits=bits, seed=seed)
        theirs = faiss.ProductQuantizer(dim, segments, bits)
        theirs.cp.seed = 1234 + seed
        for peer, train, encode, decode in (
            (
                "annx",
                lambda q=ours, x=x: q.train(x, threads=1),
                lambda q=ours, x=x: q.encode(x, threads=1),
                ours.decode,
            ),
            (
                "faiss",
                lambda q=theirs, x=x: q.train(x),
                lambda q=theirs, x=x: q.compute_codes(x),
                theirs.decode,
            ),
        ):
            _, trained = timed(train)
            codes, encoded = timed(encode)
            spent.setdefault(peer, []).append((trained, encoded))
            errors.setdefault(peer, []).append(
                float(((decode(codes) - x) ** 2).sum() / len(x))
            )
    median = {
        peer: [statistics.median(t[i] for t in times) for i in range(2)]
        for peer, times in spent.items()
    }
    line = {
        "set": name,
        "segments": segments,
        "bits": bits,
        "train_seconds": {p: m[0] for p, m in median.items()},
        "encode_seconds": {p: m[1] for p, m in median.items()},
        "train_speedup": median["faiss"][0] / median["annx"][0],
        "encode_speedup": median["faiss"][1] / median["annx"][1],
        "error_ratio": statistics.mean(errors["annx"])
        / statistics.mean(errors["faiss"]),
    }
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
