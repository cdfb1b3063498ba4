# SPDX-License-Identifier: Apache-2.0
"""Readers of the file formats in which vectors and ground truth are exchanged.

Every reader checks the file's size against its header before it touches the payload,
so a truncated download is reported as such and not as a strange recall.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

__all__ = [
    "read_bin",
    "read_bin_truth",
    "read_hdf5",
    "read_parquet",
    "read_truth",
    "read_vecs",
    "read_vectors",
]

Array = np.ndarray[Any, Any]

_VECS = {".fvecs": np.float32, ".ivecs": np.int32, ".bvecs": np.uint8}
_BINS = {
    ".fbin": np.float32,
    ".u8bin": np.uint8,
    ".i8bin": np.int8,
    ".ibin": np.int32,
}


def read_vecs(path: str | Path) -> Array:
    """Read ``.fvecs``, ``.ivecs`` or ``.bvecs`` (Jegou's TEXMEX format).

    Each row is a little-endian int32 dimension followed by that many values.

    Parameters
    ----------
    path : str or Path
        The file; its suffix tells the element type.

    Returns
    -------
    ndarray of shape (n, d)
        float32, int32 or uint8.

    Raises
    ------
    ValueError
        If the suffix is unknown, or the size does not fit whole rows of one dimension.
    """
    path = Path(path)
    dtype = _VECS.get(path.suffix)
    if dtype is None:
        raise ValueError(f"{path}: suffix must be one of {sorted(_VECS)}")
    raw = np.fromfile(path, dtype=np.uint8)
    if raw.size == 0:
        return np.empty((0, 0), dtype=dtype)
    if raw.size < 4:
        raise ValueError(f"{path}: {raw.size} bytes are too few for a row's dimension")
    dim = int(raw[:4].view("<i4")[0])
    row_bytes = 4 + dim * np.dtype(dtype).itemsize
    if dim <= 0 or raw.size % row_bytes:
        raise ValueError(
            f"{path}: {raw.size} bytes are not whole rows of dimension {dim}"
        )
    rows = raw.reshape(-1, row_bytes)
    heads = np.ascontiguousarray(rows[:, :4]).view("<i4")
    if not bool(np.all(heads == dim)):
        raise ValueError(f"{path}: rows of different dimensions")
    return np.ascontiguousarray(rows[:, 4:]).view(np.dtype(dtype).newbyteorder("<"))


def read_bin(path: str | Path, *, rows: int | None = None) -> Array:
    """Read ``.fbin``, ``.u8bin``, ``.i8bin`` or ``.ibin`` (big-ann-benchmarks).

    Two little-endian uint32 (rows, dimension), then the rows.

    Parameters
    ----------
    path : str or Path
        The file; its suffix tells the element type.
    rows : int, optional
        Read the first so many rows only: these files reach a billion.

    Returns
    -------
    ndarray of shape (n, d)

    Raises
    ------
    ValueError
        If the suffix is unknown or the file is shorter than its header says.
    """
    path = Path(path)
    dtype = _BINS.get(path.suffix)
    if dtype is None:
        raise ValueError(f"{path}: suffix must be one of {sorted(_BINS)}")
    count, dim = _bin_header(path)
    wanted = count if rows is None else min(rows, count)
    need = 8 + wanted * dim * np.dtype(dtype).itemsize
    if path.stat().st_size < need:
        raise ValueError(
            f"{path}: {path.stat().st_size} bytes, but {wanted} rows of dimension "
            f"{dim} need {need}"
        )
    little = np.dtype(dtype).newbyteorder("<")
    flat = np.fromfile(path, dtype=little, count=wanted * dim, offset=8)
    return flat.reshape(wanted, dim)


def read_bin_truth(path: str | Path) -> Array:
    """Read big-ann ground truth: uint32 (queries, k), ids, then optional distances.

    Returns
    -------
    ndarray of shape (queries, k), int64
        Row ids, nearest first. Distances are left out: the bench recomputes them.
    """
    path = Path(path)
    count, k = _bin_header(path)
    size = path.stat().st_size
    if size not in (8 + 4 * count * k, 8 + 8 * count * k):
        raise ValueError(
            f"{path}: {size} bytes do not fit {count} queries with {k} neighbours"
        )
    ids = np.fromfile(path, dtype="<u4", count=count * k, offset=8)
    return ids.reshape(count, k).astype(np.int64)


def _bin_header(path: Path) -> tuple[int, int]:
    head = np.fromfile(path, dtype="<u4", count=2)
    if head.size != 2:
        raise ValueError(f"{path}: too short for its header of 8 bytes")
    return int(head[0]), int(head[1])


def read_hdf5(path: str | Path) -> tuple[Array, Array, Array | None, str]:
    """Read an ann-benchmarks HDF5 file.

    Returns
    -------
    base : ndarray of shape (n, d)
    queries : ndarray of shape (nq, d)
    neighbors : ndarray of shape (nq, k), int64, or None
    metric : {"l2", "cosine", "ip"}

    Raises
    ------
    ImportError
        Without h5py, which the ``bench`` extra installs.
    ValueError
        If the file's distance is none of ours.
    """
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            "reading HDF5 needs h5py: pip install 'annx[bench]'"
        ) from error
    known = {"euclidean": "l2", "angular": "cosine", "cosine": "cosine", "ip": "ip"}
    known |= {"normalized": "cosine", "dot": "ip"}
    with h5py.File(path, "r") as file:
        for key in ("train", "test"):
            if key not in file:
                raise ValueError(f"{path}: no data set {key!r} inside")
        distance = file.attrs.get("distance", "")
        distance = distance.decode() if isinstance(distance, bytes) else str(distance)
        if distance not in known:
            raise ValueError(
                f"{path}: distance is {distance!r}; it should be one of {sorted(known)}"
            )
        base = np.asarray(file["train"])
        queries = np.asarray(file["test"])
        neighbors = (
            np.asarray(file["neighbors"]).astype(np.int64)
            if "neighbors" in file
            else None
        )
    return base, queries, neighbors, known[distance]


def read_parquet(path: str | Path, *, column: str | None = None) -> Array:
    """Read one column of vectors from a Parquet file.

    Parameters
    ----------
    path : str or Path
        The file.
    column : str, optional
        The column; by default the only one that holds lists of numbers.

    Returns
    -------
    ndarray of shape (n, d)
        In the column's own number type.

    Raises
    ------
    ImportError
        Without pyarrow, which the ``bench`` extra installs.
    ValueError
        If there is no such column, several to choose from, or rows differ in length.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ImportError(
            "reading Parquet needs pyarrow: pip install 'annx[bench]'"
        ) from error
    schema = pq.read_schema(path)
    lists = [
        field.name
        for field in schema
        if pa.types.is_list(field.type)
        or pa.types.is_large_list(field.type)
        or pa.types.is_fixed_size_list(field.type)
    ]
    if column is None:
        if len(lists) != 1:
            raise ValueError(f"{path}: name the column of vectors, one of {lists}")
        column = lists[0]
    elif column not in lists:
        raise ValueError(f"{path}: no column of lists {column!r}; there are {lists}")
    table = pq.read_table(path, columns=[column])
    values = table.column(column).combine_chunks()
    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks)
    flat = values.flatten().to_numpy(zero_copy_only=False)
    lengths = {flat.size // len(values)} if len(values) else {0}
    if not pa.types.is_fixed_size_list(values.type):
        offsets = np.asarray(values.offsets)
        lengths = set(np.unique(np.diff(offsets)).tolist()) or {0}
    if len(lengths) != 1:
        raise ValueError(f"{path}: rows of {column!r} differ in length")
    return np.asarray(flat).reshape(len(values), lengths.pop())


def read_vectors(path: str | Path, *, rows: int | None = None) -> Array:
    """Read vectors from any supported single-array file, chosen by its suffix.

    Parameters
    ----------
    path : str or Path
        ``.npy``, ``.fvecs``, ``.bvecs``, ``.fbin``, ``.u8bin``, ``.i8bin`` or
        ``.parquet``.
    rows : int, optional
        Keep the first so many rows.

    Returns
    -------
    ndarray of shape (n, d)
    """
    path = Path(path)
    if path.suffix in _VECS:
        array = read_vecs(path)
    elif path.suffix in _BINS:
        array = read_bin(path, rows=rows)
    elif path.suffix == ".npy":
        array = np.load(path, allow_pickle=False)
    elif path.suffix == ".parquet":
        array = read_parquet(path)
    else:
        known = sorted([*_VECS, *_BINS, ".npy", ".parquet"])
        raise ValueError(f"{path}: suffix must be one of {known}")
    if array.ndim != 2:
        raise ValueError(f"{path}: has {array.ndim} dimensions; it should have 2")
    return array if rows is None else array[:rows]


def read_truth(path: str | Path) -> Array:
    """Read ids of true neighbours: ``.ivecs``, big-ann ``.ibin``/``.bin`` or ``.npy``.

    Returns
    -------
    ndarray of shape (queries, k), int64
    """
    path = Path(path)
    if path.suffix in (".ibin", ".bin"):
        return read_bin_truth(path)
    return read_vectors(path).astype(np.int64)
