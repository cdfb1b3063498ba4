# SPDX-License-Identifier: Apache-2.0
"""What a sample of the queries to come does for a graph: ``queries=`` of GraphIndex.

python -m bench.queries [--set wordnet-minilm-384:ood] [--samples 2500,1000,500]
    [--others wordnet-minilm-384:held-out] [--repeats 3] [--rounds 5] [--k 10]

For every repeat the queries are split anew at random: half is what samples are taken
from, the other half is searched for. An index without a sample and one for each size of
sample are built and then searched in turns, one query a call, on one thread. Of every
index the two values of ef around a recall are timed, and the time at that recall is
interpolated between them, linearly in recall and in the logarithm of the time.
``--others`` names queries to be searched for besides, which no sample is taken from:
what a sample costs them. Processor time throughout; a line of JSON a repeat, then
medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import numpy as np

import annx
from bench.ann import data
from bench.ann.exact import distances_to, recall

TARGETS = (0.90, 0.95, 0.99)
WIDTHS = (10, 12, 14, 17, 20, 24, 30, 38, 48, 64, 84, 110, 145, 190, 250, 330, 430, 600)


class Asked:
    """Queries, and how near their k-th neighbour is."""

    def __init__(self, found: data.Dataset, chosen, k: int) -> None:
        self.base = found.base
        self.metric = found.metric
        self.k = k
        self.rows = found.queries[chosen]
        kth = found.neighbors[chosen][:, k - 1 : k]
        self.kth = distances_to(self.base, self.rows, kth, self.metric)[:, 0]

    def recall(self, ids) -> float:
        """As the bench counts it."""
        far = distances_to(self.base, self.rows, ids, self.metric)
        return recall(far, self.kth, self.k)


def around(index, asked):
    """The points (ef, recall) between which each target lies, None if out of reach."""
    points = []
    for ef in WIDTHS:
        ids = index.search(asked.rows, asked.k, ef=max(ef, asked.k), threads=1).ids
        points.append((ef, asked.recall(ids)))
        if points[-1][1] >= TARGETS[-1]:
            break
    pairs = []
    for target in TARGETS:
        above = next((i for i, p in enumerate(points) if p[1] >= target), None)
        pairs.append(
            None if above is None else (points[max(above - 1, 0)], points[above])
        )
    return pairs


def in_turns(indexes, asked, rounds, most):
    """Microseconds a query at each target, of every index."""
    pairs = [around(index, asked) for index in indexes]
    queries = list(asked.rows[:most])
    times: dict[tuple[int, int], list[float]] = {}
    for _ in range(rounds):
        for at in range(len(TARGETS)):
            for number, index in enumerate(indexes):
                for ef, _ in pairs[number][at] or ():
                    start = time.process_time()
                    for query in queries:
                        index.search(query, asked.k, ef=ef)
                    spent = (time.process_time() - start) / len(queries) * 1e6
                    times.setdefault((number, ef), []).append(spent)
    result = []
    for number, found in enumerate(pairs):
        line = []
        for target, pair in zip(TARGETS, found, strict=True):
            if pair is None:
                line.append(None)
                continue
            low, high = (
                (r, np.log(statistics.median(times[number, ef]))) for ef, r in pair
            )
            where = sorted({low, high})
            line.append(
                float(np.exp(np.interp(target, *zip(*where, strict=True)))),
            )
        result.append(line)
    return result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", default="wordnet-minilm-384:ood")
    parser.add_argument("--others", default="wordnet-minilm-384:held-out")
    parser.add_argument("--samples", default="2500,1000,500")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--queries", type=int, default=1000, help="to be timed")
    parser.add_argument("--k", type=int, default=10)
    args = parser.parse_args()
    found = data.load(args.set)
    others = data.load(args.others) if args.others else None
    sizes = [0, *(int(size) for size in args.samples.split(","))]
    lines = []
    for repeat in range(args.repeats):
        order = np.random.default_rng(repeat).permutation(len(found.queries))
        half = len(order) // 2
        sample = found.queries[order[:half]]
        sets = {"like the sample": Asked(found, order[half:], args.k)}
        if others is not None:
            sets["others"] = Asked(others, slice(None, half), args.k)
        indexes = []
        line = {"set": args.set, "repeat": repeat, "samples": sizes, "built": []}
        for size in sizes:
            start = time.process_time()
            index = annx.GraphIndex.build(
                found.base,
                metric=found.metric,
                queries=sample[:size],
                seed=repeat,
                threads=1,
            )
            facts = index.stats()
            line["built"].append(
                {
                    "seconds": time.process_time() - start,
                    "links": facts["links"],
                    "growth": facts["growth"],
                    "memory": facts["memory"],
                }
            )
            indexes.append(index)
        for name, asked in sets.items():
            line[name] = in_turns(indexes, asked, args.rounds, args.queries)
        print(json.dumps(line), flush=True)
        lines.append(line)
    print(f"\nus a query at recall {TARGETS}; seconds, links and bytes of building")
    for number, size in enumerate(sizes):
        for name in sets:
            at = [
                [line[name][number][target] for line in lines]
                for target in range(len(TARGETS))
            ]
            base = [
                [line[name][0][target] for line in lines]
                for target in range(len(TARGETS))
            ]
            cells = []
            for times, plain in zip(at, base, strict=True):
                if None in times:
                    cells.append("-")
                    continue
                text = f"{statistics.median(times):.1f}"
                if None not in plain:
                    ratio = [p / t for p, t in zip(plain, times, strict=True)]
                    text += f" ({statistics.median(ratio):.2f}x)"
                cells.append(text)
            print(f"sample {size:5}  {name:16}", *(f"{cell:>16}" for cell in cells))
        built = [line["built"][number] for line in lines]
        middle = {key: statistics.median(one[key] for one in built) for key in built[0]}
        print(f"sample {size:5}  building        ", middle)


if __name__ == "__main__":
    main()
