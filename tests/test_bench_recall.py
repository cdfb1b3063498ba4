# SPDX-License-Identifier: Apache-2.0
"""What counts as recall, and what is read off Pareto fronts."""

from __future__ import annotations

import numpy as np
import pytest

from bench.ann import pareto
from bench.ann.exact import (
    STRICT_EPSILON,
    distances_to,
    exact_neighbors,
    mask_repeats,
    recall,
)


@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
def test_exact_neighbors_equals_full_sort(metric: str) -> None:
    rng = np.random.default_rng(0)
    base = rng.standard_normal((300, 9)) + 1000
    queries = rng.standard_normal((270, 9)) + 1000
    every = np.tile(np.arange(300), (270, 1))
    far = distances_to(base, queries, every, metric)
    expected = np.argsort(far, axis=1, kind="stable")[:, :12]
    np.testing.assert_array_equal(exact_neighbors(base, queries, metric, 12), expected)


def test_exact_neighbors_breaks_ties_by_id_and_bounds_k() -> None:
    base = np.zeros((6, 3), dtype=np.float32)
    found = exact_neighbors(base, base[:2], "l2", 10)
    np.testing.assert_array_equal(found, np.tile(np.arange(6), (2, 1)))


def test_distances_follow_the_library_conventions() -> None:
    base = np.array([[3.0, 4.0], [0.0, 0.0]])
    query = np.array([[1.0, 0.0]])
    ids = np.array([[0, 1, -1, 2]])
    np.testing.assert_allclose(
        distances_to(base, query, ids, "l2"), [[20, 1, np.inf, np.inf]]
    )
    np.testing.assert_allclose(
        distances_to(base, query, ids, "cosine"), [[0.4, 1, np.inf, np.inf]]
    )
    np.testing.assert_allclose(
        distances_to(base, query, ids, "ip"), [[-3, 0, np.inf, np.inf]]
    )
    with pytest.raises(ValueError, match="metric is 'l3'"):
        distances_to(base, query, ids, "l3")


def test_recall_counts_ties_and_honours_the_tolerance() -> None:
    kth = np.array([1.0])
    found = np.array([[0.5, 1.0, 1.0005, 1.01]])
    assert recall(found, kth, 4) == 0.75
    assert recall(found, kth, 4, STRICT_EPSILON) == 0.5
    # The tolerance is relative to the magnitude, also below zero.
    assert recall(np.array([[-0.9995]]), np.array([-1.0]), 1) == 1.0
    assert recall(np.array([[-0.99]]), np.array([-1.0]), 1) == 0.0


def test_recall_of_repeated_and_padded_ids_counts_each_once() -> None:
    base = np.arange(5.0)[:, None]
    query = np.array([[0.0]])
    ids = mask_repeats(np.array([[1, 0, 1, -1]]))
    np.testing.assert_array_equal(ids, [[1, 0, -1, -1]])
    kth = np.array([9.0])
    assert recall(distances_to(base, query, ids, "l2"), kth, 4) == 0.5


def test_front_keeps_only_undominated_points() -> None:
    points = [(0.9, 100.0), (0.8, 90.0), (0.95, 50.0), (0.95, 40.0), (0.5, 300.0)]
    line = pareto.front(points, lambda point: point)
    assert line == [(0.5, 300.0), (0.9, 100.0), (0.95, 50.0)]


def test_speed_is_interpolated_geometrically_and_never_extrapolated() -> None:
    points = [(0.90, 1000.0), (1.00, 10.0)]
    assert pareto.speed_at(points, 0.95) == pytest.approx(100.0)
    assert pareto.speed_at(points, 0.90) == pytest.approx(1000.0)
    assert pareto.speed_at(points, 1.00) == pytest.approx(10.0)
    assert pareto.speed_at(points, 0.5) == 1000.0
    assert pareto.speed_at([(0.9, 5.0)], 0.95) is None
    assert pareto.speed_at([], 0.95) is None
    # A dominated point does not bend the curve.
    assert pareto.speed_at([*points, (0.89, 900.0)], 0.95) == pytest.approx(100.0)


def test_select_takes_the_points_around_each_target() -> None:
    line = [(0.80 + 0.02 * i, 1000.0 - i) for i in range(10)]
    chosen = pareto.select(line, [0.90], lambda point: point)
    assert [round(point[0], 2) for point in chosen] == [0.88, 0.9, 0.92]
    # Out of reach: the best there are.
    chosen = pareto.select(line, [0.999], lambda point: point)
    assert chosen == line[-3:]
    assert pareto.select(line[:2], [0.9], lambda point: point) == line[:2]
