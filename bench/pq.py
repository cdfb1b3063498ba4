# SPDX-License-Identifier: Apache-2.0
"""Product quantization beside faiss on one thread: processor time and error.

python -m bench.pq [--repeats 3]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import annx
from bench.kmeans import load_base  # first: it limits the threads of BLAS

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


def main():
    """Measure and print a line a case."""
    import faiss

    faiss.omp_set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    for name, segments, bits in CASES:
        x = load_base(name)
        dim = x.shape[1]
        spent = {}
        errors = {}
        for seed in range(args.repeats):
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
