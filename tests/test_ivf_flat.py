# SPDX-License-Identifier: Apache-2.0
"""IVFIndex of whole vectors."""

import numpy as np
import pytest

import annx
from annx import reference
from ivf_cases import METRICS, built, data

FLAT_KINDS = (
    *((m, d) for m in (*METRICS, "l1") for d in ("float32", "float16", "int8")),
    ("l2", "bfloat16"),
    ("cosine", "uint8"),
    ("hamming", "bits"),
    ("jaccard", "bits"),
)


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
