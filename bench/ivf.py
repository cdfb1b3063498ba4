# SPDX-License-Identifier: Apache-2.0
"""Inverted files beside faiss, the RaBitQ library and ScaNN, on one thread.

python -m bench.ivf [--sets NAME,...] [--queries 1000] [--repeats 3] [--peers NAME,...]
python -m bench.ivf --scan

All indexes of a set are in one process, and every setting is measured in turns, in
processor time; a figure is the median. For each recall the fastest setting of each
library that reaches it is given, and what it costs to build and to hold.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

import annx
from bench.ann import data
from bench.ann.adapter import Adapter

SETS = ("sift-photos-128", "glove-50", "wordnet-minilm-384", "fashion-mnist-784")
TARGETS = (0.90, 0.95, 0.99)


class AnnxIvf(Adapter):
    """IVFIndex."""

    def build(self, base):
        lists = max(1, round(self.params["lists_per_sqrt_n"] * len(base) ** 0.5))
        self.index = annx.IVFIndex(
            self.dim,
            self.metric,
            n_lists=lists,
            **{k: v for k, v in self.params.items() if k != "lists_per_sqrt_n"},
        )
        self.index.train(base, threads=1)
        self.index.add(base, threads=1)

    def searcher(self, k, **params):
        search = self.index.search
        return lambda query: search(query, k, threads=1, **params).ids

    def batcher(self, k, **params):
        search = self.index.search
        return lambda queries: search(queries, k, threads=1, **params).ids


def grids():
    """Each library's adapter, builds and search settings."""
    from bench.ann.faiss.module import IvfPqFastScan
    from bench.ann.rabitqlib.module import Ivf
    from bench.ann.scann.module import Tree

    probes = (4, 8, 12, 16, 24, 32, 48, 64, 96, 128)
    return {
        "annx": (
            AnnxIvf,
            [
                {"lists_per_sqrt_n": lists, **codec}
                for lists in (1, 2)
                for codec in ({"codec": "rabitq"}, {"codec": "pq4"})
            ],
            [
                {"n_probe": p, "rerank": r}
                for p, r in itertools.product(probes, (2, 4, 10))
            ],
        ),
        "faiss": (
            IvfPqFastScan,
            [
                {"lists_per_sqrt_n": lists, "block": 2, "residual": False}
                for lists in (2, 4)
            ],
            [
                {"n_probe": p, "k_factor": r}
                for p, r in itertools.product(probes, (2, 5, 10, 20))
            ],
        ),
        "rabitqlib": (
            Ivf,
            [
                {"lists_per_sqrt_n": lists, "bits": 32, "space": "l2"}
                for lists in (2, 4)
            ],
            [{"n_probe": p} for p in probes],
        ),
        "scann": (
            Tree,
            [
                {
                    "lists_per_sqrt_n": lists,
                    "leaves_per_sqrt_n": lists,
                    "block": 2,
                    "threshold": 0.2,
                    "soar_lambda": soar,
                }
                for lists in (1, 2)
                for soar in (None, 1.5)
            ],
            [
                {"leaves": p, "reorder": r}
                for p, r in itertools.product(probes, (20, 40, 80, 160))
            ],
        ),
    }


def recall_of(found, dataset, k):
    """Share of the true neighbours that were found."""
    pairs = zip(np.asarray(found), dataset.neighbors[:, :k], strict=True)
    return sum(len(set(a.tolist()) & set(b.tolist())) for a, b in pairs) / (
        len(found) * k
    )


def seconds(call):
    """Processor seconds of a call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def run_set(name, n_queries, repeats, peers, k=10):
    """Build everything, sweep it, and measure the settings that matter again."""
    dataset = data.load(name).take(n_queries)
    base, queries = dataset.base, dataset.queries
    unit = {}
    if dataset.metric == "cosine":
        unit["base"] = base / np.linalg.norm(base, axis=1, keepdims=True)
        unit["queries"] = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    candidates = []
    for peer, (cls, builds, settings) in grids().items():
        if peers and peer not in peers:
            continue
        rows = unit.get("base", base) if cls.unit_rows else base
        asked = unit.get("queries", queries) if cls.unit_rows else queries
        for build in builds:
            if build.get("soar_lambda") and dataset.metric == "l2":
                continue
            adapter = cls(base.shape[1], dataset.metric, 1, **build)
            built = seconds(lambda a=adapter, r=rows: a.build(r))
            single = adapter.split(asked)
            for setting in settings:
                batch = adapter.batcher(k, **setting)
                start = time.process_time()
                found = batch(asked)
                spent = time.process_time() - start
                recall = recall_of(adapter.ids(found), dataset, k)
                if recall < TARGETS[0]:
                    continue
                candidates.append(
                    {
                        "peer": peer,
                        "adapter": adapter,
                        "build": build,
                        "built": built,
                        "setting": setting,
                        "asked": asked,
                        "single": single,
                        "recall": recall,
                        "first": spent,
                    }
                )
                if recall > 0.998:
                    break
        print(f"{name}: {peer} swept", file=sys.stderr, flush=True)
    # The four quickest settings of each library for each recall, in turns.
    chosen = {}
    for peer, target in itertools.product(grids(), TARGETS):
        fit = [c for c in candidates if c["peer"] == peer and c["recall"] >= target]
        for one in sorted(fit, key=lambda c: c["first"])[:4]:
            chosen[id(one)] = one
    for one in chosen.values():
        one["batch"], one["each"] = [], []
    for _ in range(repeats):
        for one in chosen.values():
            adapter, asked = one["adapter"], one["asked"]
            batch = adapter.batcher(k, **one["setting"])
            one["batch"].append(seconds(lambda b=batch, q=asked: b(q)))
            search = adapter.searcher(k, **one["setting"])
            one["each"].append(
                seconds(lambda s=search, qs=one["single"]: [s(q) for q in qs])
            )
    for target in TARGETS:
        line = {"set": name, "recall": target}
        for peer in grids():
            fit = [
                c
                for c in chosen.values()
                if c["peer"] == peer and c["recall"] >= target
            ]
            for how in ("each", "batch"):
                best = min(fit, key=lambda c: statistics.median(c[how]), default=None)
                if best is not None:
                    line[f"{peer} {how}"] = {
                        "qps": round(len(queries) / statistics.median(best[how])),
                        "recall": round(best["recall"], 4),
                        "build": best["build"],
                        "setting": best["setting"],
                        "build_seconds": round(best["built"], 2),
                    }
        for how in ("each", "batch"):
            rates = {
                peer: line[f"{peer} {how}"]["qps"]
                for peer in grids()
                if f"{peer} {how}" in line
            }
            ours = rates.pop("annx", 0)
            if rates:
                line[f"ratio {how}"] = round(ours / max(rates.values()), 2)
        print(json.dumps(line), flush=True)


def main():
    """Measure and print a line a set and recall."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peers", default="")
    args = parser.parse_args()
    peers = [p for p in args.peers.split(",") if p]
    for name in args.sets.split(","):
        run_set(name, args.queries, args.repeats, peers)


if __name__ == "__main__":
    main()
