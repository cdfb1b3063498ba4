# SPDX-License-Identifier: Apache-2.0
"""Inverted files beside faiss, the RaBitQ library and ScaNN, on one thread.

python -m bench.ivf [--sets NAME,...] [--queries 1000] [--repeats 3] [--peers NAME,...]
                    [--grid codes|flat|sq8|sq4|bits4|bits8|spill|rotation]
python -m bench.ivf --scan
python -m bench.ivf --bytes
python -m bench.ivf --estimates
python -m bench.ivf --stream 10000000

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


PROBES = (4, 8, 12, 16, 24, 32, 48, 64, 96, 128)


def flat_grid():
    """Vectors in lists: as they are, and in faiss too."""
    from bench.ann.faiss.module import IvfRows

    lists = [{"lists_per_sqrt_n": lists} for lists in (1, 2, 4)]
    settings = [{"n_probe": p} for p in (2, 3, 6, *PROBES)]
    return {
        "annx": (AnnxIvf, [{**b, "codec": "flat"} for b in lists], settings),
        "faiss": (IvfRows, [{**b, "rows": "Flat"} for b in lists], settings),
    }


def codes_grid():
    """Codes to shortlist and vectors to rank, each library as it is meant."""
    from bench.ann.faiss.module import IvfPqFastScan
    from bench.ann.rabitqlib.module import Ivf
    from bench.ann.scann.module import Tree

    probes = PROBES
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


def short_grid(ours, peer, theirs):
    """Codes in place of vectors: annx's, and a peer's of the same length."""
    from bench.ann.faiss.module import IvfRows
    from bench.ann.rabitqlib.module import Ivf

    cls = {"faiss": IvfRows, "rabitqlib": Ivf}[peer]
    return {
        "annx": (
            AnnxIvf,
            [{"lists_per_sqrt_n": lists, **ours} for lists in (1, 2)],
            [
                {"n_probe": p, "rerank": r}
                for p, r in itertools.product((2, 3, 6, *PROBES), (2, 4, 10))
            ],
        ),
        peer: (
            cls,
            [{"lists_per_sqrt_n": lists, **theirs} for lists in (1, 2, 4)],
            [{"n_probe": p} for p in (2, 3, 6, *PROBES)],
        ),
    }


def spill_grid():
    """Second lists, beside one list a vector."""
    settings = [
        {"n_probe": p, "rerank": r}
        for p, r in itertools.product((3, 5, 6, *PROBES), (2, 4, 10))
    ]
    builds = [{"lists_per_sqrt_n": lists, "codec": "pq4"} for lists in (1, 2)]
    return {
        "annx": (AnnxIvf, builds, settings),
        "annx with spill": (
            AnnxIvf,
            [{**b, "spill": spill} for b in builds for spill in (0.5, 1.0)],
            settings,
        ),
    }


def rotation_grid():
    """4-bit codes of differences rotated at random or by what was learnt."""
    settings = [
        {"n_probe": p, "rerank": r}
        for p, r in itertools.product((3, 5, 6, *PROBES), (1, 2, 4, 10))
    ]
    builds = [{"lists_per_sqrt_n": lists, "codec": "pq4"} for lists in (1, 2)]
    return {
        "annx": (AnnxIvf, builds, settings),
        "annx rotated": (
            AnnxIvf,
            [{**b, "rotation": "random"} for b in builds],
            settings,
        ),
        "annx opq": (AnnxIvf, [{**b, "rotation": "opq"} for b in builds], settings),
    }


# Each library's adapter, builds and search settings.
GRIDS = {
    "codes": codes_grid,
    "flat": flat_grid,
    "rotation": rotation_grid,
    "spill": spill_grid,
    "sq8": lambda: short_grid({"storage": "sq8"}, "faiss", {"rows": "SQ8"}),
    "sq4": lambda: short_grid({"storage": "sq4"}, "faiss", {"rows": "SQ4"}),
    **{
        f"bits{bits}": lambda bits=bits: short_grid(
            {"storage": "codes", "bits": bits},
            "rabitqlib",
            {"bits": bits, "space": "l2"},
        )
        for bits in (4, 8)
    },
}


def run_set(name, n_queries, repeats, peers, grid, k=10):
    """Build everything, sweep it, and measure the settings that matter again."""
    dataset = data.load(name).take(n_queries)
    base, queries = dataset.base, dataset.queries
    unit = {}
    if dataset.metric == "cosine":
        unit["base"] = base / np.linalg.norm(base, axis=1, keepdims=True)
        unit["queries"] = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    candidates = []
    for peer, (cls, builds, settings) in grid.items():
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
    for peer, target in itertools.product(grid, TARGETS):
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
        for peer in grid:
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
                for peer in grid
                if f"{peer} {how}" in line
            }
            ours = rates.pop("annx", 0)
            if rates:
                line[f"ratio {how}"] = round(ours / max(rates.values()), 2)
        print(json.dumps(line), flush=True)


def run_scan(repeats, n=100_000):
    """Codes a second in one list, beside faiss's scans of the same codes."""
    import faiss

    faiss.omp_set_num_threads(1)
    rng = np.random.default_rng(0)
    for dim, segments in ((16, 16), (32, 32), (64, 64), (128, None)):
        rows = rng.standard_normal((n, dim)).astype(np.float32)
        queries = rng.standard_normal((20, dim)).astype(np.float32)
        options = {"codec": "pq4", "n_segments": segments} if segments else {}
        ours = annx.IVFIndex(dim, n_lists=1, storage="codes", **options)
        ours.train(rows[:5000], threads=1)
        ours.add(rows, threads=1)
        theirs = (
            faiss.IndexPQFastScan(dim, segments, 4)
            if segments
            else faiss.IndexRaBitQ(dim)
        )
        theirs.train(rows[:5000])
        theirs.add(rows)

        def one(queries=queries, ours=ours):
            for query in queries:
                ours.search(query, 10, n_probe=1, rerank=0, threads=1)

        def other(queries=queries, theirs=theirs):
            for query in queries:
                theirs.search(query[None], 10)

        def our_batch(queries=queries, ours=ours):
            ours.search(queries, 10, n_probe=1, rerank=0, threads=1)

        def batch(queries=queries, theirs=theirs):
            theirs.search(queries, 10)

        calls = {
            "annx": one,
            "faiss": other,
            "annx batch": our_batch,
            "faiss batch": batch,
        }
        spent = {name: [] for name in calls}
        for _ in range(max(repeats, 7)):
            for name, call in calls.items():
                spent[name].append(seconds(call))
        rates = {
            name: round(n * len(queries) / statistics.median(times) / 1e6)
            for name, times in spent.items()
        }
        kind = f"{segments} x 4 bits" if segments else f"{dim} x 1 bit"
        print(json.dumps({"codes": kind, "million a second": rates}), flush=True)


def run_bytes(names, repeats, k=10):
    """8-bit product codes alone, beside faiss's of as many bytes and lists."""
    import faiss

    faiss.omp_set_num_threads(1)
    for name in names:
        dataset = data.load(name).take(300)
        base, queries = dataset.base, dataset.queries
        if dataset.metric == "cosine":
            base = base / np.linalg.norm(base, axis=1, keepdims=True)
            queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
        dim = base.shape[1]
        # Whole segments of 4 dimensions, or 2.
        segments = dim // 4 if dim % 4 == 0 else dim // 2
        lists = round(2 * len(base) ** 0.5)
        # Not faiss's OPQ: its training takes many minutes.
        theirs = faiss.index_factory(dim, f"IVF{lists},PQ{segments}")
        plain, learnt = (
            annx.IVFIndex(
                dim,
                n_lists=lists,
                codec="pq8",
                n_segments=segments,
                rotation=rotation,
                storage="codes",
            )
            for rotation in (None, "opq")
        )
        built = {
            **{
                peer: seconds(
                    lambda i=i, x=base: i.train(x, threads=1).add(x, threads=1)
                )
                for peer, i in (("annx", plain), ("annx opq", learnt))
            },
            "faiss": seconds(lambda i=theirs, x=base: (i.train(x), i.add(x))),
        }
        for n_probe in (16, 64):
            theirs.nprobe = n_probe
            how = {"n_probe": n_probe, "threads": 1}
            calls = {
                "annx": lambda q=queries, i=plain, h=how: i.search(q, k, **h).ids,
                "annx opq": lambda q=queries, i=learnt, h=how: i.search(q, k, **h).ids,
                "faiss": lambda q=queries, i=theirs: i.search(q, k)[1],
            }
            spent = {peer: [] for peer in calls}
            for _ in range(max(repeats, 5)):
                for peer, call in calls.items():
                    spent[peer].append(seconds(call))
            line = {
                "set": name,
                "bytes": segments,
                "n_probe": n_probe,
                "build_seconds": {p: round(s, 2) for p, s in built.items()},
            }
            for peer, call in calls.items():
                line[peer] = {
                    "recall": round(recall_of(call(), dataset, k), 4),
                    "us": round(statistics.median(spent[peer]) / len(queries) * 1e6, 1),
                }
            line["ratio"] = round(line["faiss"]["us"] / line["annx"]["us"], 2)
            print(json.dumps(line), flush=True)


def run_estimates(names, n=20_000, lists=64, k=100):
    """Errors of estimated distances beside the RaBitQ library's of as many bits."""
    import rabitqlib

    for name in names:
        dataset = data.load(name).take(50)
        base, queries = dataset.base[:n], dataset.queries
        exact = annx.pairwise_distances(queries, base)

        def error(ids, found, exact=exact):
            truth = np.take_along_axis(exact, np.asarray(ids, np.int64), 1)
            return float(np.sqrt(np.square(np.asarray(found) / truth - 1).mean()))

        clustering = rabitqlib.RaBitQKMeans(base.shape[1], lists, num_threads=1)
        clustering.train(base)
        for bits in range(1, 9):
            theirs = rabitqlib.IvfIndex(
                dim=base.shape[1],
                max_elements=n,
                num_clusters=lists,
                nbits=bits,
                metric="l2",
            )
            theirs.build(base, clustering.centroids, clustering.assignments)
            ours = annx.IVFIndex.build(base, n_lists=lists, storage="codes", bits=bits)
            own = error(*ours.search(queries, k, n_probe=lists, epsilon=9))
            other = error(*theirs.search(queries, k, lists)[:2])
            line = {"set": name, "bits": bits, "annx": own, "rabitqlib": other}
            print(json.dumps({**line, "ratio": round(own / other, 3)}), flush=True)


def run_stream(n, dim=96, portion=100_000):
    """Codes of n generated rows, streamed in: peak memory, search, a mapped file."""
    import resource
    import tempfile
    from pathlib import Path

    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def rows(part, count=portion):
        rng = np.random.default_rng(part)
        middles = np.random.default_rng(1 << 40).standard_normal((1000, dim))
        noise = rng.standard_normal((count, dim), np.float32)
        return noise + 2 * middles[rng.integers(0, 1000, count)].astype(np.float32)

    index = annx.IVFIndex(dim, n_lists=1024, storage="codes")
    trained = seconds(lambda: index.train(rows(-1 % (1 << 32)), threads=1))
    before = peak()
    added = 0.0
    for part in range(n // portion):
        batch = rows(part)
        added += seconds(lambda b=batch: index.add(b, threads=1))
    memory = index.memory_usage()
    grown = peak() - before
    queries = rows(0, 100)
    found = index.search(queries, 10, n_probe=16, threads=1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "codes.annx"
        index.save(path)
        size = path.stat().st_size
        mapped = annx.load(path, mmap=True, verify="structure")
        again = mapped.search(queries, 10, n_probe=16, threads=1)
    line = {
        "vectors": len(index),
        "dim": dim,
        "train_seconds": round(trained, 1),
        "add_seconds": round(added, 1),
        "bytes_held": memory["total"],
        "bytes_a_vector": round(memory["total"] / len(index), 2),
        "file_bytes": size,
        "peak_before_adding": before,
        "peak_growth": grown,
        "peak_growth_less_codes": grown - memory["total"],
        "mapped_answers_alike": bool(np.array_equal(found.ids, again.ids)),
    }
    print(json.dumps(line), flush=True)


def main():
    """Measure and print a line a set and recall."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peers", default="")
    parser.add_argument("--grid", choices=GRIDS, default="codes")
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--scan", action="store_true")
    one.add_argument("--bytes", action="store_true")
    one.add_argument("--estimates", action="store_true")
    one.add_argument("--stream", type=int, default=0)
    args = parser.parse_args()
    if args.scan:
        run_scan(args.repeats)
        return
    if args.bytes:
        run_bytes(args.sets.split(","), args.repeats)
        return
    if args.estimates:
        run_estimates(args.sets.split(","))
        return
    if args.stream:
        run_stream(args.stream)
        return
    peers = [p for p in args.peers.split(",") if p]
    for name in args.sets.split(","):
        run_set(name, args.queries, args.repeats, peers, GRIDS[args.grid]())


if __name__ == "__main__":
    main()
