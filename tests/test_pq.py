# SPDX-License-Identifier: Apache-2.0
import pickle

import numpy as np
import pytest

import annx
from isas import outputs_by_isa


def data(n=1200, dim=24, seed=0):
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((dim, dim)).astype(np.float32)
    return rng.standard_normal((n, dim)).astype(np.float32) @ mix / np.float32(dim**0.5)


def exact(metric, a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    if metric == "l2":
        return ((a[:, None] - b[None]) ** 2).sum(-1)
    if metric == "ip":
        return -(a @ b.T)
    a /= np.linalg.norm(a, axis=1, keepdims=True)
    return 1 - a @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_asymmetric_recall_is_at_least_symmetric(metric):
    x, queries = data(3000), data(200, seed=1)
    pq = annx.ProductQuantizer(24, 6, metric=metric, seed=1).train(x)
    codes = pq.encode(x)
    truth = exact(metric, queries, x).argmin(1)
    adc = pq.asymmetric_distances(queries, codes)
    sdc = pq.symmetric_distances(pq.encode(queries), codes)

    def recall(distances, k=10):
        near = np.argsort(distances, axis=1, kind="stable")[:, :k]
        return (near == truth[:, None]).any(1).mean()

    assert recall(adc) >= recall(sdc)
    assert recall(adc) > 0.7


def test_more_bits_and_segments_err_less():
    x = data(3000)

    def error(**options):
        pq = annx.ProductQuantizer(24, **options).train(x)
        return ((pq.decode(pq.encode(x)) - x) ** 2).sum()

    assert error(n_segments=6) < error(n_segments=3)
    assert error(n_segments=6) < error(n_segments=6, n_bits=4)


def test_same_codes_for_any_number_of_threads():
    x = data()
    a = annx.ProductQuantizer(24, 5, seed=2).train(x, threads=1)
    b = annx.ProductQuantizer(24, 5, seed=2).train(x, threads=3)
    assert np.array_equal(a.encode(x, threads=1), b.encode(x, threads=4))
    assert a._native.to_bytes() == b._native.to_bytes()


SCRIPT = """
import hashlib, numpy as np, annx
x = np.random.default_rng(1).standard_normal((900, 37)).astype(np.float32)
for bits, metric in ((8, "l2"), (4, "ip"), (8, "cosine")):
    pq = annx.ProductQuantizer(37, 7, n_bits=bits, metric=metric, seed=3).train(x)
    codes = pq.encode(x)
    parts = (codes, pq.symmetric_tables(), pq.asymmetric_tables(x[:9]),
             pq.asymmetric_distances(x[:9], codes),
             pq.symmetric_distances(codes[:9], codes))
    print(*(hashlib.sha256(p.tobytes()).hexdigest() for p in parts))
"""


def test_same_codes_tables_and_distances_on_every_instruction_set():
    outputs = outputs_by_isa(SCRIPT)
    assert len(outputs) == 1
    assert len(outputs.pop().split()) == 15


def test_duplicates_and_constant_data_code_exactly():
    x = np.ones((300, 7), np.float32)
    pq = annx.ProductQuantizer(7, 3).train(x)
    assert np.array_equal(pq.decode(pq.encode(x)), x)
    x = np.repeat(data(200, 7), 3, axis=0)
    pq = annx.ProductQuantizer(7, 2, n_iterations=50).train(x)
    assert np.allclose(pq.decode(pq.encode(x)), x, atol=1e-6)


def test_zero_vectors_have_cosine_distance_one():
    x = data()
    pq = annx.ProductQuantizer(24, 4, metric="cosine").train(x)
    codes = pq.encode(x[:5])
    zero = np.zeros(24, np.float32)
    assert np.array_equal(pq.asymmetric_distances(zero, codes), np.ones(5))
    assert np.array_equal(pq.asymmetric_tables(zero), np.zeros((4, 256)))


def test_sample_is_limited():
    x = data(2000)
    few = annx.ProductQuantizer(24, 4, n_bits=4, max_points_per_centroid=5).train(x)
    all_ = annx.ProductQuantizer(24, 4, n_bits=4, max_points_per_centroid=None).train(x)
    errors = [((p.decode(p.encode(x)) - x) ** 2).sum() for p in (few, all_)]
    assert errors[0] > errors[1]


@pytest.mark.parametrize(
    ("build", "word"),
    [
        (lambda x: annx.ProductQuantizer(0, 1), "dim"),
        (lambda x: annx.ProductQuantizer(24, 0), "n_segments"),
        (lambda x: annx.ProductQuantizer(24, 25), "n_segments"),
        (lambda x: annx.ProductQuantizer(24, 4, n_bits=6), "n_bits"),
        (lambda x: annx.ProductQuantizer(24, 4, metric="l1"), "metric"),
        (lambda x: annx.ProductQuantizer(24, 4, seed=-2), "seed"),
        (lambda x: annx.ProductQuantizer(24, 4).train(x[:255]), "at least 256"),
        (lambda x: annx.ProductQuantizer(24, 4, n_bits=4).train(x[:15]), "at least 16"),
        (lambda x: annx.ProductQuantizer(23, 4).train(x), "columns"),
        (lambda x: annx.ProductQuantizer(24, 4).train(x * np.nan), "finite|NaN"),
        (lambda x: annx.ProductQuantizer(24, 4).train(x).encode(x[:, 1:]), "columns"),
        (lambda x: annx.ProductQuantizer(24, 4).train(x).codebook(4), "segment"),
        (
            lambda x: annx.ProductQuantizer(24, 4).train(x).decode(np.zeros(3, "u1")),
            "codes",
        ),
        (
            lambda x: (
                annx.ProductQuantizer(24, 3, n_bits=4)
                .train(x)
                .decode(np.full((1, 2), 255, "u1"))
            ),
            "codes",
        ),
    ],
)
def test_bad_input_is_a_clear_error(build, word):
    with pytest.raises(ValueError, match=word):
        build(data(300))


def test_wrong_types_are_type_errors():
    pq = annx.ProductQuantizer(24, 4).train(data(300))
    for call in (
        lambda: annx.ProductQuantizer(2.5, 1),
        lambda: annx.ProductQuantizer(4, 1, n_bits="8"),
        lambda: pq.decode(np.zeros((1, 4))),
        lambda: pq.encode(np.array([["x"] * 24])),
    ):
        with pytest.raises(TypeError):
            call()


def test_untrained_raises_and_failure_changes_nothing():
    x = data(300)
    pq = annx.ProductQuantizer(24, 4)
    for call in (
        lambda: pq.encode(x),
        lambda: pq.decode(np.zeros((1, 4), np.uint8)),
        lambda: pq.asymmetric_tables(x),
        pq.symmetric_tables,
        lambda: pq.codebook(0),
    ):
        with pytest.raises(annx.NotTrainedError):
            call()
    pq.train(x)
    before = pq._native.to_bytes()
    with pytest.raises(ValueError, match="vectors"):
        pq.train(x[:3])
    assert pq._native.to_bytes() == before


def test_save_and_pickle_are_the_identity(tmp_path):
    x = data(400)
    pq = annx.ProductQuantizer(24, 7, metric="cosine", seed=8).train(x)
    pq.save(tmp_path / "pq.annx")
    loaded = [annx.load(tmp_path / "pq.annx", mmap=m) for m in (False, True)]
    loaded.append(pickle.loads(pickle.dumps(pq)))
    for other in loaded:
        assert type(other) is annx.ProductQuantizer
        assert repr(other) == repr(pq)
        assert np.array_equal(other.encode(x), pq.encode(x))
        assert np.array_equal(other.symmetric_tables(), pq.symmetric_tables())
    fresh = pickle.loads(pickle.dumps(annx.ProductQuantizer(9, 2)))
    assert not fresh.trained
