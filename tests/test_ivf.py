# SPDX-License-Identifier: Apache-2.0
import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import annx
import strategies as own
from annx import reference

METRICS = ("l2", "ip", "cosine")
CODECS = ("rabitq", "pq4")
ALL_CODECS = (*CODECS, "flat")
FLAT_KINDS = (
    *((m, d) for m in (*METRICS, "l1") for d in ("float32", "float16", "int8")),
    ("l2", "bfloat16"),
    ("cosine", "uint8"),
    ("hamming", "bits"),
    ("jaccard", "bits"),
)
DTYPES = ("float32", "float16", "int8", "uint8")


def data(n=1500, dim=20, seed=0):
    """Rows in clumps, away from the origin, as inverted files meet them."""
    rng = np.random.default_rng(seed)
    middles = np.random.default_rng(7).standard_normal((12, dim)) * 2 + 1
    return (middles[rng.integers(0, 12, n)] + rng.standard_normal((n, dim))).astype(
        np.float32
    )


def built(metric="l2", n=1500, dim=20, **options):
    x = data(n, dim)
    options = {"n_lists": 12, "n_iterations": 4, **options}
    return annx.IVFIndex.build(x, metric, **options), x


def recall(found, truth):
    hits = [len(set(a) & set(b)) for a, b in zip(found, truth, strict=True)]
    return np.mean(hits) / truth.shape[1]


@pytest.mark.parametrize("codec", ALL_CODECS)
@pytest.mark.parametrize("metric", METRICS)
def test_everything_probed_and_measured_is_exact(metric, codec):
    index, x = built(metric, codec=codec)
    q = data(20, seed=1)
    ids, distances = index.search(q, 10, n_probe=12, rerank=150, epsilon=99)
    exact = annx.exact_search(q, x, 10, metric=metric)
    assert np.array_equal(ids, exact.ids)
    assert np.array_equal(distances, exact.distances)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("metric", METRICS)
def test_recall_rises_with_effort(metric, codec):
    index, x = built(metric, codec=codec, n_lists=30)
    q = data(100, seed=1)
    truth = annx.exact_search(q, x, 10, metric=metric).ids
    by_probes = [
        recall(index.search(q, 10, n_probe=p, rerank=150, epsilon=99).ids, truth)
        for p in (1, 3, 9, 30)
    ]
    assert by_probes == sorted(by_probes)
    assert by_probes[-1] == 1
    by_rank = [
        recall(index.search(q, 10, n_probe=30, rerank=r).ids, truth)
        for r in (0, 1, 5, 25)
    ]
    assert by_rank == sorted(by_rank)
    assert by_rank[-1] > 0.9


@pytest.mark.parametrize("codec", ALL_CODECS)
@pytest.mark.parametrize("metric", METRICS)
def test_distances_found_are_canonical(metric, codec):
    index, x = built(metric, codec=codec)
    q = data(30, seed=1)
    ids, distances = index.search(q, 5, n_probe=3)
    exact = annx.pairwise_distances(q, x, metric=metric)
    assert np.array_equal(distances, np.take_along_axis(exact, ids, 1))


def rounding_bound(twin, q, deviations):
    """How far rounded tables and float16 may put estimates off.

    Half a step for each of a code's pieces, the step being a 127th of the widest range
    of a piece's terms.
    """
    rotated = twin._pieces.rotate(twin._prepared(q).astype(np.float64))
    if twin.metric != "ip":
        mean = twin._prepared(twin.get(twin.ids)).astype(np.float64).mean(axis=0)
        rotated = rotated - twin._pieces.rotate(mean[None])
    starts = twin._pieces.starts
    bounds = []
    for row in rotated:
        ranges = [
            np.ptp(book @ row[starts[p] : starts[p + 1]])
            for p, book in enumerate(twin._pieces.books)
        ]
        bounds.append(len(ranges) * max(ranges) / 127 / 2)
    return np.array(bounds)[:, None]


ROTATED = {"codec": "pq4", "rotation": "random"}


@pytest.mark.parametrize("codec", [*({"codec": c} for c in CODECS), ROTATED])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dim", [3, 20, 37])
def test_estimates_equal_reference_within_the_bound(metric, codec, dim):
    x = data(400, dim)
    options = {**codec, "n_lists": 5, "n_iterations": 3, "n_probe": 5}
    native = annx.IVFIndex.build(x, metric, **options)
    twin = reference.IVFIndex.build(x, metric, **options)
    assert np.allclose(native.centroids, twin.centroids, rtol=1e-4, atol=1e-5)
    assert np.array_equal(native.list_sizes, twin.list_sizes)
    q = data(8, dim, seed=1)
    ids, ours = native.search(q, 400, rerank=0)
    stored, theirs, deviations = twin.estimates(q)
    theirs = np.take_along_axis(theirs, ids, 1)
    if metric != "ip":
        theirs = np.maximum(theirs, 0)
    _, factors, _ = twin._pieces.encode(
        twin._prepared(x) - twin.centroids[twin._cells(x)]
    )
    scale = {"l2": 2, "ip": 1, "cosine": 1}[metric]
    rounding = scale * factors[ids] * rounding_bound(twin, q, deviations)
    # Offsets and scales have 11 bits.
    half = 2.0**-10 * (np.abs(theirs) + 4 * np.abs(theirs).max())
    off = np.abs(ours - theirs)
    # A code differs only where two levels are nearly equally near.
    assert (off <= rounding + half).mean() > 0.999
    assert np.array_equal(np.sort(ids, axis=1), np.tile(stored, (8, 1)))


LONGER = (
    {"storage": "sq8"},
    {"storage": "sq4", "codec": "pq4"},
    *({"storage": "codes", "bits": bits} for bits in range(2, 9)),
)


@pytest.mark.parametrize("options", LONGER)
@pytest.mark.parametrize(
    ("metric", "dim"), [("l2", 3), ("l2", 37), ("ip", 20), ("cosine", 20)]
)
def test_longer_codes_equal_reference(metric, dim, options):
    x, q = data(150, dim), data(6, dim, seed=1)
    options = {"n_lists": 4, "n_iterations": 3, "n_probe": 4, **options}
    native = annx.IVFIndex.build(x, metric, **options)
    twin = reference.IVFIndex.build(x, metric, **options)
    ids, ours = native.search(q, 150, rerank=150, epsilon=99)
    stored, theirs, _ = twin.estimates(q, longer=True)
    assert np.array_equal(np.sort(ids, axis=1), np.tile(stored, (6, 1)))
    theirs = np.take_along_axis(theirs, ids, 1)
    if metric != "ip":
        theirs = np.maximum(theirs, 0)
    # Rounding of queries to 16 bits and of sums to float32.
    off = np.abs(ours - theirs) / np.abs(theirs).max()
    close = off < 1e-4 * 2.0 ** -max(0, native.bits - 6)
    # A code differs where two levels, or two widths of the grid, are nearly as good.
    assert close.mean() > 0.97
    assert off.max() < 0.1


@pytest.mark.parametrize("bits", range(2, 9))
def test_longer_codes_leave_what_theory_says(bits):
    x = np.random.default_rng(0).standard_normal((300, 96)).astype(np.float32)
    index = annx.IVFIndex.build(x, n_lists=1, storage="codes", bits=bits)
    residuals = x - index.centroids
    # <r, f z^> = |r|^2, so that f z^ less r is what lies across: tan of the angle.
    left = ((index.get(index.ids) - x) ** 2).sum(1) / (residuals**2).sum(1)
    # An even grid's least distortion D for a normal distribution (Max, 1960).
    least = (0.1188, 0.03744, 0.01154, 0.003495, 0.001040, 0.0003043, 0.00008769)
    assert left.mean() < 1.02 * least[bits - 2] / (1 - least[bits - 2])
    assert index.memory_usage()["rows"] >= 300 * (96 * bits // 8 + 8)
    assert index.memory_usage()["rows"] < 300 * (96 * bits // 8 + 8) * 1.6


@pytest.mark.parametrize(("storage", "most"), [("sq8", 1e-4), ("sq4", 0.014)])
def test_scalar_codes_leave_little(storage, most):
    index, x = built(n=3000, storage=storage)
    apart = ((x[:, None] - index.centroids) ** 2).sum(-1).min(1)
    left = ((index.get(index.ids) - x) ** 2).sum() / apart.sum()
    assert left < most
    q = data(60, seed=1)
    truth = annx.exact_search(q, x, 10)
    found = index.search(q, 10, n_probe=12, rerank=40, epsilon=4)
    assert recall(found.ids, truth.ids) > (0.98 if storage == "sq8" else 0.8)
    with pytest.raises(ValueError, match="rows"):
        index.search_radius(q, 1.0)
    with pytest.raises(ValueError, match="anew"):
        index.train(x)


@pytest.mark.parametrize("options", [{}, *({"bits": b} for b in (2, 3, 4, 6, 8))])
@pytest.mark.parametrize("metric", METRICS)
def test_rabitq_is_unbiased_within_its_bound(metric, options):
    longer = bool(options)
    if longer and metric == "cosine":
        return  # as l2, on directions
    dim, n, rotations = 48, 64, 60
    x, q = data(n, dim), data(1, dim, seed=1)
    exact = annx.pairwise_distances(q, x, metric=metric)[0].astype(np.float64)
    errors, deviations = [], []
    for seed in range(rotations):
        options = {**options, "n_lists": 1, "n_iterations": 1, "seed": seed}
        index = annx.IVFIndex.build(x, metric, **options, storage="codes")
        ids, found = index.search(q, n, rerank=n if longer else 0, epsilon=99)
        errors.append(found[0][np.argsort(ids[0])] - exact)
        twin = reference.IVFIndex.build(x, metric, **options)
        deviations.append(twin.estimates(q, longer=longer)[2][0])
    share = np.array(errors) / np.array(deviations)
    # The mean over rotations, in standard errors of that mean; tables add a little.
    mean = share.mean(axis=0) * np.sqrt(rotations)
    assert np.abs(mean).mean() < 1.2
    assert abs(share.mean()) < 0.1
    for epsilon in (1.0, 1.9, 3.0):
        assert (np.abs(share) > epsilon).mean() <= np.exp(-(epsilon**2) / 2)
    # The bound is not idle either.
    assert share.std() > 0.7


@given(
    own.seeds,
    st.integers(1, 40),
    st.sampled_from(METRICS),
    st.sampled_from((1, 4)),
    st.sampled_from(ALL_CODECS),
)
def test_all_candidates_equal_reference(seed, k, metric, n_probe, codec):
    x = own.make_rows(seed, 60, 6, kind="integer")
    options = {"n_lists": 4, "n_iterations": 0, "codec": codec, "seed": seed}
    native = annx.IVFIndex.build(x, metric, **options)
    twin = reference.IVFIndex.build(x, metric, **options)
    how = {"n_probe": n_probe, "rerank": 60, "epsilon": 99}
    queries = x[:5]
    if n_probe < 4:
        if metric == "cosine":
            return  # centroids of directions are no whole numbers
        # Which of two lists at the same distance is looked at is a matter of rounding.
        keys = np.sort(
            annx.pairwise_distances(queries, native.centroids, metric=metric)
        )
        queries = queries[keys[:, n_probe] - keys[:, n_probe - 1] > 1e-3]
        if len(queries) == 0:
            return
    ours = native.search(queries, k, **how)
    theirs = twin.search(queries, k, **how)
    assert np.array_equal(ours.ids >= 0, theirs[0] >= 0)
    assert np.allclose(ours.distances, theirs[1], atol=1e-6)
    if metric != "cosine":
        assert np.array_equal(ours.ids, theirs[0])
    chosen = np.random.default_rng(seed).choice(60, 30, replace=False)
    kept = native.search(queries, k, filter=chosen, **how)
    assert set(kept.ids.ravel()) <= {*chosen.tolist(), -1}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", METRICS)
def test_types_are_searched_as_they_are(metric, dtype):
    x = data(600, 12) * 8
    if dtype in ("int8", "uint8"):
        x = np.clip(np.round(x), 0, 100)
    x = x.astype(dtype)
    q = x[:10].astype(np.float32) if dtype == "float16" else x[:10]
    index = annx.IVFIndex.build(x, metric, dtype, n_lists=8)
    exact = annx.exact_search(q, x, 5, metric=metric, dtype=dtype)
    found = index.search(q, 5, n_probe=8, rerank=200, epsilon=99)
    assert np.array_equal(found.ids, exact.ids)
    assert np.array_equal(found.distances, exact.distances)
    assert np.array_equal(index.get([5, 3]), x[[5, 3]])


def kind_of_data(dtype, n=600, seed=0, dim=12):
    """Rows of a type, and as `annx` takes them for queries."""
    x = data(n, dim, seed) * 8
    if dtype == "bits":
        x = x > 8
        return x, np.packbits(x, axis=1, bitorder="little")
    if dtype in ("int8", "uint8"):
        x = np.clip(np.round(x), 0, 100).astype(dtype)
    if dtype == "float16":
        x = x.astype(dtype)
    if dtype == "bfloat16":
        x = (x.view(np.uint32) & 0xFFFF0000).view(np.float32)
    return x, x.astype(np.float32) if dtype == "float16" else x


@pytest.mark.parametrize(("metric", "dtype"), FLAT_KINDS)
def test_flat_lists_are_exact_for_every_type(metric, dtype):
    x, stored = kind_of_data(dtype)
    q = kind_of_data(dtype, 10, seed=1)[1]
    index = annx.IVFIndex.build(x, metric, dtype, codec="flat", n_lists=8)
    flat = annx.FlatIndex.build(x, metric, dtype)
    for k in (1, 5, 700):
        found, exact = index.search(q, k, n_probe=8), flat.search(q, k)
        assert np.array_equal(found.ids, exact.ids)
        assert np.array_equal(found.distances, exact.distances)
    some = np.arange(0, 600, 7)
    found, exact = (i.search(q, 5, filter=some) for i in (index, flat))
    assert np.array_equal(found.ids, exact.ids)
    assert np.array_equal(found.distances, exact.distances)
    radius = float(flat.search(q, 9).distances.mean())
    for chosen in (None, some):
        ours, theirs = (
            i.search_radius(q, radius, filter=chosen) for i in (index, flat)
        )
        assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert np.array_equal(index.get([5, 3]), flat.get([5, 3]))
    assert np.array_equal(index.list_sizes.sum(), 600)
    assert index.memory_usage()["codes"] == 0
    single = index.search(stored[7], 3, n_probe=1)
    assert single.ids[0] == index.search(stored[[7]], 3, n_probe=1).ids[0, 0]


@pytest.mark.parametrize(("metric", "dtype"), FLAT_KINDS)
def test_flat_lists_equal_reference(metric, dtype):
    x, stored = kind_of_data(dtype, 200)
    options = {"codec": "flat", "n_lists": 6, "n_iterations": 3}
    native = annx.IVFIndex.build(x, metric, dtype, **options)
    twin = reference.IVFIndex.build(x, metric, dtype, **options)
    assert np.allclose(native.centroids, twin.centroids, rtol=1e-3, atol=1e-4)
    assert np.array_equal(native.list_sizes, twin.list_sizes)
    # Of lists that are nearly equally far either may be visited first.
    keys = np.sort(twin._list_keys(x[:40]), axis=1)
    clear = np.flatnonzero(np.diff(keys, axis=1)[:, 1] > 1e-3 * np.abs(keys).max())
    assert len(clear) > 10
    found = native.search(stored[clear], 5, n_probe=2)
    ids, distances = twin.search(x[clear], 5, n_probe=2)
    assert np.allclose(found.distances, distances, rtol=1e-4)
    assert (found.ids == ids).mean() > (0.9 if metric in ("hamming", "l1") else 0.95)


@pytest.mark.parametrize("codec", ["rabitq", "flat"])
@pytest.mark.parametrize("metric", METRICS)
def test_half_precision_storage_ranks_rounded_vectors(metric, codec):
    index, x = built(metric, storage="float16", codec=codec)
    rounded = x.astype(np.float16).astype(np.float32)
    q = data(20, seed=1)
    found = index.search(q, 5, n_probe=12, rerank=300, epsilon=99)
    exact = annx.exact_search(q, x.astype(np.float16), 5, metric=metric)
    assert np.array_equal(found.ids, exact.ids)
    assert np.array_equal(found.distances, exact.distances)
    assert np.array_equal(index.get([7]), rounded[[7]])
    whole = built(metric, codec=codec)[0]
    assert index.memory_usage()["rows"] < 0.6 * whole.memory_usage()["rows"]
    with pytest.raises(ValueError, match="float16"):
        index.add(np.full((1, 20), 1e5))


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("metric", METRICS)
def test_codes_alone_give_estimates(metric, codec):
    index, x = built(metric, codec=codec, storage="codes")
    whole, _ = built(metric, codec=codec)
    q = data(20, seed=1)
    ours, theirs = index.search(q, 5), whole.search(q, 5, rerank=0)
    assert np.array_equal(ours.ids, theirs.ids)
    assert np.array_equal(ours.distances, theirs.distances)
    assert index.memory_usage()["rows"] == 0
    decoded = index.get(np.arange(100))
    unit = x[:100]
    if metric == "cosine":
        unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    centroids = index.centroids[
        ((unit[:, None] - index.centroids) ** 2).sum(-1).argmin(1)
    ]
    left = ((unit - decoded) ** 2).sum() / ((unit - centroids) ** 2).sum()
    assert left < (0.9 if codec == "rabitq" else 0.4)
    with pytest.raises(ValueError, match="rows"):
        index.search_radius(q, 1.0)
    with pytest.raises(ValueError, match="anew"):
        index.train(x)


@pytest.mark.parametrize("codec", ["rabitq", "flat"])
def test_results_do_not_depend_on_threads_or_batches(codec):
    index, x = built(codec=codec)
    q = data(50, seed=2)
    one, many = (index.search(q, 5, n_probe=4, threads=t) for t in (1, 3))
    single = [index.search(row, 5, n_probe=4) for row in q]
    assert np.array_equal(one.ids, many.ids)
    assert np.array_equal(one.distances, many.distances)
    assert np.array_equal(one.ids, [s.ids for s in single])
    assert np.array_equal(one.distances, [s.distances for s in single])
    again = annx.IVFIndex(20, codec=codec, n_lists=12, n_iterations=4)
    again.train(x, threads=3)
    again.add(x, threads=3)
    assert pickle.dumps(again) == pickle.dumps(index)


def test_adding_in_parts_finds_the_same():
    whole, x = built()
    parts = annx.IVFIndex(20, n_lists=12, n_iterations=4).train(x)
    for at in range(0, 1500, 70):
        parts.add(x[at : at + 70])
    q = data(30, seed=1)
    a, b = (
        index.search(q, 10, n_probe=5, rerank=80, epsilon=99)
        for index in (whole, parts)
    )
    assert np.array_equal(a.ids, b.ids)
    assert np.array_equal(a.distances, b.distances)
    assert np.array_equal(whole.list_sizes, parts.list_sizes)


@pytest.mark.parametrize(
    "options",
    [
        {"storage": None},
        {"storage": "codes"},
        {"storage": None, "codec": "flat"},
        {"storage": "sq8"},
        {"storage": "codes", "bits": 7},
        {"storage": None, "spill": 1.0},
        {"storage": "sq8", "spill": 1.0},
    ],
)
def test_changes_and_reads_agree(options):
    storage = options["storage"]
    codes = 2 if "spill" in options else 1
    index, x = built(**options)
    decoded = index.get(np.arange(1500))
    index.remove(np.arange(0, 1500, 2))
    assert len(index) == 750
    assert index.list_sizes.sum() == 750 * codes
    assert 2 not in index
    assert 3 in index
    found = index.search(x[:50], 5, n_probe=12, rerank=20).ids
    assert (found % 2 == 1).all()
    index.upsert(x[[0, 1]] + 9, [3, 5000])
    assert len(index) == 751
    assert index.list_sizes.sum() == 751 * codes
    assert index.search(x[0] + 9, 1, n_probe=12).ids.tolist() == [3]
    assert index.search(x[1] + 9, 1, n_probe=12).ids.tolist() == [5000]
    assert np.array_equal(index.get([7, 1499]), decoded[[7, 1499]])
    if storage == "sq8" or "bits" in options:
        # Far from what the codes were made for, but coded.
        assert np.abs(index.get([3]) - x[0]).max() > 4
    if storage is None:
        assert np.array_equal(index.get([3, 7]), [x[0] + 9, x[7]])
    assert index.add(x[:1]).tolist() == [5001]
    with pytest.raises(KeyError):
        index.remove([1, 2])
    assert 1 in index
    with pytest.raises(ValueError, match="ids"):
        index.add(x[:2], [9001, 1])
    assert 9001 not in index
    index.remove(index.ids)
    assert len(index) == 0
    assert index.search(x[:2], 2).ids.tolist() == [[-1, -1]] * 2
    assert index.add(x[:3]).tolist() == [5002, 5003, 5004]


@given(
    own.seeds,
    st.sampled_from(
        (
            {"codec": "rabitq"},
            {"codec": "flat"},
            {"storage": "sq8"},
            {"storage": "codes", "bits": 5},
            {"spill": 0.5},
            {"storage": "sq4", "spill": 1},
        )
    ),
    st.sampled_from(METRICS),
)
def test_any_changes_leave_what_a_dictionary_has(seed, options, metric):
    rng = np.random.default_rng(seed)
    index = annx.IVFIndex(5, metric, n_lists=3, **options).train(data(60, 5))
    whole = "storage" not in options
    known = {}
    for _ in range(12):
        rows = data(int(rng.integers(1, 40)), 5, seed=int(rng.integers(1 << 30)))
        kind = rng.integers(3)
        if kind == 0:
            known.update(zip(index.add(rows).tolist(), rows, strict=True))
        elif kind == 1:
            ids = rng.choice(300, len(rows), replace=False)
            index.upsert(rows, ids)
            known.update(zip(ids.tolist(), rows, strict=True))
        elif known:
            ids = rng.choice(list(known), int(rng.integers(1, len(known) + 1)), False)
            index.remove(ids)
            for id in ids.tolist():
                del known[id]
    assert sorted(index.ids.tolist()) == sorted(known)
    assert index.list_sizes.sum() == len(known) * (2 if "spill" in options else 1)
    if known:
        ids = np.array(list(known))
        rows = np.array(list(known.values()))
        if whole:
            assert np.array_equal(index.get(ids), rows)
        else:
            # The same code wherever, and in whatever order, it came.
            again = annx.IVFIndex(5, metric, n_lists=3, **options).train(data(60, 5))
            again.add(rows, ids)
            assert np.array_equal(index.get(ids), again.get(ids))
        found = index.search(data(4, 5), 400, n_probe=3, rerank=300, epsilon=99)
        assert (np.sort(found.ids, axis=1)[:, -len(known) :] == np.sort(ids)).all()
        again = pickle.loads(pickle.dumps(index)).search(
            data(4, 5), 400, n_probe=3, rerank=300, epsilon=99
        )
        assert np.array_equal(found.ids, again.ids)


@pytest.mark.parametrize("options", [{}, {"codec": "flat"}, {"spill": 1.0}])
def test_a_filter_is_kept_to(options):
    index, x = built(n=4000, **options)
    q = data(20, seed=1)
    for chosen in (np.arange(0, 4000, 2), np.arange(3), np.arange(100, 1900)):
        found = index.search(q, 10, n_probe=2, rerank=5, filter=chosen)
        assert np.isin(found.ids, [*chosen.tolist(), -1]).all()
        assert (found.ids >= 0).sum() == 20 * min(10, len(chosen))
    flat = annx.FlatIndex.build(x)
    few = np.arange(0, 4000, 5)
    assert np.array_equal(
        index.search(q, 10, filter=few).ids, flat.search(q, 10, filter=few).ids
    )
    mask = np.zeros(4000, bool)
    assert (index.search(q, 3, filter=index.id_set(mask)).ids == -1).all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("spill", [0, 1.5])
def test_second_lists_equal_reference(metric, spill):
    x, q = data(500, 9), data(40, 9, seed=1)
    options = {"n_lists": 50, "n_iterations": 3, "spill": spill}
    native = annx.IVFIndex.build(x, metric, **options)
    twin = reference.IVFIndex.build(x, metric, **options)
    assert native.spill == twin.spill == spill
    assert native.list_sizes.sum() == 1000
    # Two lists may be nearly equally good.
    assert np.abs(native.list_sizes - twin.list_sizes).sum() <= 4
    how = {"n_probe": 3, "rerank": 100, "epsilon": 99}
    found, (ids, _) = native.search(q, 5, **how), twin.search(q, 5, **how)
    assert (found.ids == ids).mean() > 0.97
    assert all(len(set(row)) == 5 for row in found.ids.tolist())
    # What is in both lists that are probed is found once, by its estimate too.
    for rerank in (0, 2):
        every = native.search(q, 500, n_probe=50, rerank=rerank)
        assert np.array_equal(
            np.sort(every.ids, axis=1), np.tile(np.arange(500), (40, 1))
        )


@pytest.mark.parametrize("options", [{}, {"storage": "sq8"}])
def test_second_lists_find_more(options):
    options = {"n_lists": 60, **options}
    x, q = data(3000), data(100, seed=1)
    truth = annx.exact_search(q, x, 10).ids
    once, twice = (
        annx.IVFIndex.build(x, **options, spill=spill) for spill in (None, 1.0)
    )
    assert np.array_equal(once.centroids, twice.centroids)
    how = {"n_probe": 4, "rerank": 300, "epsilon": 99}
    one, two = (recall(i.search(q, 10, **how).ids, truth) for i in (once, twice))
    assert two > one
    if "storage" not in options:
        ids, distances = twice.search(q, 10, **how)
        exact = np.take_along_axis(annx.pairwise_distances(q, x), ids, 1)
        assert np.array_equal(distances, exact)
    else:
        # The same whichever list it was found by.
        near = twice.search(q, 10, n_probe=60, rerank=300, epsilon=99)
        some = twice.search(q, 10, n_probe=2, rerank=300, epsilon=99)
        for i in range(100):
            known = dict(zip(near.ids[i].tolist(), near.distances[i], strict=True))
            for id, distance in zip(
                some.ids[i].tolist(), some.distances[i], strict=True
            ):
                assert abs(known.get(id, distance) - distance) <= 1e-4 * distance


def test_a_rotation_evens_out_uneven_dimensions():
    spread = np.exp(-np.arange(32) / 6)
    x = (np.random.default_rng(0).standard_normal((2000, 32)) * spread).astype("f4")
    q = x[:100] + 0.1 * spread.astype("f4")
    truth = annx.exact_search(q, x, 10).ids
    plain, rotated = (
        annx.IVFIndex.build(x, codec="pq4", storage="codes", n_lists=4, rotation=how)
        for how in (None, "random")
    )
    assert (plain.rotation, rotated.rotation) == (None, "random")
    one, two = (recall(i.search(q, 10, n_probe=4).ids, truth) for i in (plain, rotated))
    assert two > one
    assert np.abs(rotated.get(rotated.ids) - x).max() < 2 * np.abs(x).max()


def test_one_list_has_no_second():
    x = data(100)
    index = annx.IVFIndex.build(x, n_lists=1, spill=1.0)
    assert index.list_sizes.tolist() == [100]
    assert index.search(x[3], 1).ids.tolist() == [3]


def test_training_again_sorts_flat_lists_anew():
    index, x = built(codec="flat", metric="cosine")
    index.remove([4])
    before = index.list_sizes
    index.train(x[:600])
    assert not np.array_equal(before, index.list_sizes)
    assert np.array_equal(index.get(index.ids), x[index.ids])
    assert index.search(x[:50], 1).ids[:, 0].tolist() == [
        *range(4),
        index.search(x[4], 1).ids[0],
        *range(5, 50),
    ]


def test_training_again_codes_anew():
    index, x = built()
    before = index.search(x[:20], 3, rerank=0).distances
    index.train(x[:600])
    after = index.search(x[:20], 3, rerank=0).distances
    assert not np.array_equal(before, after)
    assert np.array_equal(index.get(np.arange(1500)), x)
    assert index.list_sizes.sum() == 1500
    index.remove([3])
    assert len(index) == 1499


@pytest.mark.parametrize("codec", ["rabitq", "flat"])
def test_stopping_leaves_the_index_as_it_was(codec):
    index, x = built(codec=codec)
    before = pickle.dumps(index)

    class StopError(Exception):
        pass

    def stop(done, total):
        raise StopError

    many = np.tile(x, (40, 1))
    for call in (index.train, index.add):
        with pytest.raises(StopError):
            call(many, threads=1, progress=stop)
        assert len(index) == 1500
        assert index.list_sizes.sum() == 1500
    assert np.array_equal(
        pickle.loads(before).search(x[:9], 5).ids, index.search(x[:9], 5).ids
    )


def test_radius_search_is_exact():
    index, x = built()
    offsets, ids, _ = index.search_radius(x[:4], 20.0)
    squares = ((x[:4, None] - x[None]) ** 2).sum(-1)
    assert np.diff(offsets).tolist() == (squares <= 20).sum(1).tolist()
    assert ids[0] == 0


def test_awkward_data_are_searched():
    for x in (
        np.zeros((40, 3), np.float32),
        np.ones((40, 1), np.float32),
        np.repeat(data(2, 7), 20, axis=0),
        data(40, 9) * np.float32(1e-18),
        np.concatenate([data(39, 9), np.full((1, 9), 1e15, np.float32)]),
    ):
        for metric, codec in itertools.product(METRICS, ("rabitq", "flat")):
            index = annx.IVFIndex.build(x, metric, codec=codec, n_lists=2)
            found = index.search(x[:5], 3, n_probe=2, rerank=20, epsilon=99)
            exact = annx.exact_search(x[:5], x, 3, metric=metric)
            assert np.array_equal(found.distances, exact.distances)
        for metric, options in itertools.product(METRICS, (*LONGER, {"spill": 2})):
            options = {**options, "n_segments": 1} if "codec" in options else options
            index = annx.IVFIndex.build(x, metric, n_lists=2, **options)
            found = index.search(x[:5], 3, n_probe=2, rerank=20, epsilon=99)
            assert (found.ids >= 0).all()
            assert np.isfinite(found.distances).all()
            assert np.isfinite(index.get(index.ids)).all()


def test_many_dimensions_are_summed_in_portions():
    x = data(200, 1100)
    index = annx.IVFIndex.build(x, n_lists=2)
    q = data(5, 1100, seed=1)
    estimates = index.search(q, 200, n_probe=2, rerank=0)
    exact = np.take_along_axis(annx.pairwise_distances(q, x), estimates.ids, 1)
    assert np.abs(estimates.distances / exact - 1).max() < 0.2


def test_fewer_than_k_is_padded():
    index = annx.IVFIndex(20, n_lists=2).train(data(40))
    assert index.search(data(2), 3).ids.tolist() == [[-1] * 3] * 2
    index.add(data(2))
    ids, distances = index.search(data(2)[0], 5)
    assert ids.tolist()[2:] == [-1] * 3
    assert np.isinf(distances[2:]).all()
    assert index.search(data(1), 5, filter=[1]).ids.tolist() == [[1, -1, -1, -1, -1]]


def test_bad_input_is_a_clear_error():
    index, x = built()
    for call, word in (
        (lambda: annx.IVFIndex(20, metric="l1"), "metric"),
        (lambda: annx.IVFIndex(20, dtype="bits"), "dtype"),
        (lambda: annx.IVFIndex(20, codec="lsq"), "'rabitq', 'pq4'"),
        (lambda: annx.IVFIndex(20, "hamming", codec="flat"), "metric"),
        (lambda: annx.IVFIndex(20, "l2", "bits", codec="flat"), "metric"),
        (lambda: annx.IVFIndex(20, codec="flat", storage="codes"), "storage"),
        (lambda: annx.IVFIndex(20, codec="flat", n_segments=4), "n_segments"),
        (lambda: annx.IVFIndex(20, codec="flat", storage="sq8"), "storage"),
        (lambda: annx.IVFIndex(20, bits=4), "bits"),
        (lambda: annx.IVFIndex(20, rotation="random"), "rotation"),
        (lambda: annx.IVFIndex(20, codec="pq4", rotation="opq"), "rotation"),
        (lambda: annx.IVFIndex(20, spill=-1), "spill"),
        (lambda: annx.IVFIndex(20, spill=np.inf), "spill"),
        (lambda: annx.IVFIndex(20, codec="flat", spill=1), "spill"),
        (lambda: annx.IVFIndex(20, "poincare", codec="flat"), "metric"),
        (lambda: annx.IVFIndex(20, bits=0, storage="codes"), "bits"),
        (lambda: annx.IVFIndex(20, bits=9, storage="codes"), "bits"),
        (lambda: annx.IVFIndex(20, codec="pq4", bits=4, storage="codes"), "bits"),
        (lambda: annx.IVFIndex(20, storage="int8"), "storage"),
        (lambda: annx.IVFIndex(20, dtype="int8", storage="float16"), "storage"),
        (lambda: annx.IVFIndex(20, n_segments=4), "n_segments"),
        (lambda: annx.IVFIndex(20, codec="pq4", n_segments=21), "n_segments"),
        (lambda: annx.IVFIndex(20, n_lists=0), "n_lists"),
        (lambda: annx.IVFIndex(20, n_probe=0), "n_probe"),
        (lambda: index.search(x[:2], 0), "k"),
        (lambda: index.search(x[:2], n_probe=0), "n_probe"),
        (lambda: index.search(x[:2], 2, rerank=-1), "rerank"),
        (lambda: index.search(x[:2], 2, epsilon=-1), "epsilon"),
        (lambda: index.search(x[:2] * np.nan), "queries"),
        (lambda: index.search(x[:2, :3]), "queries"),
        (lambda: index.add(x[:2, :3]), "vectors"),
        (lambda: index.train(x[:3]), "vectors"),
    ):
        with pytest.raises(ValueError, match=word):
            call()
    assert len(index) == 1500
    with pytest.raises(annx.NotTrainedError):
        annx.IVFIndex(20).add(x)
    with pytest.raises(annx.NotTrainedError):
        annx.IVFIndex(20).search(x)


@pytest.mark.parametrize("storage", [None, "float16", "codes"])
@pytest.mark.parametrize("metric", METRICS)
def test_save_and_pickle_are_the_identity(tmp_path, metric, storage):
    index, x = built(metric, storage=storage, codec="pq4", n_segments=7, n_probe=5)
    index.remove([4, 900])
    index.save(tmp_path / "i.annx")
    others = [annx.load(tmp_path / "i.annx", mmap=m) for m in (False, True)]
    others.append(annx.load(tmp_path / "i.annx", mmap=True, verify="structure"))
    others.append(pickle.loads(pickle.dumps(index)))
    for other in others:
        assert type(other) is annx.IVFIndex
        assert (other.storage, other.codec, other.n_probe) == (
            storage or "float32",
            "pq4",
            5,
        )
        found, known = other.search(x[:30], 6), index.search(x[:30], 6)
        assert np.array_equal(found.ids, known.ids)
        assert np.array_equal(found.distances, known.distances)
        assert np.array_equal(other.get([3, 901]), index.get([3, 901]))
        assert other.add(x[:1]).tolist() == [1500]
        other.remove([3, 1500])
        assert len(other) == 1497
    assert index.memory_usage()["codes"] > 0
    assert len(pickle.loads(pickle.dumps(annx.IVFIndex(9)))) == 0


@pytest.mark.parametrize(
    "options",
    [
        {"codec": "flat"},
        {"storage": "sq4"},
        {"storage": "codes", "bits": 3},
        {"spill": 1.0, "storage": "sq8"},
        {"spill": 0.0},
        {**ROTATED, "storage": "codes"},
    ],
)
@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_what_is_kept_is_saved_and_mapped(tmp_path, metric, options):
    index, x = built(metric, **options)
    index.remove([4, 900])
    index.save(tmp_path / "i.annx")
    others = [annx.load(tmp_path / "i.annx", mmap=m) for m in (False, True)]
    for other in (*others, pickle.loads(pickle.dumps(index))):
        assert (other.codec, other.storage) == (index.codec, index.storage)
        assert other.rotation == index.rotation
        assert other.spill == index.spill == options.get("spill")
        assert other.bits == index.bits == options.get("bits", index.bits)
        found, known = other.search(x[:30], 6), index.search(x[:30], 6)
        assert np.array_equal(found.ids, known.ids)
        assert np.array_equal(found.distances, known.distances)
        assert np.array_equal(other.get(other.ids), index.get(index.ids))
        # What is mapped is copied when it changes.
        assert other.add(x[[4]]).tolist() == [1500]
        other.remove([3])
        assert other.search(x[4], 1, n_probe=12, rerank=1500).ids.tolist() == [1500]
    assert index.search(x[3], 1, rerank=1500).ids.tolist() == [3]
    # In any number of threads, and in parts.
    parts = annx.IVFIndex(20, metric, n_lists=12, n_iterations=4, **options)
    parts.train(x, threads=3)
    for at in range(0, 1500, 400):
        parts.add(x[at : at + 400], threads=3)
    assert np.array_equal(parts.get(index.ids), index.get(index.ids))


def test_whole_numbers_are_coded_longer():
    x = np.clip(np.round(data(600, 12) * 8), -100, 100).astype(np.int8)
    index = annx.IVFIndex.build(x, "l2", "int8", n_lists=4, storage="sq8")
    assert np.abs(index.get(index.ids).astype(int) - x).max() <= 1
    assert index.search(x[:20], 1, n_probe=4).ids[:, 0].tolist() == list(range(20))
