# SPDX-License-Identifier: Apache-2.0
"""Sweeps and comparisons.

A *sweep* builds a library's indexes one after the other and measures each over its
whole grid once; its Pareto points are committed. A *comparison* builds annx and, of
each peer, only what its best three points per recall target need, keeps every index in
its own process, and measures them all in turn, round by round, in an order that is
drawn anew each round. Only one process computes at any moment.
"""

from __future__ import annotations

import dataclasses
import json
import math
import random
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from bench.ann import pareto
from bench.ann.adapter import Algorithm, Params, Variant
from bench.ann.client import Client, WorkerError
from bench.ann.data import Dataset
from bench.ann.exact import STRICT_EPSILON, distances_to, mask_repeats, recall
from bench.ann.machine import describe

__all__ = ["FORMAT", "Protocol", "check_pareto", "compare", "sweep", "write_pareto"]

FORMAT = 1

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How to measure; the defaults are those of a full comparison.

    Attributes
    ----------
    k : int
        Neighbours asked for.
    threads : int
        For building and for batches; single queries are always one thread.
    rounds : int
        Interleaved repeats of every measurement.
    warm_up : int
        Uncounted queries before each measurement.
    min_seconds : float
        Whole passes over the queries are repeated until this much is measured.
    modes : tuple of str
        Of "single" (one query a call) and "batch" (all queries in one call).
    targets : tuple of float
        Recall targets.
    """

    k: int = 10
    threads: int = 1
    rounds: int = 3
    warm_up: int = 200
    min_seconds: float = 0.3
    modes: tuple[str, ...] = ("single", "batch")
    targets: tuple[float, ...] = (0.90, 0.95, 0.99)


class Bench:
    """The running measurement: data on disk for the workers, and the results so far."""

    def __init__(self, dataset: Dataset, protocol: Protocol, kind: str, say: Say):
        self.dataset = dataset
        self.protocol = protocol
        self.say = say
        self.started = time.monotonic()
        self._folder = tempfile.TemporaryDirectory(prefix="annx-bench-")
        self.folder = Path(self._folder.name)
        np.save(self.folder / "base.npy", dataset.base)
        np.save(self.folder / "queries.npy", dataset.queries)
        self.kth = dataset.kth_distance(protocol.k)
        self.clients: dict[int, Client] = {}
        self.result: dict[str, Any] = {
            "format": FORMAT,
            "kind": kind,
            "command": shlex.join(["python", "-m", "bench", *sys.argv[1:]]),
            "machine": describe(),
            "dataset": {
                "name": dataset.name,
                "metric": dataset.metric,
                "rows": len(dataset.base),
                "dim": dataset.base.shape[1],
                "queries": len(dataset.queries),
            },
            "protocol": dataclasses.asdict(protocol),
            "indexes": [],
            "points": [],
            "failures": [],
        }

    def __enter__(self) -> Bench:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number in list(self.clients):
            self.drop(number)
        self._folder.cleanup()

    def progress(self, text: str) -> None:
        """Say what is going on, with the time since the start."""
        self.say(f"[{time.monotonic() - self.started:7.1f} s] {text}")

    def build(
        self,
        algorithm: Algorithm,
        variant: Variant,
        params: Params,
        *,
        timeout: float = 3600.0,
    ) -> int | None:
        """Start a worker and build; the index's number, or None where it failed."""
        number = len(self.result["indexes"])
        title = describe_params(variant.name, params)
        client = Client(
            self.folder, f"{number}-{variant.name}", threads=self.protocol.threads
        )
        try:
            reply = client.build(
                algorithm.name,
                variant.class_name,
                params,
                metric=self.dataset.metric,
                base=self.folder / "base.npy",
                queries=self.folder / "queries.npy",
                threads=self.protocol.threads,
                timeout=timeout,
            )
        except WorkerError as error:
            client.close()
            self.fail(title, error)
            return None
        self.clients[number] = client
        self.result["indexes"].append(
            {
                "algorithm": algorithm.name,
                "version": algorithm.version(),
                "variant": variant.name,
                "exact": variant.exact,
                "subject": algorithm.subject,
                "build": params,
                **reply,
            }
        )
        size = reply["index_bytes"]
        self.progress(
            f"built {title}: {reply['cpu_s']:.1f} CPU s"
            + (f", {size / 2**20:.0f} MiB" if size is not None else "")
        )
        return number

    def measure(self, number: int, search: Params, mode: str) -> Params | None:
        """One measurement of one index, recall included; None where unsupported."""
        protocol = self.protocol
        index = self.result["indexes"][number]
        client = self.clients.get(number)
        if client is None:
            return None
        try:
            reply, ids = client.measure(
                search,
                mode=mode,
                k=protocol.k,
                warm_up=protocol.warm_up,
                min_seconds=protocol.min_seconds,
            )
        except WorkerError as error:
            self.fail(describe_params(index["variant"], search), error)
            self.drop(number)
            return None
        if ids is None:
            return None
        found = distances_to(
            self.dataset.base,
            self.dataset.queries,
            mask_repeats(ids),
            self.dataset.metric,
        )
        reply["recall"] = recall(found, self.kth, protocol.k)
        reply["recall_strict"] = recall(found, self.kth, protocol.k, STRICT_EPSILON)
        return reply

    def drop(self, number: int) -> None:
        """End an index's worker."""
        client = self.clients.pop(number, None)
        if client is not None:
            client.close()

    def fail(self, title: str, error: WorkerError) -> None:
        """Note a failure and go on: one library must not spoil the others' run."""
        self.progress(f"FAILED {title}: {error}")
        self.result["failures"].append({"what": title, "error": str(error)})

    def add(
        self, number: int, search: Params, mode: str, repeats: list[Params]
    ) -> None:
        """Add a point: medians, with every repeat beside them."""
        wall = [one["queries"] / one["wall_s"] for one in repeats]
        processor = [one["queries"] / max(one["cpu_s"], 1e-9) for one in repeats]
        point: dict[str, Any] = {
            "index": number,
            "mode": mode,
            "search": search,
            "recall": statistics.median(one["recall"] for one in repeats),
            "recall_strict": statistics.median(one["recall_strict"] for one in repeats),
            "qps": statistics.median(wall),
            "qps_range": [min(wall), max(wall)],
            "qps_cpu": statistics.median(processor),
            "qps_cpu_range": [min(processor), max(processor)],
            # Above 1 where a library used threads that it was told not to use.
            "cores_used": statistics.median(
                one["cpu_s"] / max(one["wall_s"], 1e-9) for one in repeats
            ),
            "repeats": repeats,
        }
        if mode == "single":
            point["latency_us"] = {
                name: statistics.median(one["latency_us"][name] for one in repeats)
                for name in ("p50", "p95", "p99")
            }
        self.result["points"].append(point)


def describe_params(name: str, params: Params) -> str:
    """``name(a=1, b=2)``."""
    inside = ", ".join(f"{key}={value}" for key, value in params.items())
    return f"{name}({inside})" if inside else name


def _usable(
    chosen: Sequence[Algorithm], dataset: Dataset, quick: bool
) -> list[tuple[Algorithm, Variant]]:
    return [
        (algorithm, variant)
        for algorithm in chosen
        for variant in algorithm.variants
        if dataset.metric in variant.metrics and (variant.quick or not quick)
    ]


def sweep(
    dataset: Dataset,
    chosen: Sequence[Algorithm],
    protocol: Protocol,
    say: Say,
    *,
    first_build_only: bool = False,
    build_timeout: float = 1800.0,
) -> dict[str, Any]:
    """Measure every configuration of the grids once.

    Along the last key of a search grid, which is the effort, a sweep goes no further
    once recall is above 0.9995 or has stopped rising.
    """
    protocol = dataclasses.replace(protocol, rounds=1, modes=("single",))
    with Bench(dataset, protocol, "sweep", say) as bench:
        for algorithm, variant in _usable(chosen, dataset, quick=False):
            builds = variant.build or ({},)
            for params in builds[:1] if first_build_only else builds:
                number = bench.build(algorithm, variant, params, timeout=build_timeout)
                if number is None:
                    continue
                _sweep_searches(bench, number, variant)
                bench.drop(number)
        return bench.result


def _sweep_searches(bench: Bench, number: int, variant: Variant) -> None:
    done: Params | None = None
    last: dict[str, float] = {}
    for search in variant.search or ({},):
        fixed = dict(list(search.items())[:-1])
        if done == fixed:
            continue
        if last and last.get("row") != _row(fixed):
            last = {}
        reply = bench.measure(number, search, "single")
        if reply is None:
            return
        bench.add(number, search, "single", [reply])
        bench.progress(
            f"  {describe_params(variant.name, search)}: recall "
            f"{reply['recall']:.4f}, {reply['queries'] / reply['cpu_s']:,.0f} "
            "queries per CPU second"
        )
        gain = reply["recall"] - last.get("recall", -math.inf)
        if reply["recall"] > 0.9995 or gain < 5e-4:
            done = fixed
        last = {"row": _row(fixed), "recall": reply["recall"]}


def _row(fixed: Params) -> float:
    """A number that tells one row of a grid from another."""
    return float(hash(json.dumps(fixed, sort_keys=True)))


def check_pareto(algorithm: str, dataset: str, k: int) -> None:
    """Refuse to replace points that were swept for another number of neighbours.

    Raises
    ------
    ValueError
        Where there are such points.
    """
    path = pareto.points_path(algorithm, dataset)
    if path.exists():
        stored = json.loads(path.read_text(encoding="utf-8"))["k"]
        if stored != k:
            raise ValueError(
                f"{path} has points for k = {stored}, not {k}; move it away first"
            )


def write_pareto(result: dict[str, Any], algorithm: str) -> Path:
    """Write the Pareto points of one algorithm's sweep where comparisons look.

    Fronts are taken by processor time, the steadier clock on a shared machine, and one
    for each variant, so that no variant of a library hides another. Points that are
    already there stay, if they are of variants or builds that this sweep did not cover;
    delete the file to begin anew.
    """
    dataset, indexes = result["dataset"], result["indexes"]
    k = result["protocol"]["k"]
    check_pareto(algorithm, dataset["name"], k)
    path = pareto.points_path(algorithm, dataset["name"])
    swept: list[Params] = []
    for point in result["points"]:
        index = indexes[point["index"]]
        if index["algorithm"] != algorithm:
            continue
        swept.append(
            {
                "variant": index["variant"],
                "build": index["build"],
                "search": point["search"],
                "recall": round(point["recall"], 5),
                "qps_cpu": round(point["qps_cpu"], 1),
                "build_cpu_s": round(index["cpu_s"], 2),
                "index_mib": round((index["index_bytes"] or 0) / 2**20, 1),
            }
        )
    covered = [(one["variant"], one["build"]) for one in swept]
    # The very file: points that another set lends to this one are not this one's.
    stored = json.loads(path.read_text("utf-8"))["points"] if path.exists() else []
    swept += [
        point for point in stored if (point["variant"], point["build"]) not in covered
    ]
    points: list[Params] = []
    for name in sorted({one["variant"] for one in swept}):
        mine = [one for one in swept if one["variant"] == name]
        points += pareto.front(mine, lambda one: (one["recall"], one["qps_cpu"]))
    version = next(one["version"] for one in indexes if one["algorithm"] == algorithm)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n  ".join(json.dumps(point) for point in points)
    head = {
        "dataset": dataset,
        "k": k,
        "version": version,
        "cpu": result["machine"]["cpu"],
        "isa": result["machine"]["isa"],
    }
    text = json.dumps(head, indent=1)[:-2] + f',\n "points": [\n  {lines}\n ]\n}}\n'
    path.write_text(text, encoding="utf-8")
    return path


def _plan(
    algorithm: Algorithm,
    variant: Variant,
    dataset: str,
    protocol: Protocol,
    first_build_only: bool,
) -> list[tuple[Params, list[Params]]]:
    """What to build and search of a variant: (build, searches) pairs.

    annx always goes over its whole grid; a peer over its committed best, and over its
    whole grid where it was never swept on this data set.
    """
    builds = variant.build or ({},)
    if first_build_only:
        builds = builds[:1]
    whole = [(build, list(variant.search or ({},))) for build in builds]
    if algorithm.subject or variant.exact:
        return whole
    points = pareto.load_points(algorithm.name, dataset, protocol.k)
    if points is None:
        return whole
    mine = [
        point
        for point in points
        if point["variant"] == variant.name
        and (not first_build_only or point["build"] == builds[0])
    ]
    if not mine:
        return whole
    best = pareto.select(
        mine, protocol.targets, lambda one: (one["recall"], one["qps_cpu"])
    )
    plan: list[tuple[Params, list[Params]]] = []
    for point in best:
        for build, searches in plan:
            if build == point["build"]:
                searches.append(point["search"])
                break
        else:
            plan.append((point["build"], [point["search"]]))
    return plan


def compare(
    dataset: Dataset,
    chosen: Sequence[Algorithm],
    protocol: Protocol,
    say: Say,
    *,
    quick: bool = False,
    first_build_only: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure annx and its peers interleaved.

    Parameters
    ----------
    dataset : Dataset
    chosen : sequence of Algorithm
        Those to compare; the ones that are not installed must have been left out.
    protocol : Protocol
    say : callable
        Receives lines of progress.
    quick : bool
        Only the variants that a quick run covers.
    first_build_only : bool
        Of each peer only the first build of its grid, which for the graphs is the one
        like annx's own (degree 32, or M = 16).
    seed : int
        Of the order within the rounds.
    """
    kind = "quick" if quick else "compare"
    with Bench(dataset, protocol, kind, say) as bench:
        jobs: list[tuple[int, Params, str]] = []
        for algorithm, variant in _usable(chosen, dataset, quick):
            plan = _plan(algorithm, variant, dataset.name, protocol, first_build_only)
            for build, searches in plan:
                number = bench.build(algorithm, variant, build)
                if number is None:
                    continue
                jobs += [
                    (number, search, mode)
                    for search in searches
                    for mode in protocol.modes
                ]
        order = random.Random(seed)
        repeats: dict[int, list[Params]] = {i: [] for i in range(len(jobs))}
        for turn in range(protocol.rounds):
            bench.progress(
                f"round {turn + 1} of {protocol.rounds}: {len(jobs)} measurements"
            )
            sequence = list(repeats)
            order.shuffle(sequence)
            for count, i in enumerate(sequence, 1):
                number, search, mode = jobs[i]
                reply = bench.measure(number, search, mode)
                if reply is None:
                    # Unsupported or failed: later rounds need not ask again.
                    del repeats[i]
                else:
                    repeats[i].append(reply)
                if count % 25 == 0:
                    bench.progress(f"  {count} of {len(sequence)}")
        for i, found in repeats.items():
            bench.add(*jobs[i], found)
        return bench.result
