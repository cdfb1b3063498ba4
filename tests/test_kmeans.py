# SPDX-License-Identifier: Apache-2.0
import hashlib
import pickle
from itertools import pairwise

import numpy as np
import pytest

import annx
from isas import outputs_by_isa


def blobs(n=2000, dim=13, seed=0):
    rng = np.random.default_rng(seed)
    middles = rng.standard_normal((40, dim)) * 3
    x = middles[rng.integers(0, 40, n)] + rng.standard_normal((n, dim))
    return x.astype(np.float32)


@pytest.mark.parametrize("init", ["random", "k-means++"])
def test_kmeans_same_centroids_for_any_number_of_threads(init):
    x = blobs()
    runs = [
        annx.KMeans(50, init=init, seed=3).train(x, threads=t).centroids
        for t in (1, 2, 5)
    ]
    assert np.array_equal(runs[0], runs[1])
    assert np.array_equal(runs[0], runs[2])


SCRIPT = """
import hashlib, numpy as np, annx
x = np.random.default_rng(1).standard_normal((700, 37)).astype(np.float32)
k = annx.KMeans(33, seed=2, n_iterations=9).train(x)
print(hashlib.sha256(k.centroids.tobytes() + k.assign(x)[1].tobytes()).hexdigest())
"""


@pytest.mark.parametrize("n_clusters", [32, 60, 128, 600])
@pytest.mark.parametrize("dim", [20, 50])
def test_kmeans_assigns_exactly_after_every_iteration(dim, n_clusters):
    # Clumps, so that most groups of centroids need not be scored, and numbers of groups
    # that fill no register.
    rng = np.random.default_rng(0)
    middles = 2 * rng.standard_normal((12, dim)) + 1
    x = middles[rng.integers(0, 12, 2000)] + rng.standard_normal((2000, dim))
    x = x.astype(np.float32)
    for iterations in (1, 2, 4):
        ends = [
            annx.KMeans(
                n_clusters,
                n_iterations=iterations,
                max_points_per_cluster=None,
                seed=0,
            ).train(x, threads=threads)
            for threads in (1, 2, 2)
        ]
        nearest = annx.exact_search(x, ends[0].centroids, 1).distances
        assert ends[0].objectives[-1] == pytest.approx(nearest.sum(dtype=float), 1e-6)
        for other in ends[1:]:
            assert np.array_equal(other.centroids, ends[0].centroids)


def test_kmeans_same_bits_on_every_instruction_set():
    digests = outputs_by_isa(SCRIPT)
    assert len(digests) == 1
    assert len(digests.pop().strip()) == len(hashlib.sha256().hexdigest())


def test_kmeans_other_seed_other_centroids():
    x = blobs()
    a, b = (annx.KMeans(20, seed=s, n_iterations=2).train(x).centroids for s in (1, 2))
    assert not np.array_equal(a, b)


def test_kmeans_restarts_keep_the_best():
    x = blobs(seed=4)
    one = annx.KMeans(30, seed=1).train(x)
    many = annx.KMeans(30, seed=1, n_restarts=4).train(x)
    assert many.objective <= one.objective


def test_kmeans_plus_plus_starts_better():
    x = blobs(seed=5)
    random, careful = (
        annx.KMeans(40, init=i, n_iterations=0, seed=1).train(x).objective
        for i in ("random", "k-means++")
    )
    assert careful < random


def test_kmeans_samples_at_most_the_limit():
    x = blobs()
    small = annx.KMeans(10, max_points_per_cluster=20).train(x)
    assert small._native.n_trained == 200
    assert (
        annx.KMeans(10, max_points_per_cluster=None).train(x)._native.n_trained == 2000
    )


def test_kmeans_repairs_empty_cells():
    x = blobs(300)
    start = np.concatenate([x[:4], np.full((4, 13), 1e4, np.float32)])
    k = annx.KMeans(8, init=start, n_iterations=30).train(x)
    ids, _ = k.assign(x)
    assert set(ids.tolist()) == set(range(8))
    assert all(b <= a * (1 + 1e-6) for a, b in pairwise(k.objectives))


def test_kmeans_duplicates_and_constant_data_end():
    same = np.ones((50, 5), np.float32)
    k = annx.KMeans(7, init="k-means++").train(same)
    assert k.objective == 0
    assert np.array_equal(k.centroids, np.ones((7, 5)))
    two = np.repeat(np.float32([[0, 0], [1, 2]]), 20, axis=0)
    k = annx.KMeans(5, seed=2).train(two)
    assert k.objective == 0


def test_kmeans_as_many_clusters_as_points():
    x = blobs(40)
    k = annx.KMeans(40, init="k-means++").train(x)
    assert k.objective == 0
    assert np.array_equal(np.sort(k.assign(x)[0]), np.arange(40))


def test_kmeans_off_centre_data_lose_no_digits():
    x = blobs(1000, 20) + np.float32(4096)
    k = annx.KMeans(30, seed=1).train(x)
    ids, distances = k.assign(x)
    exact = ((x[:, None].astype(np.float64) - k.centroids[None]) ** 2).sum(-1)
    assert np.allclose(distances, exact.min(1), rtol=1e-5)
    assert np.allclose(exact[np.arange(1000), ids], exact.min(1), rtol=1e-5)


def test_kmeans_one_far_outlier_is_harmless():
    x = blobs(1000, 20)
    x[17] = 1e6
    k = annx.KMeans(30, seed=1).train(x)
    ids, _ = k.assign(x)
    exact = ((x[:, None].astype(np.float64) - k.centroids[None]) ** 2).sum(-1)
    assert np.allclose(exact[np.arange(1000), ids], exact.min(1), rtol=1e-5)


def test_kmeans_spherical_centroids_have_length_one():
    x = blobs() * np.random.default_rng(0).uniform(0.1, 9, (2000, 1)).astype(np.float32)
    x[5] = 0
    k = annx.KMeans(25, spherical=True).train(x)
    assert np.allclose(np.linalg.norm(k.centroids, axis=1), 1, atol=1e-6)
    assert all(b <= a * (1 + 1e-6) for a, b in pairwise(k.objectives))
    u = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-30)
    ids, distances = k.assign(x)
    cosine = u @ k.centroids.T
    assert np.allclose(cosine[np.arange(2000), ids], cosine.max(1), atol=1e-5)
    assert np.allclose(distances[6:], 2 - 2 * cosine.max(1)[6:], atol=1e-5)


@pytest.mark.parametrize("n_clusters", [4096, 4500])
def test_kmeans_many_clusters_leave_lanes_and_score_buffer(n_clusters):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6000, 3)).astype(np.float32)
    k = annx.KMeans(n_clusters, n_iterations=2).train(x)
    ids, distances = k.assign(x[:200])
    exact = ((x[:200, None] - k.centroids[None]) ** 2).sum(-1)
    assert np.allclose(exact[np.arange(200), ids], exact.min(1), rtol=1e-5)
    assert np.allclose(distances, exact.min(1), rtol=1e-5, atol=1e-7)
    assert all(b <= a * (1 + 1e-6) for a, b in pairwise(k.objectives))


def test_kmeans_stops_when_nothing_changes_or_gains_little():
    x = blobs(500)
    long = annx.KMeans(10, n_iterations=500).train(x)
    assert len(long.objectives) < 400
    short = annx.KMeans(10, n_iterations=500, tolerance=0.01).train(x)
    assert len(short.objectives) < len(long.objectives)


@pytest.mark.parametrize(
    ("build", "word"),
    [
        (lambda x: annx.KMeans(0), "n_clusters"),
        (lambda x: annx.KMeans(3, init="best"), "init"),
        (lambda x: annx.KMeans(3, init=x[:2]), "init"),
        (lambda x: annx.KMeans(3, n_restarts=0), "n_restarts"),
        (lambda x: annx.KMeans(3, tolerance=-1), "tolerance"),
        (lambda x: annx.KMeans(3, seed=-1), "seed"),
        (lambda x: annx.KMeans(3, max_points_per_cluster=0), "max_points"),
        (lambda x: annx.KMeans(99).train(x), "n_clusters"),
        (lambda x: annx.KMeans(3).train(x[0]), "vectors"),
        (lambda x: annx.KMeans(3).train(x * np.nan), "vectors"),
        (lambda x: annx.KMeans(3).train(x * np.float32(1e25)), "vectors"),
        (lambda x: annx.KMeans(3).train(x).assign(x[:, :5]), "vectors"),
        (lambda x: annx.KMeans(3, init=x[:3, :4]).train(x), "start"),
    ],
)
def test_kmeans_bad_input_is_a_clear_error(build, word):
    with pytest.raises(ValueError, match=word), np.errstate(all="ignore"):
        build(blobs(50))


def test_kmeans_wrong_types_are_type_errors():
    for build in (
        lambda: annx.KMeans("3"),
        lambda: annx.KMeans(2.0),
        lambda: annx.KMeans(2).train([["a"]]),
        lambda: annx.KMeans(2).train(blobs(9), progress=3),
    ):
        with pytest.raises(TypeError):
            build()


def test_kmeans_untrained_raises_and_failure_changes_nothing():
    k = annx.KMeans(4)
    with pytest.raises(annx.NotTrainedError):
        k.assign(blobs(5))
    with pytest.raises(annx.NotTrainedError):
        _ = k.objective
    k.train(blobs(100))
    before = k.centroids
    with pytest.raises(ValueError, match="vectors"):
        k.train(blobs(3))

    def stop(done, total):
        raise KeyboardInterrupt

    large = np.tile(blobs(4000, 64), (10, 1))
    k2 = annx.KMeans(400, n_iterations=200, max_points_per_cluster=None)
    with pytest.raises(KeyboardInterrupt):
        k2.train(large, progress=stop)
    assert not k2.trained
    assert np.array_equal(k.centroids, before)


def test_kmeans_progress_rises_to_the_total():
    seen = []
    x = np.tile(blobs(4000, 32), (5, 1))
    annx.KMeans(300, n_iterations=30, n_restarts=2).train(
        x, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == sorted(seen)
    assert all(0 <= done <= total for done, total in seen)


def test_kmeans_save_and_pickle_are_the_identity(tmp_path):
    x = blobs(300)
    k = annx.KMeans(9, spherical=True, n_restarts=2, tolerance=1e-4, seed=8).train(x)
    k.save(tmp_path / "k.annx")
    for mmap in (False, True):
        loaded = annx.load(tmp_path / "k.annx", mmap=mmap)
        assert type(loaded) is annx.KMeans
        assert np.array_equal(loaded.centroids, k.centroids)
        assert np.array_equal(loaded.objectives, k.objectives)
        assert np.array_equal(loaded.assign(x)[0], k.assign(x)[0])
    again = pickle.loads(pickle.dumps(k))
    assert np.array_equal(again.train(x).centroids, k.centroids)
    fresh = pickle.loads(pickle.dumps(annx.KMeans(4)))
    assert not fresh.trained
    assert fresh.n_clusters == 4
