# SPDX-License-Identifier: Apache-2.0
"""The command line: ``python -m bench {quick,compare,sweep,growth,...}``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.ann import data, growth, report, run
from bench.ann.adapter import Algorithm, algorithms, load_algorithm
from bench.ann.client import SOURCE_PATHS
from bench.ann.exact import distances_to
from bench.ann.synthetic import local_intrinsic_dimension

__all__ = ["main"]

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "bench" / "out"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the process's exit status."""
    options = _parser().parse_args(arguments)
    sys.path += SOURCE_PATHS
    try:
        return int(options.run(options))
    except (KeyError, ValueError, ImportError) as error:
        text = error.args[0] if isinstance(error, KeyError) else error
        print(f"error: {text}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure annx beside other nearest-neighbour libraries.",
    )
    commands = parser.add_subparsers(required=True)

    quick = commands.add_parser(
        "quick",
        help="the shipped set, installed peers, equal degrees, under two minutes",
    )
    quick.set_defaults(run=_quick)
    _add_common(quick)
    quick.add_argument("--rounds", type=int, default=3)

    full = commands.add_parser("compare", help="annx and its peers, interleaved")
    full.set_defaults(run=_compare)
    _add_data(full)
    _add_common(full)
    full.add_argument("--rounds", type=int, default=5)
    full.add_argument("--targets", type=_floats, default=(0.90, 0.95, 0.99))
    full.add_argument(
        "--first-build",
        action="store_true",
        help="like for like: of each peer only its grid's first build (degree 32)",
    )

    swept = commands.add_parser("sweep", help="a peer's whole grid, once")
    swept.set_defaults(run=_sweep)
    _add_data(swept)
    _add_common(swept)
    swept.add_argument(
        "--commit", action="store_true", help="write bench/ann/*/pareto/DATASET.json"
    )
    swept.add_argument(
        "--first-build", action="store_true", help="only the grid's first build"
    )
    swept.add_argument("--build-timeout", type=float, default=1800.0)

    grown = commands.add_parser(
        "growth", help="cost over the number of rows, one library in memory at a time"
    )
    grown.set_defaults(run=_growth)
    grown.add_argument(
        "--datasets",
        required=True,
        help="of differing size, as in glove-50@10k,glove-50@100k,glove-50",
    )
    grown.add_argument("--queries", type=int, help="use the first so many")
    grown.add_argument("--targets", type=_floats, default=(0.90, 0.95, 0.99))
    _add_common(grown)

    plot = commands.add_parser("plot", help="draw results that were written before")
    plot.set_defaults(run=_plot)
    plot.add_argument("results", nargs="+", type=Path)
    plot.add_argument("--out", type=Path)
    plot.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    plot.add_argument(
        "--merge",
        action="store_true",
        help="one figure of several results on one data set (of sweeps, say)",
    )

    table = commands.add_parser("table", help="print results that were written before")
    table.set_defaults(run=_table)
    table.add_argument("results", nargs="+", type=Path)
    table.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    table.add_argument("--markdown", action="store_true")

    listing = commands.add_parser("list", help="data sets and libraries")
    listing.set_defaults(run=_list)
    listing.add_argument(
        "--lid", metavar="DATASET", help="local intrinsic dimension of a set's queries"
    )
    return parser


def _floats(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--algorithms",
        help="comma-separated folders of bench/ann, or FOLDER:VARIANT (as in "
        "faiss:faiss-hnsw); by default all that are installed",
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--min-seconds", type=float, default=0.3)
    parser.add_argument("--out", type=Path, help="where results go (bench/out)")
    parser.add_argument("--no-plot", action="store_true")
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="which seconds the table and the plot use; both are in the JSON",
    )


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset", default=data.SHIPPED)
    parser.add_argument("--queries", type=int, help="use the first so many")
    parser.add_argument("--base-file", type=Path, help="vectors instead of --dataset")
    parser.add_argument("--query-file", type=Path)
    parser.add_argument("--truth-file", type=Path)
    parser.add_argument("--metric", choices=("l2", "cosine", "ip"), default="l2")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _dataset(options: argparse.Namespace) -> data.Dataset:
    if options.base_file is not None:
        if options.query_file is None:
            raise ValueError("--base-file needs --query-file")
        return data.from_files(
            options.base_file,
            options.query_file,
            truth=options.truth_file,
            metric=options.metric,
            limit=options.queries,
        )
    _say(f"loading {options.dataset}")
    return data.load(options.dataset, queries=options.queries)


def _chosen(names: str | None, *, default: Sequence[Algorithm]) -> list[Algorithm]:
    """The algorithms asked for; those not installed are named and left out."""
    asked = (
        list(default)
        if names is None
        else [_narrowed(name) for name in names.split(",")]
    )
    there = [one for one in asked if one.installed()]
    for one in asked:
        if one not in there:
            _say(f"not installed: {one.name} ({one.install})")
    if not there:
        raise ValueError("none of the algorithms asked for is installed")
    return there


def _narrowed(name: str) -> Algorithm:
    """An algorithm by its folder, or ``folder:variant`` for one of its variants."""
    folder, _, wanted = name.partition(":")
    algorithm = load_algorithm(folder)
    if not wanted:
        return algorithm
    kept = tuple(one for one in algorithm.variants if one.name == wanted)
    if not kept:
        names = [one.name for one in algorithm.variants]
        raise KeyError(f"{folder} has the variants {names}, not {wanted!r}")
    return dataclasses.replace(algorithm, variants=kept)


def _protocol(options: argparse.Namespace, **changes: Any) -> run.Protocol:
    return run.Protocol(
        k=options.k,
        threads=options.threads,
        min_seconds=options.min_seconds,
        **changes,
    )


def _quick(options: argparse.Namespace) -> int:
    chosen = _chosen(options.algorithms, default=algorithms())
    protocol = _protocol(options, rounds=options.rounds)
    protocol = dataclasses.replace(
        protocol, min_seconds=min(options.min_seconds, 0.1), warm_up=50
    )
    result = run.compare(
        data.load(data.SHIPPED),
        chosen,
        protocol,
        _say,
        quick=True,
        first_build_only=True,
    )
    return _finish(result, options)


def _compare(options: argparse.Namespace) -> int:
    # NumPy's brute force is there for the tests and for the quick run.
    everything = [one for one in algorithms() if one.name != "numpy_flat"]
    chosen = _chosen(options.algorithms, default=everything)
    protocol = _protocol(options, rounds=options.rounds, targets=options.targets)
    result = run.compare(
        _dataset(options),
        chosen,
        protocol,
        _say,
        first_build_only=options.first_build,
    )
    return _finish(result, options)


def _sweep(options: argparse.Namespace) -> int:
    peers = [
        one for one in algorithms() if not one.subject and one.name != "numpy_flat"
    ]
    chosen = _chosen(options.algorithms, default=peers)
    dataset = _dataset(options)
    protocol = _protocol(options)
    status = 0
    for algorithm in chosen:
        result = run.sweep(
            dataset,
            [algorithm],
            protocol,
            _say,
            first_build_only=options.first_build,
            build_timeout=options.build_timeout,
        )
        folder = options.out or OUT
        path = report.write_json(result, folder, f"{algorithm.name}-{dataset.name}")
        _say(f"wrote {path}")
        if not result["points"]:
            status = 1
        elif options.commit:
            _say(f"wrote {run.write_pareto(result, algorithm.name)}")
    return status


def _growth(options: argparse.Namespace) -> int:
    chosen = _chosen(options.algorithms, default=algorithms())
    protocol = _protocol(options, targets=options.targets)
    folder = options.out or OUT
    sweeps = []
    for name in options.datasets.split(","):
        _say(f"--- {name}")
        dataset = data.load(name, queries=options.queries)
        result = run.sweep(dataset, chosen, protocol, _say, first_build_only=True)
        _say(f"wrote {report.write_json(result, folder, f'growth-{name}')}")
        sweeps.append(result)
    print(growth.table(sweeps))
    return 0


def _finish(result: dict[str, Any], options: argparse.Namespace) -> int:
    folder = options.out or OUT
    stamp = time.strftime("%Y%m%d-%H%M%S")
    path = report.write_json(result, folder, f"{result['dataset']['name']}-{stamp}")
    print(report.text(result, clock=options.clock))
    print(f"\nresults: {path}")
    if not options.no_plot:
        _draw(result, path.with_suffix(""), options.clock)
    return 0 if result["points"] else 1


def _draw(result: dict[str, Any], stem: Path, clock: str) -> None:
    try:
        from bench.ann import plot
    except ImportError:
        print("no plot: it needs matplotlib (pip install 'annx[bench]')")
        return
    for path in plot.draw(result, stem, clock=clock):
        print(f"plot:    {path}")


def _plot(options: argparse.Namespace) -> int:
    from bench.ann import plot

    results = [json.loads(p.read_text(encoding="utf-8")) for p in options.results]
    stems = [path.with_suffix("") for path in options.results]
    if options.merge:
        results = [report.merge(results)]
        stems = [stems[0].with_name(f"{results[0]['dataset']['name']}-merged")]
    for result, stem in zip(results, stems, strict=False):
        if options.out is not None:
            options.out.mkdir(parents=True, exist_ok=True)
            stem = options.out / stem.name
        for image in plot.draw(result, stem, clock=options.clock):
            print(image)
    return 0


def _table(options: argparse.Namespace) -> int:
    for path in options.results:
        result = json.loads(path.read_text(encoding="utf-8"))
        show = report.markdown if options.markdown else report.text
        print(show(result, clock=options.clock), end="\n\n")
    return 0


def _list(options: argparse.Namespace) -> int:
    if options.lid is not None:
        found = data.load(options.lid, queries=500)
        near = distances_to(found.base, found.queries, found.neighbors, found.metric)
        if found.metric == "cosine":
            near = 2 * near
        elif found.metric == "ip":
            raise ValueError("the inner product has no intrinsic dimension")
        lid = local_intrinsic_dimension(np.sqrt(np.maximum(near, 0)))
        print(f"{options.lid}: local intrinsic dimension {lid:.1f}")
        return 0
    print("data sets")
    for name, where in data.known_names().items():
        print(f"  {name:32} {re.sub(r'^in .*', 'local folder', where)}")
    print("  NAME@ROWS                        a random part of the rows, as in @30k")
    print("  NAME+noise                       with noise and a random rotation")
    print("\nlibraries")
    for one in algorithms():
        state = one.version() if one.installed() else f"not installed: {one.install}"
        kinds = ", ".join(variant.name for variant in one.variants)
        print(f"  {one.name:12} {state:24} {kinds}")
    return 0
