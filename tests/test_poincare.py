# SPDX-License-Identifier: Apache-2.0
"""Hyperbolic distance in the unit ball, in flat and graph search."""

import pickle
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import annx
import strategies as own
from annx import reference
from isas import outputs_by_isa

EPS = 2.0**-24
dims = st.sampled_from((1, 2, 3, 7, 16, 33, 100))


def true_distances(a, b):
    """In long doubles, the gaps exact."""

    def gaps(rows):
        exact = [1 - sum(Fraction(float(x)) ** 2 for x in row) for row in rows]
        return np.array([float(gap) for gap in exact], np.longdouble)

    left, right = a.astype(np.longdouble), b.astype(np.longdouble)
    squares = np.square(left[:, None] - right[None]).sum(axis=2)
    return 2 * np.arcsinh(np.sqrt(squares / (gaps(a)[:, None] * gaps(b)[None])))


@given(own.seeds, st.integers(1, 20), dims, own.ball_kinds, own.ball_kinds)
def test_distance_is_right_to_the_edge(seed, n, dim, kind, other):
    a = own.make_ball(seed, n, dim, kind=kind)
    b = own.make_ball(seed + 1, n, dim, kind=other)
    b[0] = a[0]
    found = annx.pairwise_distances(a, b, metric="poincare")
    expected = true_distances(a, b)
    # The key's error is at most halved by the root, and less after arsinh.
    bound = (dim / 32 + 16) * EPS * expected
    assert (np.abs(found - expected) <= bound + 1e-38).all()
    assert found[0, 0] == 0


@given(own.seeds, st.integers(1, 40), st.integers(1, 9), own.ball_kinds)
def test_distance_is_the_reference_one(seed, n, dim, kind):
    a = own.make_ball(seed, n, dim, kind=kind)
    found = annx.pairwise_distances(a, a, metric="poincare")
    expected = reference.pairwise_distances(a, a, metric="poincare")
    assert found == pytest.approx(expected, rel=2e-5, abs=1e-12)


def test_distance_has_the_closed_form_of_a_line():
    # From the centre: log((1 + r) / (1 - r)); along a line distances add up.
    radii = np.array([0.0, 0.25, 0.5, 0.75, 0.9990234375], np.float32)
    rows = np.stack([radii, 0 * radii], axis=1)
    found = annx.pairwise_distances(rows[:1], rows, metric="poincare")[0]
    assert found == pytest.approx(np.log((1 + radii) / (1 - radii.astype(float))))
    steps = annx.pairwise_distances(rows, rows, metric="poincare")
    assert steps[1, 3] == pytest.approx(found[3] - found[1], rel=1e-6)
    mirrored = annx.pairwise_distances(-rows[3:4], rows[3:4], metric="poincare")
    assert mirrored[0, 0] == pytest.approx(2 * found[3], rel=1e-6)


@given(own.seeds, st.integers(0, 200), dims, own.ball_kinds, st.integers(1, 30))
def test_search_is_sorted_distances(seed, n, dim, kind, k):
    rows = own.make_ball(seed, n, dim, kind=kind)
    queries = own.make_ball(seed + 1, 6, dim, kind=kind)
    index = annx.FlatIndex(dim, "poincare")
    index.add(rows)
    found = index.search(queries, k)
    distances = annx.pairwise_distances(queries, rows, metric="poincare")
    expected = np.full((6, k), np.inf, np.float32)
    expected[:, : min(n, k)] = np.sort(distances, axis=1)[:, :k]
    assert np.array_equal(found.distances, expected)
    for i in range(6):
        held = found.ids[i] >= 0
        assert np.array_equal(distances[i, found.ids[i, held]], expected[i, held])
        assert len(set(found.ids[i, held].tolist())) == held.sum()
        one = index.search(queries[i], k)
        assert np.array_equal(one.ids, found.ids[i])
    exact = annx.exact_search(queries, rows, k, metric="poincare", threads=2)
    assert np.array_equal(exact.ids, found.ids)
    assert np.array_equal(exact.scores, -found.distances)


@given(own.seeds, st.integers(1, 150), st.integers(1, 20), own.ball_kinds)
def test_radius_means_distances_as_returned(seed, n, dim, kind):
    rows = own.make_ball(seed, n, dim, kind=kind)
    queries = own.make_ball(seed + 1, 5, dim, kind=kind)
    index = annx.FlatIndex(dim, "poincare")
    index.add(rows)
    distances = annx.pairwise_distances(queries, rows, metric="poincare")
    levels = np.sort(distances.ravel())
    below = np.nextafter(levels[n], np.float32(0))
    for radius in (0.0, float(levels[0]), float(levels[n]), float(below), 1e30):
        found = index.search_radius(queries, radius)
        inside = distances <= np.float32(radius)
        counts = index.count_radius(queries, radius)
        assert np.array_equal(np.diff(found.offsets), inside.sum(axis=1))
        assert np.array_equal(counts, inside.sum(axis=1))
        for i in range(5):
            part = slice(found.offsets[i], found.offsets[i + 1])
            assert set(found.ids[part]) == set(np.flatnonzero(inside[i]))
            assert np.array_equal(
                found.distances[part], np.sort(distances[i])[: counts[i]]
            )


def test_filter_and_changes_keep_to_the_metric():
    rows = own.make_ball(3, 300, 5, kind="tree")
    index = annx.FlatIndex(5, "poincare", "float32")
    index.add(rows[:200])
    index.upsert(rows[200:250], np.arange(50, 100))
    index.remove(np.arange(20))
    index.add(rows[250:])
    held = index.get(index.ids)
    chosen = index.ids[::3]
    found = index.search(rows[:10], 7, filter=chosen)
    expected = annx.exact_search(rows[:10], held[::3], 7, metric="poincare")
    assert np.array_equal(found.ids, chosen[expected.ids])
    assert np.array_equal(found.distances, expected.distances)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrow_types_are_of_what_they_hold(dtype):
    rows = own.make_ball(4, 100, 6) * np.float32(0.9)
    index = annx.FlatIndex(6, "poincare", dtype)
    index.add(rows)
    held = np.asarray(index.get(index.ids)).astype(np.float32)
    found = index.search(rows[:5], 5)
    expected = annx.exact_search(rows[:5], held, 5, metric="poincare")
    assert np.array_equal(found.distances, expected.distances)
    graph = annx.GraphIndex(6, "poincare", dtype)
    graph.add(rows)
    assert np.array_equal(graph.search(rows[:5], 5, ef=100).distances, found.distances)


def test_every_instruction_set_gives_same_keys():
    script = """
import hashlib
import numpy as np, annx
rng = np.random.default_rng(0)
x = rng.standard_normal((300, 37))
x *= rng.random((300, 1)) / np.linalg.norm(x, axis=1, keepdims=True)
x = x.astype("f4")
found = annx.exact_search(x[:9], x, 20, metric="poincare")
graph = annx.GraphIndex.build(x, metric="poincare", degree=8).search(x[:9], 20, ef=99)
for part in (found.ids, found.distances, graph.distances):
    print(hashlib.sha256(part.tobytes()).hexdigest())
"""
    assert len(outputs_by_isa(script)) == 1


# --- the edge -------------------------------------------------------------------------


def test_edge_of_the_ball_is_where_it_is():
    most = np.nextafter(np.float32(1), np.float32(0))
    inside = annx.FlatIndex(2, "poincare")
    inside.add([[most, 0.0], [0.0, -most]])
    apart = inside.search([most, 0.0], 2).distances
    gap = 1 - float(most) ** 2
    assert apart[0] == 0
    assert apart[1] == pytest.approx(2 * np.arcsinh(np.sqrt(2) * float(most) / gap))


@given(own.seeds, st.integers(2, 60))
def test_vectors_at_the_edge_are_judged_exactly(seed, dim):
    rng = np.random.default_rng(seed)
    row = rng.standard_normal(dim)
    row = (row / np.linalg.norm(row)).astype(np.float32)  # to half a unit of 1
    for factor in (1 - 2.0**-23, 1.0, 1 + 2.0**-23):
        x = (row * np.float32(factor)).astype(np.float32)
        gap = 1 - sum(Fraction(float(v)) ** 2 for v in x)
        index = annx.FlatIndex(dim, "poincare")
        if gap >= Fraction(1, 2**50):
            index.add(x[None])
            assert np.isfinite(index.search(-x, 1).distances).all()
        else:
            with pytest.raises(ValueError, match="unit ball"):
                index.add(x[None])


@given(own.seeds, st.integers(2, 60), st.integers(1, 2))
def test_smallest_gaps_lose_nothing(seed, dim, more):
    rng = np.random.default_rng(seed)
    x = np.zeros(dim + more, np.float32)
    x[:dim] = own.make_ball(seed, 1, dim)[0] * rng.uniform(0.5, 0.999)
    # Each further element takes what is left but for the rounding of its root.
    for i in range(dim, dim + more):
        left = 1 - sum(Fraction(float(v)) ** 2 for v in x)
        x[i] = np.nextafter(np.float32(float(left) ** 0.5), np.float32(0))
    gap = 1 - sum(Fraction(float(v)) ** 2 for v in x)
    if gap < Fraction(1, 2**50):
        return
    found = annx.pairwise_distances(x[None], 0 * x[None], metric="poincare")[0, 0]
    expected = 2 * np.arcsinh(np.sqrt(float((1 - gap) / gap)))
    assert found == pytest.approx(expected, rel=2e-6)


def test_vectors_outside_are_refused_and_change_nothing():
    good = own.make_ball(0, 20, 3)
    flat, graph = annx.FlatIndex(3, "poincare"), annx.GraphIndex(3, "poincare")
    for index in (flat, graph):
        index.add(good)
        for bad in ([[1.0, 0.0, 0.0]], [[0.0, 0.0, 0.0], [3.0, 0.0, 0.0]]):
            with pytest.raises(ValueError, match=r"vectors row \d is not within"):
                index.add(bad)
            with pytest.raises(ValueError, match=r"queries row \d is not within"):
                index.search(bad, 1)
            with pytest.raises(ValueError, match=r"queries row \d is not within"):
                index.search_radius(bad, 1.0)
        with pytest.raises(ValueError, match="NaN"):
            index.add([[np.nan, 0.0, 0.0]])
        assert len(index) == 20
    with pytest.raises(ValueError, match="queries row 0 is not within"):
        flat.search(np.array([1, 0, 0], np.float32), 1)
    with pytest.raises(ValueError, match="unit ball"):
        flat.upsert([[0.6, 0.6, 0.6]], [0])
    with pytest.raises(ValueError, match="vectors row 1"):
        annx.exact_search(good, [[0, 0, 0], [1, 0, 0]], metric="poincare")
    with pytest.raises(ValueError, match="a row 0"):
        annx.pairwise_distances([[1.0]], [[0.0]], metric="poincare")
    assert np.array_equal(flat.get(flat.ids), good)


def test_only_flat_and_graph_search_have_it():
    for make in (
        lambda: annx.IVFIndex(4, "poincare"),
        lambda: annx.IVFIndex(4, "poincare", codec="flat"),
        lambda: annx.LSHIndex(4, "poincare"),
        lambda: annx.KDForestIndex(4, "poincare"),
        lambda: annx.PQFlatIndex(4, "poincare", n_segments=2),
        lambda: annx.ProductQuantizer(4, 2, metric="poincare"),
        lambda: annx.knn_graph(np.zeros((3, 2)), 1, metric="poincare"),
        lambda: annx.connected_components(np.zeros((3, 2)), 1.0, metric="poincare"),
        lambda: annx.FlatIndex(4, "poincare", "int8"),
        lambda: annx.FlatIndex(8, "poincare", "bits"),
        lambda: annx.GraphIndex(4, "poincare", "uint8"),
    ):
        with pytest.raises(ValueError, match=r"poincare|dtype"):
            make()


# --- the graph ------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [2, 10, 40])
@pytest.mark.parametrize("kind", ["tree", "edge", "even"])
def test_graph_finds_what_exact_search_finds(kind, dim):
    rows = own.make_ball(5, 4000, dim, kind=kind)
    queries, base = rows[::20], np.delete(rows, np.s_[::20], axis=0)
    index = annx.GraphIndex.build(base, metric="poincare", degree=24)
    truth = annx.exact_search(queries, base, 10, metric="poincare")
    # Data without structure in many dimensions is hard for any graph.
    found = index.search(queries, 10, ef=100 if kind == "tree" or dim < 40 else 400)
    hits = found.distances <= truth.distances[:, 9:]
    assert hits.mean() > 0.98
    distances = annx.pairwise_distances(queries, base, metric="poincare")
    assert np.array_equal(
        found.distances, np.take_along_axis(distances, found.ids, axis=1)
    )
    assert np.array_equal(index.get([3, 7]), base[[3, 7]])


@given(own.seeds, st.integers(1, 60), st.integers(1, 6), own.ball_kinds)
def test_widest_beam_is_exact(seed, n, dim, kind):
    rows = own.make_ball(seed, n, dim, kind=kind)
    index = annx.GraphIndex(dim, "poincare", degree=6, ef_construction=20)
    index.add(rows)
    queries = own.make_ball(seed + 1, 4, dim, kind=kind)
    found = index.search(queries, 10, ef=n)
    expected = annx.exact_search(queries, rows, 10, metric="poincare")
    assert np.array_equal(found.distances, expected.distances)
    filtered = index.search(queries, 10, ef=n, filter=np.arange(0, n, 2))
    some = annx.exact_search(queries, rows[::2], 10, metric="poincare")
    assert np.array_equal(filtered.distances, some.distances)


def test_graph_links_like_the_reference():
    rows = own.make_ball(6, 300, 4, kind="tree")
    native = annx.GraphIndex(4, "poincare", degree=8, ef_construction=300)
    twin = reference.GraphIndex(4, "poincare", degree=8, ef_construction=300)
    native.add(rows)
    twin.add(rows)
    same = [set(native.neighbours(i)) == set(twin.links[i]) for i in range(300)]
    assert np.mean(same) > 0.97  # rounding may swap equal choices


def test_indexes_are_saved(tmp_path):
    rows = own.make_ball(7, 200, 3, kind="edge")
    for index in (
        annx.FlatIndex.build(rows, "poincare"),
        annx.GraphIndex.build(rows, metric="poincare"),
    ):
        expected = index.search(rows[:9], 5)
        index.save(tmp_path / "a")
        for again in (
            annx.load(tmp_path / "a"),
            annx.load(tmp_path / "a", mmap=True),
            pickle.loads(pickle.dumps(index)),
        ):
            assert again.metric == "poincare"
            found = again.search(rows[:9], 5)
            assert np.array_equal(found.ids, expected.ids)
            assert np.array_equal(found.distances, expected.distances)


def test_transform_can_stand_before_it():
    rows = own.make_ball(8, 100, 6)
    mask = annx.transforms.Mask(6, [0, 1, 2])
    index = annx.TransformedIndex(annx.FlatIndex(3, "poincare"), mask)
    index.add(rows)
    expected = annx.exact_search(rows[:4, :3], rows[:, :3], 5, metric="poincare")
    assert np.array_equal(index.search(rows[:4], 5).distances, expected.distances)
