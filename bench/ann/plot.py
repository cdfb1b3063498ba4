# SPDX-License-Identifier: Apache-2.0
"""Figures of a result: recall against speed, building time, memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import FuncFormatter, NullFormatter

from bench.ann import report
from bench.ann.adapter import algorithms
from bench.ann.pareto import front

__all__ = ["draw"]

Result = dict[str, Any]
Array = np.ndarray[Any, Any]

# Colours that people with colour blindness tell apart (Okabe and Ito), then darker
# ones; annx has the first and the heavier line in every figure.
_OURS = ("#D55E00", "#8C3B00")
_COLOURS = (
    "#0072B2",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#B8A000",
    "#000000",
    "#6A51A3",
    "#8C564B",
    "#5F8C2C",
    "#7F7F7F",
    "#1B4F72",
    "#B03A5B",
    "#3CB4AC",
    "#A0522D",
    "#4D4D9F",
)
_MARKERS = "osD^vP<>hX*dp8H"

_STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.dpi": 100,
    "savefig.dpi": 200,
    # Text as text: figures go into papers and are searched.
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
}

# Recall is drawn by its distance from 1, where the differences are.
_NEAREST = 5e-4


def _forward(recall: Array) -> Array:
    return np.asarray(
        -np.log10(np.maximum(1 - np.asarray(recall, dtype=float), 0) + _NEAREST)
    )


def _inverse(value: Array) -> Array:
    return 1 + _NEAREST - 10.0 ** (-np.asarray(value, dtype=float))


def _styles() -> dict[str, dict[str, Any]]:
    """One colour and marker a competitor, the same in every figure."""
    styles: dict[str, dict[str, Any]] = {}
    ours = peers = 0
    for algorithm in algorithms():
        for variant in algorithm.variants:
            if algorithm.subject:
                colour, width, order = _OURS[ours % len(_OURS)], 2.4, 5
                marker = "o"
                ours += 1
            else:
                colour = _COLOURS[peers % len(_COLOURS)]
                # Past the last colour, colours come again with other markers.
                marker = _MARKERS[(peers + peers // len(_COLOURS)) % len(_MARKERS)]
                width, order = 1.3, 3
                peers += 1
            styles[variant.name] = {
                "color": colour,
                "marker": marker,
                "linewidth": width,
                "zorder": order,
            }
    return styles


def draw(result: Result, stem: Path, *, clock: str = "wall") -> list[Path]:
    """Draw a result.

    Parameters
    ----------
    result : dict
        As ``run.compare`` or ``run.sweep`` gives it.
    stem : Path
        Path of the figures without suffix.
    clock : {"wall", "cpu"}
        Which seconds to use.

    Returns
    -------
    list of Path
        A PNG and a PDF for each mode that was measured.
    """
    written = []
    with plt.rc_context(_STYLE):
        for mode in result["protocol"]["modes"]:
            rows = report.summary(result, mode, clock=clock)
            if not rows:
                continue
            figure = _figure(result, rows, mode, clock)
            name = stem.name + ("" if mode == "single" else f"-{mode}")
            for suffix in (".png", ".pdf"):
                path = stem.with_name(name + suffix)
                figure.savefig(path)
                written.append(path)
            plt.close(figure)
    return written


def _figure(
    result: Result, rows: Sequence[dict[str, Any]], mode: str, clock: str
) -> Any:
    styles = _styles()
    figure = plt.figure(figsize=(10.2, 4.9), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.75, 1))
    _curves(left.subplots(), result, rows, mode, clock, styles)
    time_axis, memory_axis = right.subplots(2, 1)
    _bars(
        time_axis,
        rows,
        "build_wall_s" if clock == "wall" else "build_cpu_s",
        1.0,
        f"building, seconds ({clock})",
        styles,
    )
    _bars(memory_axis, rows, "index_bytes", 2.0**20, "index in memory, MiB", styles)
    data, protocol, machine = result["dataset"], result["protocol"], result["machine"]
    how = "one query a call" if mode == "single" else "all queries in one call"
    threads, rounds = protocol["threads"], protocol["rounds"]
    figure.suptitle(
        f"{data['name']}: {data['rows']:,} x {data['dim']}, {data['metric']}; "
        f"{data['queries']:,} queries, {how}, "
        f"{threads} thread{'s' if threads > 1 else ''}\n"
        f"{machine['cpu']} ({', '.join(machine['isa'][-1:])}), "
        + (f"medians of {rounds} interleaved rounds" if rounds > 1 else "one sweep"),
        fontsize=9,
    )
    return figure


def _curves(
    axis: Any,
    result: Result,
    rows: Sequence[dict[str, Any]],
    mode: str,
    clock: str,
    styles: dict[str, dict[str, Any]],
) -> None:
    key = report.speed_key(clock)
    lowest, speeds = 1.0, []
    middle = sorted(result["protocol"]["targets"])[
        len(result["protocol"]["targets"]) // 2
    ]
    ranked = sorted(rows, key=lambda row: -(row["speeds"][middle] or 0))
    for row in ranked:
        points = report.points_of(result, row["variant"], mode)
        line = front(points, lambda point: (point["recall"], point[key]))
        recall = np.array([point["recall"] for point in line])
        speed = np.array([point[key] for point in line])
        style = styles.get(row["variant"], {})
        label = row["variant"]
        if row["exact"]:
            axis.plot(
                recall,
                speed,
                linestyle="none",
                marker="*",
                markersize=11,
                color=style.get("color"),
                label=label + " (exact)",
                clip_on=False,
                zorder=6,
            )
        else:
            spans = np.array([point[f"{key}_range"] for point in line]).T
            axis.plot(recall, speed, markersize=4.5, label=label, **style)
            axis.fill_between(
                recall,
                spans[0],
                spans[1],
                color=style.get("color"),
                alpha=0.15,
                linewidth=0,
            )
        # The left end of the axis leaves out what nobody asks for.
        lowest = min(lowest, *recall[recall >= 0.75], 1.0)
        speeds += [s for r, s in zip(recall, speed, strict=True) if r >= 0.75]
    axis.set_xscale("function", functions=(_forward, _inverse))
    axis.set_yscale("log")
    axis.set_xlim(max(0.75, lowest - 0.02), 1.0)
    ticks = [0.8, 0.9, 0.95, 0.97, 0.99, 0.995, 0.999, 1.0]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_on()
    axis.tick_params(axis="x", which="minor", bottom=False)
    if speeds:
        axis.set_ylim(min(speeds) * 0.8, max(speeds) * 1.25)
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    if speeds and max(speeds) / min(speeds) < 30:
        axis.yaxis.set_minor_formatter(
            FuncFormatter(
                lambda value, _: (
                    f"{value:,.0f}"
                    if round(value / 10 ** np.floor(np.log10(value))) in (2, 5)
                    else ""
                )
            )
        )
    else:
        axis.yaxis.set_minor_formatter(NullFormatter())
    axis.grid(visible=True, which="minor", axis="y", linewidth=0.3)
    axis.set_xlabel(f"recall@{result['protocol']['k']}")
    axis.set_ylabel(
        "queries per second" if clock == "wall" else "queries per processor second"
    )
    axis.set_title("up and to the right is better", loc="left", color="#555555")
    axis.legend(
        loc="lower left",
        fontsize=8,
        ncols=1 if len(rows) <= 8 else 2,
        handlelength=2.2,
        labelspacing=0.3,
    )


def _bars(
    axis: Any,
    rows: Sequence[dict[str, Any]],
    key: str,
    unit: float,
    title: str,
    styles: dict[str, dict[str, Any]],
) -> None:
    known = [row for row in rows if row[key]]
    known.sort(key=lambda row: -row[key])
    values = [row[key] / unit for row in known]
    colours = [styles.get(row["variant"], {}).get("color") for row in known]
    bars = axis.barh(range(len(known)), values, color=colours, height=0.72)
    axis.bar_label(
        bars,
        [f"{value:,.0f}" if value >= 10 else f"{value:.2g}" for value in values],
        padding=2,
        fontsize=7,
    )
    axis.set_yticks(range(len(known)), [row["variant"] for row in known], fontsize=7.5)
    for label, row in zip(axis.get_yticklabels(), known, strict=True):
        label.set_fontweight("bold" if row["subject"] else "normal")
    axis.grid(visible=False, axis="y")
    axis.tick_params(axis="y", length=0)
    axis.margins(x=0.14)
    if values and max(values) / max(min(values), 1e-9) > 50:
        axis.set_xscale("log")
        axis.set_xlim(min(values) / 2, max(values) * 3)
    axis.set_title(title + " (less is better)", loc="left", color="#555555")
