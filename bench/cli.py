# SPDX-License-Identifier: Apache-2.0
"""The command line: ``python -m bench {quick,compare,sweep,growth,...}``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
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
from bench.ann.exact import METRICS, distances_to
from bench.ann.synthetic import local_intrinsic_dimension

__all__ = ["main"]

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "bench" / "out"

_EXTRA = "pip install 'annx[bench]'"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the process's exit status."""
    options = _parser().parse_args(arguments)
    sys.path += SOURCE_PATHS
    try:
        return int(options.run(options))
    except (KeyError, ValueError, ImportError, OSError) as error:
        text = error.args[0] if isinstance(error, KeyError) else error
        print(f"error: {text}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


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
    _add_protocol(quick, min_seconds=0.1)
    _add_rounds(quick, 3)
    _add_clock(quick)
    _add_no_plot(quick)

    full = commands.add_parser("compare", help="annx and its peers, interleaved")
    full.set_defaults(run=_compare)
    _add_data(full)
    _add_protocol(full)
    _add_rounds(full, 5)
    _add_targets(full)
    _add_first_build(full)
    _add_clock(full)
    _add_no_plot(full)

    swept = commands.add_parser("sweep", help="whole grids of peers, each point once")
    swept.set_defaults(run=_sweep)
    _add_data(swept)
    _add_protocol(swept, default="all installed peers")
    _add_targets(swept)
    _add_first_build(swept)
    swept.add_argument(
        "--commit", action="store_true", help="write bench/ann/*/pareto/DATASET.json"
    )
    swept.add_argument(
        "--build-timeout",
        type=_seconds,
        default=1800.0,
        help="seconds after which an index is given up (%(default)g)",
    )
    _add_clock(swept)
    _add_no_plot(swept)

    grown = commands.add_parser(
        "growth", help="cost over the number of rows, one library in memory at a time"
    )
    grown.set_defaults(run=_growth)
    grown.add_argument(
        "--datasets",
        required=True,
        help="of differing size, as in glove-50@10k,glove-50@100k,glove-50",
    )
    _add_queries(grown)
    _add_protocol(grown)
    _add_targets(grown)
    _add_clock(grown)

    plot = commands.add_parser("plot", help="draw results that were written before")
    plot.set_defaults(run=_plot)
    plot.add_argument("results", nargs="+", type=Path)
    plot.add_argument("--out", type=Path, help="folder (that of the results)")
    _add_clock(plot)
    plot.add_argument(
        "--merge",
        action="store_true",
        help="one figure of several results on one data set (of sweeps, say)",
    )

    table = commands.add_parser("table", help="print results that were written before")
    table.set_defaults(run=_table)
    table.add_argument("results", nargs="+", type=Path)
    _add_clock(table)
    table.add_argument("--markdown", action="store_true")

    listing = commands.add_parser("list", help="data sets and libraries")
    listing.set_defaults(run=_list)
    listing.add_argument(
        "--lid", metavar="DATASET", help="local intrinsic dimension of a set's queries"
    )
    return parser


def _count(text: str) -> int:
    """A number of something, 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return value


def _recalls(text: str) -> tuple[float, ...]:
    """Recall targets, ascending and none twice."""
    try:
        found = sorted({float(part) for part in text.split(",")})
    except ValueError:
        found = []
    if not found or not all(0 < target <= 1 for target in found):
        raise argparse.ArgumentTypeError(
            f"{text!r} should be recalls between 0 and 1, as in 0.9,0.95"
        )
    return tuple(found)


# Every command gets the options that it uses and no others.


def _add_protocol(
    parser: argparse.ArgumentParser,
    *,
    default: str = "all that are installed",
    min_seconds: float = 0.3,
) -> None:
    parser.add_argument(
        "--algorithms",
        help="comma-separated folders of bench/ann, or FOLDER:VARIANT (as in "
        f"faiss:faiss-hnsw); by default {default}",
    )
    parser.add_argument(
        "--threads",
        type=_count,
        default=1,
        help="for building and for batches (%(default)s); single queries have one",
    )
    parser.add_argument(
        "--k", type=_count, default=10, help="neighbours asked for (%(default)s)"
    )
    parser.add_argument(
        "--min-seconds",
        type=_seconds,
        default=min_seconds,
        help="passes over the queries are repeated for so long (%(default)s)",
    )
    parser.add_argument("--out", type=Path, help="where results go (bench/out)")


def _add_rounds(parser: argparse.ArgumentParser, default: int) -> None:
    parser.add_argument(
        "--rounds",
        type=_count,
        default=default,
        help="interleaved repeats, of which medians are shown (%(default)s)",
    )


def _add_targets(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--targets",
        type=_recalls,
        default=(0.90, 0.95, 0.99),
        help="recalls at which speeds are given (0.9,0.95,0.99)",
    )


def _add_first_build(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--first-build",
        action="store_true",
        help="like for like: of each peer only its grid's first build (degree 32)",
    )


def _add_clock(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="which seconds are shown (%(default)s); both are in the JSON",
    )


def _add_no_plot(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-plot", action="store_true", help="draw no figures")


def _add_queries(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--queries", type=_count, help="use the first so many")


def _add_data(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--dataset", help=f"a name (see `list`) or an HDF5 file ({data.SHIPPED})"
    )
    which.add_argument("--base-file", type=Path, help="vectors instead of --dataset")
    parser.add_argument("--query-file", type=Path, help="goes with --base-file")
    parser.add_argument(
        "--truth-file", type=Path, help="goes with --base-file; else computed"
    )
    parser.add_argument("--metric", choices=METRICS, help="goes with --base-file (l2)")
    _add_queries(parser)


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
            metric=options.metric or "l2",
            limit=options.queries,
        )
    for name in ("query_file", "truth_file", "metric"):
        if getattr(options, name) is not None:
            flag = "--" + name.replace("_", "-")
            raise ValueError(f"{flag} goes with --base-file; a named set has its own")
    name = options.dataset or data.SHIPPED
    _say(f"loading {name}")
    return data.load(name, queries=options.queries)


def _chosen(names: str | None, *, default: Sequence[Algorithm]) -> list[Algorithm]:
    """The algorithms asked for; those not installed are named and left out."""
    asked = list(default)
    if names is not None:
        asked = _joined([_narrowed(name.strip()) for name in names.split(",")])
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


def _joined(asked: Sequence[Algorithm]) -> list[Algorithm]:
    """Each library once, with all the variants that were asked for."""
    whole: dict[str, Algorithm] = {}
    for one in asked:
        known = whole.get(one.name)
        have = () if known is None else known.variants
        new = tuple(variant for variant in one.variants if variant not in have)
        whole[one.name] = dataclasses.replace(one, variants=have + new)
    return list(whole.values())


def _protocol(options: argparse.Namespace, **changes: Any) -> run.Protocol:
    return run.Protocol(
        k=options.k,
        threads=options.threads,
        min_seconds=options.min_seconds,
        **changes,
    )


def _quick(options: argparse.Namespace) -> int:
    chosen = _chosen(options.algorithms, default=algorithms())
    protocol = _protocol(options, rounds=options.rounds, warm_up=50)
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
    protocol = _protocol(options, targets=options.targets)
    if options.commit:
        for algorithm in chosen:
            run.check_pareto(algorithm.name, dataset.name, protocol.k)
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
        name = f"{algorithm.name}-{dataset.name}"
        status = max(status, _finish(result, options, name))
        if options.commit and result["points"]:
            _say(f"wrote {run.write_pareto(result, algorithm.name)}")
    return status


def _growth(options: argparse.Namespace) -> int:
    chosen = _chosen(options.algorithms, default=algorithms())
    protocol = _protocol(options, targets=options.targets)
    folder = options.out or OUT
    sweeps = []
    for name in options.datasets.split(","):
        _say(f"--- {name}")
        dataset = data.load(name.strip(), queries=options.queries)
        result = run.sweep(dataset, chosen, protocol, _say, first_build_only=True)
        _say(f"wrote {report.write_json(result, folder, f'growth-{dataset.name}')}")
        sweeps.append(result)
    grown = growth.fit(sweeps)
    path = report.write_json(grown, folder, f"growth-{_stamp()}")
    print(growth.table(grown, clock=options.clock))
    print(f"\nresults: {path}")
    return 0 if any(sweep["points"] for sweep in sweeps) else 1


def _stamp() -> str:
    return time.strftime("%Y%m%d-%H%M%S")


def _finish(
    result: dict[str, Any], options: argparse.Namespace, name: str | None = None
) -> int:
    """Write, print and draw a result; 1 where nothing could be measured."""
    name = name or f"{result['dataset']['name']}-{_stamp()}"
    path = report.write_json(result, options.out or OUT, name)
    print(report.text(result, clock=options.clock))
    print(f"\nresults: {path}")
    if result["points"] and not options.no_plot:
        _draw(result, path.with_suffix(""), options.clock)
    return 0 if result["points"] else 1


def _draw(result: dict[str, Any], stem: Path, clock: str) -> None:
    try:
        from bench.ann import plot
    except ImportError:
        print(f"no plot: it needs matplotlib ({_EXTRA})")
        return
    for path in plot.draw(result, stem, clock=clock):
        print(f"plot:    {path}")


def _plot(options: argparse.Namespace) -> int:
    try:
        from bench.ann import plot
    except ImportError as error:
        raise ImportError(f"figures need matplotlib: {_EXTRA}") from error

    results = [_read(path) for path in options.results]
    for path, result in zip(options.results, results, strict=True):
        if result["kind"] == "growth":
            raise ValueError(f"{path}: only `table` shows a growth run")
    stems = [path.with_suffix("") for path in options.results]
    if options.merge:
        results = [report.merge(results)]
        name = report.file_name(results[0]["dataset"]["name"])
        stems = [stems[0].with_name(f"{name}-merged")]
    for result, stem in zip(results, stems, strict=False):
        if options.out is not None:
            options.out.mkdir(parents=True, exist_ok=True)
            stem = options.out / stem.name
        for image in plot.draw(result, stem, clock=options.clock):
            print(image)
    return 0


def _table(options: argparse.Namespace) -> int:
    for path in options.results:
        result = _read(path)
        if result["kind"] == "growth":
            print(growth.table(result, clock=options.clock), end="\n\n")
            continue
        show = report.markdown if options.markdown else report.text
        print(show(result, clock=options.clock), end="\n\n")
    return 0


def _read(path: Path) -> dict[str, Any]:
    """A result's JSON file, or an error that says that it is none."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        known = result["format"] == run.FORMAT and result["kind"]
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise ValueError(f"{path} is no result of this bench")
    return dict(result)


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
