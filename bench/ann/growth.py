# SPDX-License-Identifier: Apache-2.0
"""How building and searching grow with the number of rows: power laws through sweeps.

Each set is swept by itself, one library in memory at a time; then, for every library,
``log(cost) = a + b log(rows)`` is fitted by least squares. ``b`` is the exponent: 1 for
a cost that grows as the rows do, near 0 for a search that hardly notices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from bench.ann import pareto, report

__all__ = ["exponent", "fit", "table"]

Result = dict[str, Any]


def exponent(rows: Sequence[float], costs: Sequence[float | None]) -> float | None:
    """The slope of log(cost) over log(rows); None with fewer than two costs."""
    pairs = [
        (math.log(n), math.log(cost))
        for n, cost in zip(rows, costs, strict=True)
        if cost is not None
    ]
    if len({n for n, _ in pairs}) < 2:
        return None
    x, y = np.array(pairs).T
    return float(np.polyfit(x, y, 1)[0])


def fit(sweeps: Sequence[Result]) -> Result:
    """Costs of every library at every size and their exponents, by both clocks.

    Parameters
    ----------
    sweeps : sequence of dict
        Results of ``run.sweep`` over sets that differ in their number of rows.

    Returns
    -------
    dict
        ``"datasets"`` and ``"rows"``, ascending, and ``"curves"``: each names a variant
        and a cost (``build_s``, ``index_mib``, or ``query_us`` with its ``target``),
        and holds ``values`` and ``exponent`` for each clock. A value is None where the
        target was out of reach or the figure is unknown.
    """
    sweeps = sorted(sweeps, key=lambda one: int(one["dataset"]["rows"]))
    first = sweeps[0]
    rows = [int(one["dataset"]["rows"]) for one in sweeps]
    names = dict.fromkeys(
        index["variant"] for sweep in sweeps for index in sweep["indexes"]
    )
    kinds: list[tuple[str, float | None]] = [("build_s", None), ("index_mib", None)]
    kinds += [("query_us", target) for target in first["protocol"]["targets"]]
    curves: list[Result] = []
    for name in names:
        for cost, target in kinds:
            curve: Result = {"variant": name, "cost": cost, "target": target}
            for clock in ("wall", "cpu"):
                values = [_cost(sweep, name, cost, target, clock) for sweep in sweeps]
                curve[clock] = {"values": values, "exponent": exponent(rows, values)}
            curves.append(curve)
    return {
        "format": first["format"],
        "kind": "growth",
        "command": first["command"],
        "machine": first["machine"],
        "protocol": first["protocol"],
        "datasets": [one["dataset"]["name"] for one in sweeps],
        "rows": rows,
        "curves": curves,
        "failures": [one for sweep in sweeps for one in sweep["failures"]],
    }


def table(grown: Result, *, clock: str = "wall") -> str:
    """What :func:`fit` gives, as Markdown, by one clock."""
    seconds = "CPU" if clock == "cpu" else "wall"
    lines = [
        "| | " + " | ".join(f"{n:,}" for n in grown["rows"]) + " | exponent |",
        "|---|" + "---:|" * (len(grown["rows"]) + 1),
    ]
    for curve in grown["curves"]:
        title = {
            "build_s": f"building, {seconds} s",
            "index_mib": "index, MiB",
            "query_us": f"{seconds} us a query at {curve['target']}",
        }[curve["cost"]]
        found = curve[clock]
        cells = ["-" if cost is None else f"{cost:,.4g}" for cost in found["values"]]
        slope = found["exponent"]
        cells.append("-" if slope is None else f"{slope:.2f}")
        lines.append(f"| {curve['variant']}, {title} | " + " | ".join(cells) + " |")
    lines += [f"failed: {one['what']}: {one['error']}" for one in grown["failures"]]
    return "\n".join(lines)


def _cost(
    sweep: Result, name: str, cost: str, target: float | None, clock: str
) -> float | None:
    """One figure of one library on one set."""
    numbers = [i for i, one in enumerate(sweep["indexes"]) if one["variant"] == name]
    if not numbers:
        return None
    index = sweep["indexes"][numbers[0]]
    if cost == "build_s":
        return float(index[f"{clock}_s"])
    if cost == "index_mib":
        size = index["index_bytes"]
        return size and float(size) / 2**20
    assert target is not None
    points = [
        (report.recall_at(point, target), point[report.speed_key(clock)])
        for point in sweep["points"]
        if point["index"] == numbers[0]
    ]
    speed = pareto.speed_at(points, target)
    return speed and 1e6 / speed
