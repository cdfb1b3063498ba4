# SPDX-License-Identifier: Apache-2.0
"""Download of the public ann-benchmarks sets, kept in a cache folder.

The publishers give no checksums, so the first download of a file is trusted and its
sha256 written to ``checksums.json`` beside it; every later use, from the cache or from
a new download, must match. Delete the entry to accept a changed file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["PUBLIC", "cache_folder", "fetch", "sha256_of"]

PUBLIC: Mapping[str, str] = {
    name: f"https://ann-benchmarks.com/{name}.hdf5"
    for name in (
        "fashion-mnist-784-euclidean",
        "mnist-784-euclidean",
        "sift-128-euclidean",
        "gist-960-euclidean",
        "glove-25-angular",
        "glove-50-angular",
        "glove-100-angular",
        "glove-200-angular",
        "nytimes-256-angular",
        "lastfm-64-dot",
        "deep-image-96-angular",
        "coco-i2i-512-angular",
        "coco-t2i-512-angular",
    )
}


def cache_folder() -> Path:
    """``$ANNX_BENCH_CACHE``, else ``annx-bench`` in the user's cache folder."""
    given = os.environ.get("ANNX_BENCH_CACHE")
    if given:
        return Path(given)
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "annx-bench"


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def fetch(
    name: str,
    *,
    registry: Mapping[str, str] = PUBLIC,
    folder: Path | None = None,
    downloader: Callable[..., Any] | None = None,
) -> Path:
    """Return the local path of a public set, downloading it where needed.

    Parameters
    ----------
    name : str
        A key of ``registry``.
    registry : mapping from name to URL
        The public sets by default.
    folder : Path, optional
        The cache; :func:`cache_folder` by default.
    downloader : callable, optional
        As pooch defines them; the tests copy local files with it.

    Returns
    -------
    Path

    Raises
    ------
    KeyError
        If the registry has no such set.
    ImportError
        Without pooch, which the ``bench`` extra installs.
    ValueError
        If the file is not the one recorded at its first use.
    """
    if name not in registry:
        raise KeyError(f"no public set {name!r}; there are {sorted(registry)}")
    try:
        import pooch
    except ImportError as error:
        raise ImportError(
            "downloading data needs pooch: pip install 'annx[bench]'"
        ) from error
    url = registry[name]
    folder = cache_folder() if folder is None else folder
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / "checksums.json"
    known: dict[str, str] = (
        json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    )
    filename = url.rsplit("/", 1)[-1]
    if downloader is None:
        downloader = pooch.HTTPDownloader(progressbar=_has_tqdm(), timeout=60)
    path = Path(
        pooch.retrieve(
            url,
            known_hash=known.get(filename),
            path=folder,
            fname=filename,
            downloader=downloader,
        )
    )
    if filename not in known:
        known[filename] = f"sha256:{sha256_of(path)}"
        partial = record.with_suffix(".tmp")
        partial.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
        partial.replace(record)
    return path


def _has_tqdm() -> bool:
    try:
        import tqdm  # noqa: F401
    except ImportError:
        return False
    return True
