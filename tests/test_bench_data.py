# SPDX-License-Identifier: Apache-2.0
"""Every format the bench reads, and the data sets it names."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from bench.ann import data, fetch, formats
from bench.ann.exact import distances_to, exact_neighbors
from bench.ann.synthetic import generate, local_intrinsic_dimension


def _write_vecs(path: Path, rows: np.ndarray) -> None:
    with path.open("wb") as file:
        for row in rows:
            file.write(struct.pack("<i", len(row)) + row.tobytes())


def _write_bin(path: Path, rows: np.ndarray) -> None:
    path.write_bytes(struct.pack("<II", *rows.shape) + rows.tobytes())


ROWS = np.arange(15).reshape(5, 3)


@pytest.mark.parametrize(
    ("suffix", "dtype"), [(".fvecs", "<f4"), (".ivecs", "<i4"), (".bvecs", "u1")]
)
def test_vecs_round_trip(tmp_path: Path, suffix: str, dtype: str) -> None:
    rows = ROWS.astype(dtype)
    _write_vecs(tmp_path / f"a{suffix}", rows)
    found = formats.read_vecs(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(found, rows)
    assert found.dtype == rows.dtype


@pytest.mark.parametrize(
    ("suffix", "dtype"),
    [(".fbin", "<f4"), (".u8bin", "u1"), (".i8bin", "i1"), (".ibin", "<i4")],
)
def test_bin_round_trip(tmp_path: Path, suffix: str, dtype: str) -> None:
    rows = ROWS.astype(dtype)
    path = tmp_path / f"a{suffix}"
    _write_bin(path, rows)
    np.testing.assert_array_equal(formats.read_bin(path), rows)
    np.testing.assert_array_equal(formats.read_bin(path, rows=2), rows[:2])


def test_bin_truth_reads_ids_with_and_without_distances(tmp_path: Path) -> None:
    ids = ROWS.astype("<u4")
    head = struct.pack("<II", *ids.shape)
    (tmp_path / "a.ibin").write_bytes(head + ids.tobytes())
    near = np.ones(ids.shape, dtype="<f4")
    (tmp_path / "b.bin").write_bytes(head + ids.tobytes() + near.tobytes())
    for name in ("a.ibin", "b.bin"):
        found = formats.read_truth(tmp_path / name)
        np.testing.assert_array_equal(found, ids)
        assert found.dtype == np.int64


@pytest.mark.parametrize("name", ["a.fvecs", "a.fbin", "a.u8bin"])
def test_truncated_file_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith("vecs"):
        _write_vecs(path, ROWS.astype("<f4"))
    else:
        _write_bin(path, ROWS.astype("<f4" if name.endswith("fbin") else "u1"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"rows of dimension 3|dimension 3 need"):
        formats.read_vectors(path)


def test_truth_of_wrong_size_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.ibin").write_bytes(struct.pack("<II", 2, 2) + bytes(5))
    with pytest.raises(ValueError, match="do not fit 2 queries"):
        formats.read_truth(tmp_path / "a.ibin")


def test_vecs_of_mixed_dimensions_are_refused(tmp_path: Path) -> None:
    words = struct.pack("<iffiff", 2, 0, 0, 3, 0, 0)
    (tmp_path / "a.fvecs").write_bytes(words)
    with pytest.raises(ValueError, match="different dimensions"):
        formats.read_vecs(tmp_path / "a.fvecs")


def test_unknown_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="suffix must be one of"):
        formats.read_vectors(tmp_path / "a.txt")


def test_npy_round_trip_and_pickle_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", ROWS)
    np.testing.assert_array_equal(formats.read_vectors(tmp_path / "a.npy"), ROWS)
    np.save(tmp_path / "b.npy", np.array([{}, None]), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        formats.read_vectors(tmp_path / "b.npy")


@pytest.mark.parametrize("fixed", [False, True])
def test_parquet_round_trip(tmp_path: Path, fixed: bool) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    rows = ROWS.astype(np.float32)
    kind = pa.list_(pa.float32(), 3) if fixed else pa.list_(pa.float32())
    table = pa.table(
        {"id": pa.array(range(5)), "vector": pa.array(rows.tolist(), type=kind)}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    found = formats.read_vectors(tmp_path / "a.parquet")
    np.testing.assert_array_equal(found, rows)
    assert found.dtype == np.float32
    with pytest.raises(ValueError, match="no column of lists 'id'"):
        formats.read_parquet(tmp_path / "a.parquet", column="id")


def test_parquet_of_ragged_rows_is_refused(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"v": [[1.0], [1.0, 2.0]]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="differ in length"):
        formats.read_parquet(tmp_path / "a.parquet")


def _write_hdf5(path: Path, base: np.ndarray, queries: np.ndarray) -> np.ndarray:
    h5py = pytest.importorskip("h5py")
    truth = exact_neighbors(base, queries, "cosine", 5)
    with h5py.File(path, "w") as file:
        file["train"], file["test"], file["neighbors"] = base, queries, truth
        file.attrs["distance"] = "angular"
    return truth


def test_hdf5_is_loaded_by_path(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    base = rng.standard_normal((40, 6), dtype=np.float32)
    queries = rng.standard_normal((7, 6), dtype=np.float32)
    truth = _write_hdf5(tmp_path / "tiny.hdf5", base, queries)
    found = data.load(str(tmp_path / "tiny.hdf5"), queries=4)
    assert found.metric == "cosine"
    np.testing.assert_array_equal(found.base, base)
    np.testing.assert_array_equal(found.queries, queries[:4])
    np.testing.assert_array_equal(found.neighbors, truth[:4])


def test_from_files_computes_missing_truth(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    base = rng.integers(0, 256, (50, 8)).astype(np.uint8)
    _write_bin(tmp_path / "base.u8bin", base)
    _write_bin(tmp_path / "queries.u8bin", base[:5])
    found = data.from_files(tmp_path / "base.u8bin", tmp_path / "queries.u8bin")
    assert found.base.dtype == np.float32
    np.testing.assert_array_equal(found.neighbors[:, 0], np.arange(5))


def test_local_folder_is_found_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "tiny-4"
    folder.mkdir()
    rng = np.random.default_rng(3)
    base = rng.integers(-127, 128, (30, 4)).astype(np.int8)
    np.savez(folder / "base.npz", base=base)
    for name in ("near", "far"):
        truth = np.tile(np.arange(10), (3, 1))
        np.savez(folder / f"queries-{name}.npz", queries=base[:3], gt=truth)
    meta = {"metric": "cosine", "queries": {"near": {}, "far": {}}}
    (folder / "meta.json").write_text(json.dumps(meta))
    monkeypatch.setenv("ANNX_DATA", str(tmp_path))
    found = data.load("tiny-4:far")
    np.testing.assert_allclose(np.linalg.norm(found.base, axis=1), 1, rtol=1e-6)
    assert {"tiny-4", "tiny-4:far"} <= set(data.known_names())
    with pytest.raises(KeyError, match="query sets"):
        data.load("tiny-4:other")
    monkeypatch.setenv("ANNX_DATA", str(tmp_path / "gone"))
    with pytest.raises(ValueError, match="no folder"):
        data.load("tiny-4")


def test_unknown_names_are_refused() -> None:
    with pytest.raises(KeyError, match="no data set 'nothing'"):
        data.load("nothing")
    with pytest.raises(KeyError, match="no variant 'fog'"):
        data.load(data.SHIPPED + "+fog")


def test_shipped_set_is_whole_and_its_truth_exact() -> None:
    found = data.load(data.SHIPPED, queries=20)
    assert found.base.shape == (9000, 784)
    assert found.base.dtype == np.float32
    assert len(found.take(5).queries) == 5
    every = np.tile(np.arange(9000), (1, 1))
    for row in range(3):
        far = distances_to(found.base, found.queries[row : row + 1], every, "l2")[0]
        np.testing.assert_array_equal(
            found.neighbors[row], np.argsort(far, kind="stable")[:100]
        )


def test_noise_variant_keeps_neighbours_and_loses_integers() -> None:
    plain = data.load(data.SHIPPED, queries=10)
    noisy = data.load(data.SHIPPED + "+noise", queries=10)
    same = [
        len(set(a[:10]) & set(b[:10])) / 10
        for a, b in zip(plain.neighbors, noisy.neighbors, strict=True)
    ]
    assert np.mean(same) > 0.95
    assert np.mean(noisy.base[:100] == np.rint(noisy.base[:100])) < 0.01


def test_part_of_a_set_is_a_subset_of_larger_parts() -> None:
    small, large = (data.load(f"{data.SHIPPED}@{n}", queries=5) for n in ("400", "1k"))
    assert small.base.shape == (400, 784)
    assert large.base.shape == (1000, 784)
    assert {row.tobytes() for row in small.base} < {r.tobytes() for r in large.base}
    assert np.array_equal(small.queries, large.queries)
    near = exact_neighbors(small.base, small.queries, "l2")
    assert np.array_equal(small.neighbors, near)
    for wrong in ("0", "9001", "-1", "many"):
        with pytest.raises(ValueError, match="part of the rows"):
            data.load(f"{data.SHIPPED}@{wrong}")


def test_synthetic_set_is_reproducible_and_of_low_intrinsic_dimension() -> None:
    base, queries = generate(4000, 48, queries=50, seed=7)
    again, _ = generate(4000, 48, queries=50, seed=7)
    np.testing.assert_array_equal(base, again)
    assert base.dtype == np.float32
    assert base.shape == (4000, 48)
    ids = exact_neighbors(base, queries, "l2", 100)
    near = np.sqrt(distances_to(base, queries, ids, "l2"))
    assert 5 < local_intrinsic_dimension(near) < 30


def test_fetch_records_checksum_and_refuses_a_changed_file(tmp_path: Path) -> None:
    pytest.importorskip("pooch")
    origin = tmp_path / "origin" / "tiny.bin"
    origin.parent.mkdir()
    origin.write_bytes(b"first")
    cache = tmp_path / "cache"
    registry = {"tiny": "https://example.invalid/tiny.bin"}

    def copy(url: str, output_file: str, pooch: object) -> None:
        shutil.copy(origin, output_file)

    path = fetch.fetch("tiny", registry=registry, folder=cache, downloader=copy)
    assert path.read_bytes() == b"first"
    record = json.loads((cache / "checksums.json").read_text())
    assert record == {"tiny.bin": f"sha256:{fetch.sha256_of(origin)}"}

    # The cached copy is used as long as it is what it was.
    origin.write_bytes(b"other")
    path = fetch.fetch("tiny", registry=registry, folder=cache, downloader=copy)
    assert path.read_bytes() == b"first"

    # A new download that differs from the first is refused.
    path.unlink()
    with pytest.raises(ValueError, match="hash"):
        fetch.fetch("tiny", registry=registry, folder=cache, downloader=copy)
    with pytest.raises(KeyError, match="no public set"):
        fetch.fetch("none", registry=registry, folder=cache)
