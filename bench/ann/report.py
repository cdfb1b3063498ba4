# SPDX-License-Identifier: Apache-2.0
"""Tables of a result, for the terminal and as Markdown, and its JSON file."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.ann.pareto import speed_at

__all__ = ["file_name", "markdown", "merge", "summary", "text", "write_json"]

Result = dict[str, Any]
# From here on a recall target is counted by the strict tolerance.
STRICT_FROM = 0.999


def write_json(result: Result, folder: Path, name: str) -> Path:
    """Write a result, whole, under a name that is safe on every file system."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (file_name(name) + ".json")
    partial = path.with_suffix(".tmp")
    partial.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)
    return path


def file_name(name: str) -> str:
    """A data set's name as part of a file's; some are paths, some have a colon."""
    return name.replace(":", "-").replace("/", "-")


def merge(results: Sequence[Result]) -> Result:
    """Several results on one data set as one; machine and protocol are the first's.

    Raises
    ------
    ValueError
        If they are of different sets, neighbours or threads.
    """
    first = results[0]
    whole: Result = {**first, "indexes": [], "points": [], "failures": []}
    for result in results:
        if result["dataset"] != first["dataset"]:
            raise ValueError(
                f"results on {result['dataset']['name']!r} and on "
                f"{first['dataset']['name']!r} do not go together"
            )
        for key in ("k", "threads"):
            found, wanted = result["protocol"][key], first["protocol"][key]
            if found != wanted:
                raise ValueError(
                    f"results with {key} = {found} and with {key} = {wanted} do not go "
                    "together"
                )
        shift = len(whole["indexes"])
        whole["indexes"] += result["indexes"]
        whole["points"] += [
            {**point, "index": point["index"] + shift} for point in result["points"]
        ]
        whole["failures"] += result["failures"]
    return whole


def speed_key(clock: str) -> str:
    """The points' field that holds queries per second by a clock."""
    return "qps" if clock == "wall" else "qps_cpu"


def recall_at(point: dict[str, Any], target: float) -> float:
    """A point's recall as it counts for a target: the strict one from 0.999 on."""
    key = "recall_strict" if target >= STRICT_FROM else "recall"
    return float(point[key])


def variants(result: Result) -> list[str]:
    """Names of the competitors, in the order they were built."""
    return list(dict.fromkeys(one["variant"] for one in result["indexes"]))


def points_of(result: Result, variant: str, mode: str) -> list[dict[str, Any]]:
    """A competitor's points in one mode."""
    return [
        point
        for point in result["points"]
        if point["mode"] == mode
        and result["indexes"][point["index"]]["variant"] == variant
    ]


def summary(result: Result, mode: str, *, clock: str = "wall") -> list[dict[str, Any]]:
    """One row a competitor: speed at each recall target, building, memory.

    The building figures are those of the index that the fastest point at the middle
    target uses, since one library may appear with several.
    """
    targets = result["protocol"]["targets"]
    rows = []
    for name in variants(result):
        points = points_of(result, name, mode)
        if not points:
            continue
        speeds = {
            target: speed_at(
                [(recall_at(p, target), p[speed_key(clock)]) for p in points],
                target,
            )
            for target in targets
        }
        typical = _typical(points, targets, clock)
        index = result["indexes"][typical["index"]]
        low, high = typical[f"{speed_key(clock)}_range"]
        rows.append(
            {
                "variant": name,
                "version": index["version"],
                "exact": index["exact"],
                "subject": index["subject"],
                "speeds": speeds,
                "best_recall": max(p["recall"] for p in points),
                "typical_recall": typical["recall"],
                "p99_us": typical.get("latency_us", {}).get("p99"),
                "spread": (high - low) / typical[speed_key(clock)],
                "cores_used": max(p["cores_used"] for p in points),
                "build_wall_s": index["wall_s"],
                "build_cpu_s": index["cpu_s"],
                "index_bytes": index["index_bytes"],
                "build_peak_bytes": index["build_peak_bytes"],
            }
        )
    return rows


def _typical(
    points: Sequence[dict[str, Any]], targets: Sequence[float], clock: str
) -> dict[str, Any]:
    """The fastest point at the middle target, else the one of best recall."""
    middle = sorted(targets)[len(targets) // 2]
    reaching = [p for p in points if p["recall"] >= middle]
    if reaching:
        return max(reaching, key=lambda p: p[speed_key(clock)])
    return max(points, key=lambda p: p["recall"])


def ratios(
    rows: Sequence[dict[str, Any]], targets: Sequence[float], *, exact: bool
) -> dict[float, tuple[float, str] | None]:
    """annx's speed over the best peer's at each target, with that peer's name."""
    out: dict[float, tuple[float, str] | None] = {}
    for target in targets:
        ours = [
            row["speeds"][target]
            for row in rows
            if row["subject"] and row["exact"] == exact and row["speeds"][target]
        ]
        theirs = [
            (row["speeds"][target], row["variant"])
            for row in rows
            if not row["subject"]
            and (row["exact"] or not exact)
            and row["exact"] >= exact
            and row["speeds"][target]
        ]
        if ours and theirs:
            best, name = max(theirs)
            out[target] = (max(ours) / best, name)
        else:
            out[target] = None
    return out


def _number(value: float | None, digits: int = 3) -> str:
    """About three figures, thousands separated; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "-"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def _cells(result: Result, mode: str, clock: str) -> tuple[list[str], list[list[str]]]:
    targets = result["protocol"]["targets"]
    head = ["", *(f"QPS @{target:g}" for target in targets), "best recall"]
    if mode == "single":
        head.append("p99 us")
    head += ["spread", "build s", "index MiB", "peak MiB"]
    lines = []
    rows = summary(result, mode, clock=clock)
    middle = sorted(targets)[len(targets) // 2]
    rows.sort(key=lambda row: (row["exact"], -(row["speeds"][middle] or 0)))
    for row in rows:
        line = [row["variant"] + (" (exact)" if row["exact"] else "")]
        line += [_number(row["speeds"][target]) for target in targets]
        line.append(f"{row['best_recall']:.4f}")
        if mode == "single":
            line.append(_number(row["p99_us"]))
        line.append(f"{100 * row['spread']:.0f} %")
        seconds = row["build_wall_s" if clock == "wall" else "build_cpu_s"]
        line.append(_number(seconds))
        for key in ("index_bytes", "build_peak_bytes"):
            size = row[key]
            line.append(_number(None if size is None else size / 2**20))
        if row["cores_used"] > 1.2:
            line[0] += f" [{row['cores_used']:.1f} cores]"
        lines.append(line)
    for exact in (False, True):
        found = ratios(rows, targets, exact=exact)
        if any(found.values()):
            title = "annx exact / best exact peer" if exact else "annx / best peer"
            line = [title]
            for target in targets:
                pair = found[target]
                line.append("-" if pair is None else f"{pair[0]:.2f}x {pair[1]}")
            lines.append(line + [""] * (len(head) - len(line)))
    return head, lines


def _title(result: Result, mode: str, clock: str) -> str:
    data, protocol = result["dataset"], result["protocol"]
    how = "one query a call" if mode == "single" else "all queries in one call"
    return (
        f"{data['name']}: {data['rows']:,} x {data['dim']}, {data['metric']}, "
        f"{data['queries']:,} queries, k = {protocol['k']}, "
        f"{protocol['threads']} thread(s), {how}, {clock} clock, "
        f"medians of {protocol['rounds']}"
    )


def text(result: Result, *, clock: str = "wall") -> str:
    """The tables for a terminal."""
    machine = result["machine"]
    out = [f"{machine['cpu']} ({', '.join(machine['isa'])}), {machine['cores']} cores"]
    for mode in result["protocol"]["modes"]:
        head, lines = _cells(result, mode, clock)
        if not lines:
            continue
        widths = [
            max(len(line[column]) for line in [head, *lines])
            for column in range(len(head))
        ]
        out += ["", _title(result, mode, clock)]
        for line in [head, ["-" * width for width in widths], *lines]:
            cells = [line[0].ljust(widths[0])]
            cells += [
                cell.rjust(width)
                for cell, width in zip(line[1:], widths[1:], strict=True)
            ]
            out.append("  ".join(cells).rstrip())
    out += [f"failed: {one['what']}: {one['error']}" for one in result["failures"]]
    return "\n".join(out)


def markdown(result: Result, *, clock: str = "wall") -> str:
    """The tables as Markdown."""
    out = []
    for mode in result["protocol"]["modes"]:
        head, lines = _cells(result, mode, clock)
        if not lines:
            continue
        out += [f"**{_title(result, mode, clock)}**", ""]
        out.append("| " + " | ".join(head) + " |")
        out.append("| --- |" + " ---: |" * (len(head) - 1))
        out += ["| " + " | ".join(line) + " |" for line in lines]
        out.append("")
    return "\n".join(out)
