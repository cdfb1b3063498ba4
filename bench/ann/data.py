# SPDX-License-Identifier: Apache-2.0
"""Named data sets: the one in this repository, local folders, files, public, synthetic.

A name is looked up in this order:

- ``fashion-mnist-test``: the 10,000 test images of Fashion-MNIST that ship here, split
  9,000 base / 1,000 queries for good (the last thousand are the queries);
- a folder of ``$ANNX_DATA`` or of ``../shared/data`` beside the repository, holding
  ``meta.json``, ``base.npz`` and ``queries-*.npz``; ``NAME:QUERYSET`` picks among its
  query sets;
- ``synthetic-ROWS-DIM``, such as ``synthetic-1m-128``: see ``synthetic.py``;
- a public ann-benchmarks set (downloaded; see ``fetch.py``);
- the path of an ann-benchmarks HDF5 file.

``NAME@ROWS``, such as ``glove-50@30k``, is a random part of the base, drawn with a
fixed seed; the same queries. ``NAME+noise`` is a harder-to-cheat variant of any of
them: float32 noise of 1e-3 of the rows' spread and a random rotation, so that no
coordinate is an integer any more and no library gains by storing the data losslessly in
fewer bits.

Ground truth that a set does not bring is computed in float64 and kept in the cache.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from bench.ann import formats
from bench.ann.exact import distances_to, exact_neighbors
from bench.ann.fetch import PUBLIC, cache_folder, fetch
from bench.ann.synthetic import generate

__all__ = ["SHIPPED", "Dataset", "data_folders", "from_files", "known_names", "load"]

Array = np.ndarray[Any, Any]

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = "fashion-mnist-test"
SHIPPED_FILE = ROOT / "bench" / "data" / "fashion-mnist-test.npz"
SHIPPED_BASE = 9000

_METRICS = {"euclidean": "l2", "angular": "cosine"}
_SYNTHETIC = re.compile(r"synthetic-(\d+)([km]?)-(\d+)")
_COUNT = re.compile(r"(\d+)([km]?)")
_SCALES = {"": 1, "k": 1000, "m": 1_000_000}


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Base rows, queries and the true neighbours of each query.

    Attributes
    ----------
    name : str
        The name it was asked by, which also names result files.
    metric : {"l2", "cosine", "ip"}
    base : ndarray of shape (n, d), float32
    queries : ndarray of shape (nq, d), float32
    neighbors : ndarray of shape (nq, k), int64
        Nearest first; k is 100, or n where that is less.
    """

    name: str
    metric: str
    base: Array
    queries: Array
    neighbors: Array

    def kth_distance(self, k: int) -> Array:
        """Float64 distance of the k-th true neighbour, shape (nq,)."""
        if not 1 <= k <= self.neighbors.shape[1]:
            raise ValueError(
                f"k is {k}; the ground truth has {self.neighbors.shape[1]} neighbours"
            )
        near = distances_to(self.base, self.queries, self.neighbors[:, :k], self.metric)
        return np.asarray(near.max(axis=1))

    def take(self, count: int | None) -> Dataset:
        """The same set with its first ``count`` queries."""
        if count is None or count >= len(self.queries):
            return self
        return dataclasses.replace(
            self, queries=self.queries[:count], neighbors=self.neighbors[:count]
        )


def data_folders() -> list[Path]:
    """Folders that hold data sets, in the order they are searched.

    Raises
    ------
    ValueError
        If ``$ANNX_DATA`` names something else than a folder.
    """
    given = os.environ.get("ANNX_DATA")
    folders = [Path(given)] if given else []
    if given and not folders[0].is_dir():
        raise ValueError(f"$ANNX_DATA is {given!r}, which is no folder")
    folders.append(ROOT.parent / "shared" / "data")
    return [folder for folder in folders if folder.is_dir()]


def known_names() -> dict[str, str]:
    """Every name that can be loaded, with where it comes from."""
    names = {SHIPPED: "shipped in bench/data"}
    for folder in data_folders():
        for meta in sorted(folder.glob("*/meta.json")):
            sets = json.loads(meta.read_text(encoding="utf-8"))["queries"]
            for number, key in enumerate(sets):
                suffix = "" if number == 0 else f":{key}"
                names.setdefault(meta.parent.name + suffix, f"in {folder}")
    names["synthetic-1m-128"] = names["synthetic-1m-384"] = "generated"
    for name in PUBLIC:
        names.setdefault(name, "public, downloaded on first use")
    return names


def load(name: str, *, queries: int | None = None) -> Dataset:
    """Load a set by name.

    Parameters
    ----------
    name : str
        See the module's description.
    queries : int, optional
        Use the first so many queries only; ground truth that must be computed is then
        computed for those alone.

    Returns
    -------
    Dataset

    Raises
    ------
    KeyError
        If no set has that name.
    ValueError
        If the set's files contradict each other.
    """
    plain, _, variant = name.partition("+")
    if variant not in ("", "noise"):
        raise KeyError(f"no variant {variant!r} of {plain!r}; there is 'noise'")
    whole, _, part = plain.partition("@")
    base, query, truth, metric = _raw(whole, queries)
    if queries is not None:
        query = query[:queries]
        truth = None if truth is None else truth[:queries]
    if part:
        base, truth = _part(base, part), None
    if variant == "noise":
        base, query = _noisy(base, query)
        truth = None
    return _finish(name, base, query, truth, metric)


def from_files(
    base: str | Path,
    queries: str | Path,
    *,
    truth: str | Path | None = None,
    metric: str = "l2",
    name: str | None = None,
    limit: int | None = None,
) -> Dataset:
    """Make a set of single files in any format that ``formats.py`` reads.

    Parameters
    ----------
    base, queries : str or Path
        Vectors, one row each.
    truth : str or Path, optional
        Ids of the true neighbours; computed where not given.
    metric : {"l2", "cosine", "ip"}
    name : str, optional
        The base file's name by default.
    limit : int, optional
        Use the first so many queries only.
    """
    rows = formats.read_vectors(base)
    query = formats.read_vectors(queries, rows=limit)
    ids = None if truth is None else formats.read_truth(truth)[:limit]
    return _finish(name or Path(base).stem, rows, query, ids, metric)


def _raw(name: str, limit: int | None) -> tuple[Array, Array, Array | None, str]:
    if name == SHIPPED:
        with np.load(SHIPPED_FILE) as file:
            images = file["images"]
        return images[:SHIPPED_BASE], images[SHIPPED_BASE:], None, "l2"
    plain, _, query_set = name.partition(":")
    for folder in data_folders():
        if (folder / plain / "meta.json").exists():
            return _from_folder(folder / plain, query_set)
    if match := _SYNTHETIC.fullmatch(name):
        base, query = generate(int(match[1]) * _SCALES[match[2]], int(match[3]))
        return base, query, None, "l2"
    path = fetch(name) if name in PUBLIC else Path(name)
    if path.suffix in (".hdf5", ".h5") and path.exists():
        base, query, truth, metric = formats.read_hdf5(path)
        return base, query[:limit], truth, metric
    raise KeyError(f"no data set {name!r}; `python -m bench list` shows what there is")


def _from_folder(folder: Path, query_set: str) -> tuple[Array, Array, Array, str]:
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    sets = list(meta["queries"])
    which = query_set or sets[0]
    if which not in sets:
        raise KeyError(f"{folder.name} has the query sets {sets}, not {which!r}")
    with np.load(folder / "base.npz") as file:
        base = file["base"]
    with np.load(folder / f"queries-{which}.npz") as file:
        query, truth = file["queries"], file["gt"]
    metric = _METRICS.get(meta["metric"], meta["metric"])
    return _unit_if_int8(base), _unit_if_int8(query), truth, metric


def _unit_if_int8(rows: Array) -> Array:
    """Rows stored as int8 have one scale each, which cosine does not see: length 1."""
    out: Array = rows.astype(np.float32)
    if rows.dtype == np.int8:
        out /= np.linalg.norm(out, axis=1, keepdims=True)
    return out


def _part(base: Array, count: str) -> Array:
    match = _COUNT.fullmatch(count)
    rows = int(match[1]) * _SCALES[match[2]] if match else 0
    if not 0 < rows <= len(base):
        raise ValueError(
            f"the part of the rows is {count!r}; it should be a number from 1 to "
            f"{len(base)}, such as 30k"
        )
    chosen = np.random.default_rng(20240602).permutation(len(base))[:rows]
    part: Array = base[np.sort(chosen)]
    return part


def _noisy(base: Array, query: Array) -> tuple[Array, Array]:
    rng = np.random.default_rng(20240601)
    dim = base.shape[1]
    basis, triangle = np.linalg.qr(rng.standard_normal((dim, dim)))
    basis = (basis * np.sign(np.diag(triangle))).astype(np.float32)
    # The spread, not the norm: off-centre data would drown in noise otherwise.
    spread = float(np.sqrt(base.var(axis=0, dtype=np.float64).mean()))

    def turn(rows: Array) -> Array:
        noise = rng.standard_normal(rows.shape, dtype=np.float32)
        return (rows.astype(np.float32) + (1e-3 * spread) * noise) @ basis

    return turn(base), turn(query)


def _finish(
    name: str, base: Array, query: Array, truth: Array | None, metric: str
) -> Dataset:
    base = np.ascontiguousarray(base, dtype=np.float32)
    query = np.ascontiguousarray(query, dtype=np.float32)
    if base.ndim != 2 or query.ndim != 2 or base.shape[1] != query.shape[1]:
        raise ValueError(
            f"{name}: base {base.shape} and queries {query.shape} should be two "
            "matrices with as many columns"
        )
    if truth is None:
        truth = _cached_truth(name, base, query, metric)
    if len(truth) != len(query):
        raise ValueError(
            f"{name}: {len(query)} queries but ground truth for {len(truth)}"
        )
    if truth.size and (truth.min() < 0 or truth.max() >= len(base)):
        raise ValueError(f"{name}: ground truth names rows outside 0..{len(base) - 1}")
    return Dataset(name, metric, base, query, np.asarray(truth, dtype=np.int64))


def _cached_truth(name: str, base: Array, query: Array, metric: str) -> Array:
    """Compute ground truth once; small sets are quicker computed than looked up."""
    if base.size * len(query) < 1e10:
        return exact_neighbors(base, query, metric)
    digest = hashlib.sha256()
    digest.update(f"{metric} {base.shape} {query.shape}".encode())
    digest.update(base.data)
    digest.update(query.data)
    path = cache_folder() / "truth" / f"{digest.hexdigest()[:32]}.npy"
    if path.exists():
        stored: Array = np.load(path, allow_pickle=False)
        return stored
    truth = exact_neighbors(base, query, metric)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.tmp")
    with partial.open("wb") as file:
        np.save(file, truth)
    partial.replace(path)
    return truth
