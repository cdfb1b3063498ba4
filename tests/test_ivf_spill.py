# SPDX-License-Identifier: Apache-2.0
"""Second lists of IVFIndex."""

import numpy as np
import pytest

import annx
from annx import reference
from ivf_cases import METRICS, data, recall


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


def test_one_list_has_no_second():
    x = data(100)
    index = annx.IVFIndex.build(x, n_lists=1, spill=1.0)
    assert index.list_sizes.tolist() == [100]
    assert index.search(x[3], 1).ids.tolist() == [3]


@pytest.mark.parametrize(("first", "then"), [(1200, 300), (300, 1200)])
def test_training_again_chooses_second_lists_among_the_new_ones(first, then):
    # The number of lists follows from that of the rows, so it falls and rises.
    x, q = data(1200, 9), data(40, 9, seed=1)
    index = annx.IVFIndex(9, spill=1.0, n_iterations=3)
    index.train(x[:first])
    index.add(x)
    lists = len(index.list_sizes)
    index.train(x[:then])
    fresh = annx.IVFIndex(9, spill=1.0, n_iterations=3)
    fresh.train(x[:then])
    fresh.add(x)
    assert lists != len(index.list_sizes) == len(fresh.list_sizes)
    assert np.array_equal(index.list_sizes, fresh.list_sizes)
    found, known = (i.search(q, 5, n_probe=3, rerank=0) for i in (index, fresh))
    assert np.array_equal(found.ids, known.ids)
    assert np.array_equal(found.distances, known.distances)
