# SPDX-License-Identifier: Apache-2.0
"""Codes of IVFIndex: their estimates, beside the reference and the theory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import annx
import strategies as own
from annx import reference
from ivf_cases import CODECS, CODES, LEARNT, LONGER, METRICS, built, data, recall


def rounding_bound(twin, q, deviations):
    """How far rounded tables and float16 may put estimates off.

    Half a step for each of a code's pieces, the step being a 127th of the widest range
    of a piece's terms. Those of 8-bit pieces are not rounded.
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
    return np.array(bounds)[:, None] * (twin.codec != "pq8")


@pytest.mark.parametrize("codec", CODES)
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
        twin._prepared(x) - twin._origins(twin._cells(x))
    )
    scale = {"l2": 2, "ip": 1, "cosine": 1}[metric]
    rounding = scale * factors[ids] * rounding_bound(twin, q, deviations)
    # Offsets and scales have 11 bits.
    half = 2.0**-10 * (np.abs(theirs) + 4 * np.abs(theirs).max())
    off = np.abs(ours - theirs)
    # A code differs only where two levels are nearly equally near.
    assert (off <= rounding + half).mean() > 0.999
    assert np.array_equal(np.sort(ids, axis=1), np.tile(stored, (8, 1)))


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


@given(
    own.seeds,
    st.sampled_from((1, 3, 7, 13, 127, 129)),
    st.sampled_from(METRICS),
    st.sampled_from((*CODES[2:], {"codec": "pq8", "rotation": "opq"})),
    st.sampled_from(("normal", "integer", "duplicates")),
)
@settings(max_examples=12)
def test_any_rows_are_coded_as_by_the_reference(seed, dim, metric, options, kind):
    x = own.make_rows(seed, 260, dim, kind=kind)
    q = own.make_rows(seed + 1, 4, dim, kind="normal")
    options = {**options, "n_lists": 3, "n_iterations": 2, "seed": seed % 1000}
    segments = 1 + seed % min(dim, 5)
    if options["codec"] != "rabitq":
        options["n_segments"] = segments
    native = annx.IVFIndex.build(x, metric, **options, storage="codes")
    twin = reference.IVFIndex.build(x, metric, **options)
    # More than there are, and in several parts.
    ids, ours = native.search(q, 270, n_probe=3)
    assert (ids[:, 260:] == -1).all()
    assert np.isinf(ours[:, 260:]).all()
    stored, theirs, _ = twin.estimates(q)
    assert np.array_equal(np.sort(ids[:, :260], axis=1), np.tile(stored, (4, 1)))
    theirs = np.take_along_axis(theirs, ids[:, :260], 1)
    if metric != "ip":
        theirs = np.maximum(theirs, 0)
    off = np.abs(ours[:, :260] - theirs) / max(np.abs(theirs).max(), 1e-30)
    # Tables of 7 bits; a row may have two levels that are equally near, and then also
    # train another codebook.
    assert np.median(off) < (0.002 if options["codec"] == "pq8" else 0.05)
    assert np.isfinite(native.get(native.ids)).all()


def test_eight_bits_tell_more_than_four():
    x, q = data(3000, 24), data(60, 24, seed=1)
    truth = annx.exact_search(q, x, 10).ids
    found = [
        recall(
            annx.IVFIndex.build(
                x, n_lists=4, storage="codes", codec=codec, n_segments=segments
            )
            .search(q, 10, n_probe=4)
            .ids,
            truth,
        )
        # The same bytes a code, and the same segments.
        for codec, segments in (("pq4", 12), ("pq8", 6), ("pq8", 12))
    ]
    assert found == sorted(found)
    assert found[2] > found[0] + 0.1


def test_a_learnt_rotation_leaves_less():
    rng = np.random.default_rng(0)
    # Pairs of dimensions that go together, but not the neighbours.
    half = rng.standard_normal((2000, 12)) * np.exp(-np.arange(12) / 3)
    x = np.concatenate([half, half + 0.1 * rng.standard_normal(half.shape)], axis=1)
    x = x.astype(np.float32)
    left = []
    for rotation in (None, "random", "opq"):
        index = annx.IVFIndex.build(
            x, codec="pq4", storage="codes", n_lists=1, n_segments=6, rotation=rotation
        )
        assert index.rotation == rotation
        left.append(float(((index.get(index.ids) - x) ** 2).sum()))
    assert left[2] < 0.8 * min(left[:2])


@pytest.mark.parametrize("dim", [2, 9, 40])
def test_a_learnt_rotation_is_one(dim):
    starts = np.array([0, dim // 2, dim])
    for rows in (
        data(300, dim),
        # Of one direction only: the others are no worse for it.
        np.outer(np.arange(300), np.ones(dim)),
        np.zeros((300, dim)),
    ):
        r = reference.ivf.learn_rotation(rows, starts, 16, seed=1)
        assert np.allclose(r @ r.T, np.eye(dim), atol=1e-9)
        index = annx.IVFIndex.build(
            np.float32(rows), **LEARNT, n_segments=2, n_lists=1, storage="codes"
        )
        # Lengths along a row survive: <r, f z^> = |r|^2.
        rest = np.float32(rows) - index.centroids
        dots = (rest * (index.get(index.ids) - index.centroids)).sum(1)
        squares = (rest**2).sum(1)
        assert np.allclose(dots, squares, rtol=2e-3, atol=1e-3 * squares.max() + 1e-9)


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


def test_many_dimensions_are_summed_in_portions():
    x = data(200, 1100)
    index = annx.IVFIndex.build(x, n_lists=2)
    q = data(5, 1100, seed=1)
    estimates = index.search(q, 200, n_probe=2, rerank=0)
    exact = np.take_along_axis(annx.pairwise_distances(q, x), estimates.ids, 1)
    assert np.abs(estimates.distances / exact - 1).max() < 0.2


def test_whole_numbers_are_coded_longer():
    x = np.clip(np.round(data(600, 12) * 8), -100, 100).astype(np.int8)
    index = annx.IVFIndex.build(x, "l2", "int8", n_lists=4, storage="sq8")
    assert np.abs(index.get(index.ids).astype(int) - x).max() <= 1
    assert index.search(x[:20], 1, n_probe=4).ids[:, 0].tolist() == list(range(20))
