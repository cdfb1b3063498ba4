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

from bench.ann import pareto

__all__ = ["exponent", "table"]

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


def table(sweeps: Sequence[Result]) -> str:
    """Costs of every library at every size, and their exponents, as Markdown.

    Parameters
    ----------
    sweeps : sequence of dict
        Results of ``run.sweep`` over sets that differ in their number of rows.
    """
    sweeps = sorted(sweeps, key=lambda one: int(one["dataset"]["rows"]))
    rows = [int(one["dataset"]["rows"]) for one in sweeps]
    targets = sweeps[0]["protocol"]["targets"]
    names = dict.fromkeys(
        index["variant"] for sweep in sweeps for index in sweep["indexes"]
    )
    lines = [
        "| | " + " | ".join(f"{n:,}" for n in rows) + " | exponent |",
        "|---|" + "---:|" * (len(rows) + 1),
    ]

    def add(title: str, costs: list[float | None]) -> None:
        cells = ["-" if cost is None else f"{cost:,.4g}" for cost in costs]
        slope = exponent(rows, costs)
        cells.append("-" if slope is None else f"{slope:.2f}")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")

    for name in names:
        found = [_costs(sweep, name, targets) for sweep in sweeps]
        add(f"{name}, building, CPU s", [one.get("build") for one in found])
        add(f"{name}, index, MiB", [one.get("memory") for one in found])
        for target in targets:
            add(
                f"{name}, CPU us a query at {target}",
                [one.get(str(target)) for one in found],
            )
    return "\n".join(lines)


def _costs(sweep: Result, name: str, targets: Sequence[float]) -> dict[str, Any]:
    numbers = [i for i, one in enumerate(sweep["indexes"]) if one["variant"] == name]
    if not numbers:
        return {}
    index = sweep["indexes"][numbers[0]]
    points = [
        (point["recall"], point["qps_cpu"])
        for point in sweep["points"]
        if point["index"] == numbers[0]
    ]
    size = index["index_bytes"]
    costs = {"build": index["cpu_s"], "memory": size and size / 2**20}
    for target in targets:
        speed = pareto.speed_at(points, target)
        costs[str(target)] = speed and 1e6 / speed
    return costs
