# SPDX-License-Identifier: Apache-2.0
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import annx
import strategies as own
from annx import reference
from annx.reference.kd_forest import build_tree
from isas import outputs_by_isa

METRICS = ("l2", "l1", "cosine")
EVERYTHING = 1 << 30


def data(n=3000, dim=8, seed=0):
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def assert_same(found, expected):
    assert np.array_equal(found.ids, expected.ids)
    assert np.array_equal(found.distances, expected.distances)


# --- exact ---------------------------------------------------------------------------


@given(
    own.seeds,
    st.integers(0, 200),
    st.sampled_from((1, 2, 3, 5, 8, 9, 16, 17, 24, 25, 31, 32, 33, 40)),
    st.integers(1, 150),
    own.kinds,
    st.sampled_from(METRICS),
    st.integers(1, 3),
    st.integers(0, 200),
)
def test_unlimited_search_is_flat_search(seed, n, dim, k, kind, metric, trees, cut):
    rows = own.make_rows(seed, n, dim, kind=kind)
    queries = np.concatenate([own.make_rows(seed + 1, 20, dim, kind=kind), rows[:3]])
    index = annx.KDForestIndex(dim, metric, n_trees=trees)
    flat = annx.FlatIndex(dim, metric)
    for part in (rows[:cut], rows[cut:]):
        index.add(part)
        flat.add(part)
    expected = flat.search(queries, k)
    assert_same(index.search(queries, k, checks=EVERYTHING, threads=2), expected)
    for i in (0, -1):
        one = index.search(queries[i], k, checks=EVERYTHING)
        assert np.array_equal(one.ids, expected.ids[i])
    if n:
        radius = max(float(np.median(flat.search(queries, n).distances)), 0.0)
        for ours, theirs in zip(
            index.search_radius(queries, radius),
            flat.search_radius(queries, radius),
            strict=True,
        ):
            assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dim", [2, 16, 48])
def test_many_rows_are_searched_exactly(metric, dim):
    x, q = data(9000, dim), data(60, dim, seed=1)
    index = annx.KDForestIndex.build(x, metric)
    flat = annx.FlatIndex.build(x, metric)
    assert_same(index.search(q, 10), flat.search(q, 10))
    assert_same(index.search(q, 200), flat.search(q, 200))


@given(own.seeds, st.integers(1, 120), st.integers(1, 30), st.sampled_from(METRICS))
def test_search_equals_reference_on_whole_numbers(seed, n, k, metric):
    x = own.make_rows(seed, n, 3, kind="integer")
    q = own.make_rows(seed + 1, 4, 3, kind="integer")
    native = annx.KDForestIndex.build(x, metric)
    twin = reference.KDForestIndex.build(x, metric)
    chosen = np.random.default_rng(seed).choice(n, n // 2, replace=False)
    for filter in (None, chosen):
        ours = native.search(q, k, filter=filter)
        ids, distances = twin.search(q, k, filter=filter)
        if metric != "cosine":
            assert np.array_equal(ours.ids, ids)
        np.testing.assert_allclose(ours.distances, distances, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("scale", [1e-30, 1e-19, 1.0, 1e18])
def test_any_scale_is_exact(scale):
    x, q = data(600, 4) * np.float32(scale), data(9, 4, seed=1) * np.float32(scale)
    index = annx.KDForestIndex.build(x)
    assert_same(index.search(q, 7), annx.FlatIndex.build(x).search(q, 7))


@pytest.mark.parametrize("metric", METRICS)
def test_degenerate_rows_end_and_are_right(metric):
    rng = np.random.default_rng(0)
    constant = np.full((2000, 3), 7, np.float32)
    line = np.zeros((2000, 6), np.float32)
    line[:, 2] = rng.integers(0, 4, 2000)
    few = rng.standard_normal((3, 5)).astype(np.float32)[rng.integers(0, 3, 2000)]
    far = data(2000, 3) + np.float32(1e6)
    for x in (constant, line, few, far, np.zeros((500, 2), np.float32)):
        index = annx.KDForestIndex.build(x, metric)
        q = np.concatenate([x[:5], data(5, x.shape[1], seed=1)])
        assert_same(index.search(q, 20), annx.FlatIndex.build(x, metric).search(q, 20))


def test_near_directions_keep_their_order():
    # Angles of about 1e-5: half their squares are far below what 1 - cos can tell.
    x = (np.ones((800, 6)) + 1e-5 * data(800, 6)).astype(np.float32)
    q = (np.ones((20, 6)) + 1e-5 * data(20, 6, seed=1)).astype(np.float32)
    index = annx.KDForestIndex.build(x, "cosine")
    assert_same(index.search(q, 9), annx.FlatIndex.build(x, "cosine").search(q, 9))


# --- a budget ------------------------------------------------------------------------


@pytest.mark.parametrize(("dim", "trees"), [(8, 1), (40, 1), (40, 4)])
def test_recall_rises_with_checks(dim, trees):
    x, q = data(6000, dim), data(100, dim, seed=1)
    truth = annx.exact_search(q, x, 10).ids
    index = annx.KDForestIndex.build(x, n_trees=trees)
    recalls = []
    for checks in (50, 300, 1500, 6000):
        ids, distances = index.search(q, 10, checks=checks)
        again = reference.pairwise_distances(q, x)
        np.testing.assert_allclose(
            distances, np.take_along_axis(again, ids, 1), rtol=1e-5
        )
        hits = [len(set(a) & set(b)) for a, b in zip(ids, truth, strict=True)]
        recalls.append(np.mean(hits) / 10)
    assert recalls == sorted(recalls)
    assert recalls[0] < 1
    assert recalls[-1] == 1


def test_forest_finds_nothing_twice():
    x = data(2000, 40)
    index = annx.KDForestIndex.build(x, n_trees=5, seed=3)
    ids = index.search(x[:50], 100, checks=400).ids
    assert all(len(set(row)) == 100 for row in ids)
    assert (ids[:, 0] == np.arange(50)).all()


def test_default_budget_of_a_forest_is_as_documented():
    x, q = data(8000, 40), data(30, 40, seed=1)
    index = annx.KDForestIndex.build(x, n_trees=3)
    assert_same(index.search(q, 10), index.search(q, 10, checks=1024))
    assert_same(index.search(q, 40), index.search(q, 40, checks=1280))


@pytest.mark.parametrize("trees", [1, 3])
def test_filtered_budget_counts_what_passes(trees):
    x, q = data(6000, 20), data(20, 20, seed=1)
    index = annx.KDForestIndex.build(x, n_trees=trees)
    kept = np.arange(0, 6000, 5)
    truth = annx.exact_search(q, x[kept], 10).ids * 5
    found = index.search(q, 10, checks=600, filter=kept).ids
    assert np.isin(found, kept).all()
    hits = [len(set(a) & set(b)) for a, b in zip(found, truth, strict=True)]
    assert np.mean(hits) > 8
    exact = index.search(q, 10, checks=1200, filter=kept).ids
    assert np.array_equal(exact, truth)


# --- changes -------------------------------------------------------------------------


@given(
    own.seeds,
    st.lists(
        st.tuples(st.sampled_from(("add", "upsert", "remove")), st.integers(1, 90)),
        min_size=1,
        max_size=25,
    ),
    st.sampled_from(((3, 1, "l2"), (3, 2, "l1"), (4, 1, "cosine"), (35, 1, "l2"))),
)
def test_changed_index_equals_flat_index(seed, steps, how):
    dim, trees, metric = how
    rng = np.random.default_rng(seed)
    index = annx.KDForestIndex(dim, metric, n_trees=trees)
    flat = annx.FlatIndex(dim, metric)
    for kind, n in steps:
        rows = rng.integers(-3, 4, (n, dim)).astype(np.float32)
        held = flat.ids
        if kind == "add":
            assert np.array_equal(index.add(rows), flat.add(rows))
        elif kind == "upsert":
            ids = rng.choice(2 * len(held) + n, n, replace=False)
            index.upsert(rows, ids)
            flat.upsert(rows, ids)
        else:
            gone = rng.permutation(held)[: 2 * n]
            index.remove(gone)
            flat.remove(gone)
        assert len(index) == len(flat)
    assert np.array_equal(index.ids, flat.ids)
    assert np.array_equal(index.get(flat.ids), flat.get(flat.ids))
    q = rng.integers(-3, 4, (5, dim)).astype(np.float32)
    assert_same(index.search(q, 8, checks=EVERYTHING), flat.search(q, 8))
    copy = pickle.loads(pickle.dumps(index))
    assert_same(copy.search(q, 8, checks=EVERYTHING), flat.search(q, 8))


def test_rows_added_one_by_one_get_few_trees():
    x = data(2500, 3)
    index = annx.KDForestIndex(3)
    for i in range(0, 2500, 7):
        index.add(x[i : i + 7])
    stats = index.stats()
    assert stats["parts"] <= 5
    assert stats["waiting"] <= 512
    assert 16 * stats["leaves"] + stats["waiting"] >= 2500


def test_mostly_removed_trees_are_built_anew():
    x = data(4000, 3)
    index = annx.KDForestIndex.build(x)
    index.remove(np.arange(1000))
    assert index.stats()["removed"] == 1000
    index.remove(np.arange(1000, 2500))
    assert index.stats()["removed"] == 0
    assert index.stats()["leaves"] == 94
    index.remove(np.arange(2500, 4000))
    assert len(index) == 0
    assert index.search(x[0], 3).ids.tolist() == [-1, -1, -1]
    assert index.add(x[:2]).tolist() == [4000, 4001]


def test_failed_change_changes_nothing():
    x = data(100, 4)
    index = annx.KDForestIndex.build(x)
    bad = x[:3].copy()
    bad[1, 2] = np.nan
    for call in (
        lambda: index.add(bad),
        lambda: index.add(x[:2], [200, 5]),
        lambda: index.upsert(bad, [1, 2, 3]),
        lambda: index.remove([4, 4]),
    ):
        with pytest.raises(ValueError, match=r"vectors|ids"):
            call()
    with pytest.raises(KeyError):
        index.remove([3, 1000])
    assert np.array_equal(index.get(np.arange(100)), x)
    assert index.search(x[3], 1).ids.tolist() == [3]


def test_interrupted_building_adds_nothing():
    index = annx.KDForestIndex.build(data(50, 4))

    def stop(done, total):
        raise RuntimeError("enough")

    big = data(300_000, 4)
    with pytest.raises(RuntimeError, match="enough"):
        index.add(big, threads=1, progress=stop)
    assert len(index) == 50
    assert index.add(data(1, 4)).tolist() == [50]


# --- the trees -----------------------------------------------------------------------


@pytest.mark.parametrize("trees", [1, 3])
def test_trees_do_not_depend_on_threads(trees):
    x = data(40_000, 5)
    one, many = (
        annx.KDForestIndex.build(x, n_trees=trees, seed=7, threads=t) for t in (1, 3)
    )
    assert one._native.to_bytes() == many._native.to_bytes()
    other = annx.KDForestIndex.build(x, n_trees=trees, seed=8, threads=2)
    assert (one._native.to_bytes() == other._native.to_bytes()) is False


def test_results_do_not_depend_on_threads():
    x, q = data(5000, 40), data(90, 40, seed=1)
    index = annx.KDForestIndex.build(x, n_trees=3)
    for checks in (200, None, EVERYTHING):
        one, many = (index.search(q, 5, checks=checks, threads=t) for t in (1, 3))
        assert_same(one, many)


def test_exact_results_are_the_same_on_every_instruction_set():
    script = """
import annx, numpy as np
rng = np.random.default_rng(0)
for dim in (1, 3, 7, 16, 30, 45):
    for metric in ("l2", "l1", "cosine"):
        x = rng.standard_normal((700, dim)).astype(np.float32)
        index = annx.KDForestIndex.build(x, metric)
        ids, distances = index.search(x[:40] * 1.1, 6)
        print(dim, metric, ids.tolist(), distances.view(np.uint32).tolist())
"""
    assert len(outputs_by_isa(script)) == 1


@given(own.seeds, st.integers(1, 300), st.integers(1, 6), own.kinds, st.integers(1, 5))
def test_reference_tree_holds_every_point_once(seed, n, dim, kind, choices):
    x = own.make_rows(seed, n, dim, kind=kind).astype(float)
    root = build_tree(x, choices=choices, seed=seed)
    found = []
    nodes = [root]
    while nodes:
        node = nodes.pop()
        assert len(node.points) <= 16
        inside = x[node.points]
        assert (inside >= node.low).all()
        assert (inside <= node.high).all()
        for child in node.children:
            assert (child.low >= node.low).all()
            assert (child.high <= node.high).all()
        nodes += node.children
        found += node.points.tolist()
    assert sorted(found) == list(range(n))


# --- arguments -----------------------------------------------------------------------


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="metric is 'ip'"):
        annx.KDForestIndex(3, "ip")
    with pytest.raises(ValueError, match="dtype"):
        annx.KDForestIndex(3, dtype="int8")
    with pytest.raises(ValueError, match="n_trees is 65"):
        annx.KDForestIndex(3, n_trees=65)
    index = annx.KDForestIndex.build(data(30, 3))
    with pytest.raises(ValueError, match="checks is 0"):
        index.search(data(2, 3), checks=0)
    with pytest.raises(ValueError, match="queries"):
        index.search(data(2, 4))
    with pytest.raises(ValueError, match="queries"):
        index.search(np.full(3, np.nan, np.float32))
    stale = index.id_set([1, 2])
    assert index.search(data(1, 3), 5, filter=stale).ids[0, 2:].tolist() == [-1] * 3


def test_saved_index_is_mapped(tmp_path):
    x, q = data(3000, 6), data(9, 6, seed=1)
    index = annx.KDForestIndex.build(x, n_trees=2)
    path = tmp_path / "trees.annx"
    index.save(path)
    mapped = annx.load(path, mmap=True)
    assert mapped.memory_usage()["vectors"] == 0
    assert_same(mapped.search(q, 5, checks=99), index.search(q, 5, checks=99))
    mapped.add(x[:600])
    mapped.remove([0])
    assert len(mapped) == 3599
    assert mapped.search(x[0], 1).ids.tolist() == [3000]
