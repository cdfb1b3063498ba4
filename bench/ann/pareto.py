# SPDX-License-Identifier: Apache-2.0
"""Pareto fronts of recall against speed, and what is read off them.

Between two neighbouring points of a front the logarithm of the speed is interpolated
linearly over recall; nothing is extrapolated. An exact method reaches every target at
its one speed.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from bench.ann.adapter import HERE

__all__ = ["front", "load_points", "points_path", "select", "speed_at"]

Point = TypeVar("Point")
Pair = tuple[float, float]


def front(points: Sequence[Point], key: Callable[[Point], Pair]) -> list[Point]:
    """The points that no other beats in both recall and speed, by rising recall.

    Parameters
    ----------
    points : sequence
    key : callable
        Gives a point's (recall, speed); more is better in both.
    """
    best = -math.inf
    kept: list[Point] = []
    for point in sorted(points, key=key, reverse=True):
        speed = key(point)[1]
        if speed > best:
            best = speed
            kept.append(point)
    return kept[::-1]


def speed_at(pairs: Sequence[Pair], target: float) -> float | None:
    """Speed at a recall target, interpolated on the front; None if out of reach.

    Parameters
    ----------
    pairs : sequence of (recall, speed)
        Any points; the front is taken of them.
    target : float

    Notes
    -----
    Where the whole front lies above the target, the speed of its fastest point is
    returned: the method is at least that fast.
    """
    line = front(list(pairs), lambda pair: pair)
    if not line or line[-1][0] < target:
        return None
    if line[0][0] >= target:
        return line[0][1]
    for (low, fast), (high, slow) in itertools.pairwise(line):
        if low < target <= high:
            share = (target - low) / (high - low)
            return math.exp((1 - share) * math.log(fast) + share * math.log(slow))
    raise AssertionError("a target between the ends lies in some interval")


def select(
    points: Sequence[Point],
    targets: Sequence[float],
    key: Callable[[Point], Pair],
    count: int = 3,
) -> list[Point]:
    """The few points of a front that decide the speed at each target.

    For each target: the first point that reaches it, the one below it (so that the
    speed can be interpolated) and the next above, or the ``count`` best in recall where
    none reaches it. In the order of the front, none twice.
    """
    line = front(points, key)
    wanted: set[int] = set()
    for target in targets:
        first = next(
            (i for i, point in enumerate(line) if key(point)[0] >= target), len(line)
        )
        start = max(0, min(first - 1, len(line) - count))
        wanted.update(range(start, min(len(line), start + count)))
    return [line[i] for i in sorted(wanted)]


def points_path(algorithm: str, dataset: str) -> Path:
    """Where an algorithm's swept points for a data set are committed."""
    safe = dataset.replace(":", "-").replace("/", "-")
    return HERE / algorithm / "pareto" / f"{safe}.json"


def load_points(algorithm: str, dataset: str, k: int) -> list[dict[str, Any]] | None:
    """The committed points of an algorithm, or None where it was never swept.

    What was swept on a set serves for its ``+noise`` variant too, where that has no
    sweep of its own. Points of another ``k`` do not count: their recall is another.
    """
    path = points_path(algorithm, dataset)
    if not path.exists():
        path = points_path(algorithm, dataset.removesuffix("+noise"))
    if not path.exists():
        return None
    swept = json.loads(path.read_text(encoding="utf-8"))
    if swept["k"] != k:
        return None
    points: list[dict[str, Any]] = swept["points"]
    return points
