# SPDX-License-Identifier: Apache-2.0
"""Saving, loading, mapping and pickling, of every kind of object in `saved_kinds`."""

from __future__ import annotations

import contextlib
import copy
import functools
import math
import multiprocessing
import os
import pickle
import random
import signal
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import annx
from annx import _core
from annx.io import registered
from annx.reference import file as reference
from saved_kinds import CASES, Case, integers

WAYS = [(mmap, verify) for mmap in (False, True) for verify in ("full", "structure")]
SMALL = 12

each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
# Checksums and lengths know nothing of what they guard: of every kind one object, that
# with the most sections, is enough to change and cut at every byte.
WHOLE = [
    "flat-cosine",
    "graph-cosine",
    "ivf-cosine",
    "kd-forest-cosine",
    "kmeans",
    "lsh-cosine",
    "pq",
    "pq-flat-cosine",
    "transform",
    "transformed-flat",
]
each_kind = pytest.mark.parametrize("case", [CASES[name] for name in WHOLE], ids=WHOLE)
posix_only = pytest.mark.skipif(os.name != "posix", reason="POSIX signals and limits")


def put(path: Path, data: bytes) -> None:
    """Write a file in place: to empty it first makes file systems wait for the disk."""
    with path.open("r+b" if path.exists() else "wb", buffering=0) as file:
        file.write(data)
        file.truncate()


def saved_bytes(thing: Any, path: Path) -> bytes:
    thing.save(path)
    return path.read_bytes()


def native_type(case: Case) -> Any:
    """What reads the file by itself; nothing does if it holds more than one object."""
    return getattr(type(case.make(1, SMALL)), "_native_type", None)


# --- round trips ---------------------------------------------------------------------


def test_every_registered_kind_has_a_case() -> None:
    assert {case.kind for case in CASES.values()} == set(registered())
    assert {CASES[name].kind for name in WHOLE} == set(registered())


@each_case
def test_load_gives_same_answers(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "thing.annx"
    for size in (SMALL, 700):
        thing = case.make(1, size)
        thing.save(path)
        expected = case.ask(thing)
        for mmap, verify in WAYS:
            loaded = annx.load(path, mmap=mmap, verify=verify)
            assert type(loaded) is type(thing)
            assert case.ask(loaded) == expected


@each_case
def test_save_is_deterministic(case: Case, tmp_path: Path) -> None:
    thing = case.make(1, SMALL)
    data = saved_bytes(thing, tmp_path / "a")
    assert saved_bytes(thing, tmp_path / "b") == data
    loaded = annx.load(tmp_path / "a", mmap=True)
    assert saved_bytes(loaded, tmp_path / "c") == data
    assert saved_bytes(copy.deepcopy(thing), tmp_path / "d") == data


@each_case
def test_save_equals_reference(case: Case, tmp_path: Path) -> None:
    for size in (SMALL, 700):
        data = saved_bytes(case.make(1, size), tmp_path / "a")
        decoded = reference.decode(data)
        assert decoded.kind == case.kind
        assert reference.encode(*decoded) == data


@each_case
def test_pickle_gives_same_answers(case: Case) -> None:
    thing = case.make(1, SMALL)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        loaded = pickle.loads(pickle.dumps(thing, protocol))
        assert type(loaded) is type(thing)
        assert case.ask(loaded) == case.ask(thing)


def test_pickle_keeps_subclass() -> None:
    case = CASES["flat"]
    thing = case.make(1, SMALL)
    sub = Sub._from_native(thing._native)
    loaded = pickle.loads(pickle.dumps(sub))
    assert type(loaded) is Sub
    assert case.ask(loaded) == case.ask(thing)


class Sub(annx.FlatIndex):
    """A user's own class."""


def test_pickle_crosses_spawned_processes() -> None:
    things = [(name, case.make(2, SMALL)) for name, case in CASES.items()]
    expected = [CASES[name].ask(thing) for name, thing in things]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(ask_by_name, things) == expected


def ask_by_name(named: tuple[str, Any]) -> Any:
    name, thing = named
    return CASES[name].ask(thing)


def test_pickle_is_read_by_a_fresh_process(tmp_path: Path) -> None:
    things = {name: case.make(3, SMALL) for name, case in CASES.items()}
    expected = {name: CASES[name].ask(thing) for name, thing in things.items()}
    (tmp_path / "all.pickle").write_bytes(pickle.dumps((things, expected)))
    run_python(
        """
        import pickle, sys
        things, expected = pickle.loads(open(sys.argv[1], "rb").read())
        from saved_kinds import CASES
        for name, thing in things.items():
            assert CASES[name].ask(thing) == expected[name], name
        """,
        tmp_path / "all.pickle",
    )


@each_case
def test_loaded_index_can_grow(case: Case, tmp_path: Path) -> None:
    thing = case.make(1, SMALL)
    if not hasattr(thing, "add"):
        pytest.skip("not an index")
    data = saved_bytes(thing, tmp_path / "a")
    more = case.make(9, 5)
    rows = more.get(more.ids)
    thing.add(rows)
    expected = case.ask(thing)
    for mmap, verify in WAYS:
        loaded = annx.load(tmp_path / "a", mmap=mmap, verify=verify)
        loaded.add(rows)
        assert case.ask(loaded) == expected
    assert (tmp_path / "a").read_bytes() == data


@each_case
def test_memory_counts_what_was_read_and_not_what_is_mapped(
    case: Case, tmp_path: Path
) -> None:
    thing = case.make(1, 400)
    if not hasattr(thing, "memory_usage"):
        pytest.skip("reports none")
    thing.save(tmp_path / "a")
    made = thing.memory_usage()["total"]
    read = annx.load(tmp_path / "a").memory_usage()["total"]
    mapped = annx.load(tmp_path / "a", mmap=True).memory_usage()["total"]
    assert 0.5 * made <= read <= made + 4096
    assert mapped <= read


# --- damage --------------------------------------------------------------------------


class Damage:
    """A file that is changed in place and restored."""

    def __init__(self, path: Path, data: bytes) -> None:
        path.write_bytes(data)
        self.path = path
        self.data = data

    def flips(self, begin: int = 0) -> Iterator[int]:
        with self.path.open("r+b", buffering=0) as file:
            for offset in range(begin, len(self.data)):
                for value in (0xFF, 0x01, 0x00):  # the last restores
                    file.seek(offset)
                    file.write(bytes([self.data[offset] ^ value]))
                    if value:
                        yield offset


@each_kind
def test_every_changed_byte_is_noticed(case: Case, tmp_path: Path) -> None:
    damage = Damage(tmp_path / "a", saved_bytes(case.make(1, SMALL), tmp_path / "a"))
    native = native_type(case)
    for _ in damage.flips():
        for mmap in (False, True):
            with pytest.raises(annx.FormatError):
                annx.load(damage.path, mmap=mmap)
        if native is not None:
            with pytest.raises(annx.FormatError):
                native.from_bytes(damage.path.read_bytes())
    annx.load(damage.path)


@each_kind
def test_every_truncation_is_noticed(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "a"
    data = saved_bytes(case.make(1, SMALL), path)
    for mmap, verify in WAYS:
        path.write_bytes(data)
        for size in reversed(range(len(data))):
            os.truncate(path, size)
            with pytest.raises(annx.FormatError):
                annx.load(path, mmap=mmap, verify=verify)
    path.write_bytes(data + b"\0")
    with pytest.raises(annx.FormatError):
        annx.load(path)


@each_case
def test_changed_byte_under_structure_never_crashes(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "a"
    damage = Damage(path, saved_bytes(case.make(1, SMALL), path))
    first_payload = 64 + 64 * struct.unpack_from("<I", damage.data, 12)[0]
    for _ in damage.flips(begin=first_payload):
        for mmap in (False, True):
            survives(case, path, mmap=mmap)


@each_case
def test_garbage_payload_under_structure_never_crashes(
    case: Case, tmp_path: Path
) -> None:
    path = tmp_path / "a"
    file = reference.decode(saved_bytes(case.make(1, 60), path))
    rng = random.Random(1)
    fills = [b"\0", b"\xff", b"\x7f", b"\x00\x00\x80\x7f", b"\x00\x00\xc0\x7f"]
    for name, old in file.sections.items():
        for fill in [*fills, *(rng.randbytes(max(1, len(old))) for _ in range(8))]:
            new = (fill * (len(old) // len(fill) + 1))[: len(old)]
            sections = file.sections | {name: new}
            put(path, reference.encode(file.kind, file.meta, sections))
            for mmap in (False, True):
                survives(case, path, mmap=mmap)


def survives(case: Case, path: Path, *, mmap: bool, verify: str = "structure") -> bool:
    """Refused as damaged, or an object that works: wrong perhaps, but no crash."""
    try:
        loaded = annx.load(path, mmap=mmap, verify=verify)
        case.ask(loaded)
    except annx.FormatError:
        return False
    return True


# --- hostile files: right checksums, wrong contents -----------------------------------

NUMBERS = [0, 1, 2, 3, 7, 8, 255, 256, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32]
NUMBERS += [2**40, 2**61, 2**62, 2**63 - 1, 2**63, 2**64 - 64, 2**64 - 1]
REALS = [0.0, -0.0, -1.0, 1.0, 1e-300, 1e30, 1e308, math.inf, -math.inf, math.nan]
TEXTS = ["", "l2", "cosine", "hamming", "float32", "bits", "int8", "x" * 1000, "\0"]


def hostile_files(file: reference.File, rng: random.Random) -> Iterator[reference.File]:
    """Every entry set to every extreme, removed and retyped; every section resized."""
    for name, value in file.meta.items():
        near = [value - 1, value + 1, value * 2] if isinstance(value, int) else []
        for other in [*(n for n in near if 0 <= n < 2**64), *NUMBERS, *REALS, *TEXTS]:
            if type(other) is type(value) or rng.random() < 0.1:
                yield file._replace(meta=file.meta | {name: other})
        yield file._replace(meta={k: v for k, v in file.meta.items() if k != name})
    for name, old in file.sections.items():
        junk = rng.randbytes(64)
        resized = [b"", old[:-1], old[:-4], old[:-8], old[len(old) // 2 :], old + old]
        resized += [old + junk[:4], old + junk[:8], junk, b"\xff" * len(old)]
        resized += [bytes(len(old)), rng.randbytes(len(old)), old[::-1]]
        resized += [b"\0\0\xc0\x7f" * (len(old) // 4), b"\1" * len(old)]
        for new in resized:
            yield file._replace(sections=file.sections | {name: new})
        for _ in range(20):
            changed = bytearray(old)
            for _ in range(rng.randint(1, 4) if old else 0):
                at = rng.randrange(len(old))
                changed[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
            yield file._replace(sections=file.sections | {name: bytes(changed)})
        yield file._replace(
            sections={k: v for k, v in file.sections.items() if k != name}
        )


def combined(file: reference.File, rng: random.Random) -> reference.File:
    """Several changes at once, some of them consistent with each other."""
    meta = dict(file.meta)
    sections = dict(file.sections)
    for _ in range(rng.randint(1, 4)):
        name = rng.choice(list(meta))
        value = meta[name]
        if isinstance(value, int):
            near = [max(0, value + rng.randint(-3, 3)), value * 2, value // 2]
            meta[name] = rng.choice([*near, *NUMBERS]) % 2**64
        elif isinstance(value, float):
            meta[name] = rng.choice(REALS)
        else:
            meta[name] = rng.choice(TEXTS)
    for _ in range(rng.randint(0, 2) if sections else 0):
        name = rng.choice(list(sections))
        size = len(sections[name])
        sections[name] = rng.choice(
            [sections[name] * 2, sections[name][: size // 2], bytes(size), b""]
        )
    return reference.File(file.kind, meta, sections)


def check_hostile(case: Case, file: reference.File, path: Path) -> bool:
    """Load it in two ways, use it, change it, save it: FormatError or no error."""
    put(path, reference.encode(*file))
    try:
        loaded = annx.load(path)
        case.ask(loaded)
        if hasattr(loaded, "add") and len(loaded):
            rows = loaded.get(loaded.ids[:1])
            with contextlib.suppress(ValueError):  # not finite, or no ids are left
                loaded.add(rows)
                case.ask(loaded)
        pickle.dumps(loaded)
    except annx.FormatError:
        return False
    finally:
        survives(case, path, mmap=True)
    return True


@each_case
def test_hostile_file_is_refused_or_works(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Most sections of one file are those of the one before.
    checksum = functools.lru_cache(64)(reference.checksum)
    monkeypatch.setattr(reference, "checksum", checksum)
    rng = random.Random(5)
    path = tmp_path / "a"
    file = reference.decode(saved_bytes(case.make(1, SMALL), path))
    refused = 0
    for hostile in hostile_files(file, rng):
        refused += not check_hostile(case, hostile, path)
    for _ in range(int(os.environ.get("ANNX_FUZZ", "80"))):
        check_hostile(case, combined(file, rng), path)
    assert refused >= len(file.meta) + len(file.sections)  # at least what is missing


def hostile_graph(path: Path, **sections: bytes) -> Any:
    """A graph of 40 rows with other sections, all checksums right."""
    file = reference.decode(saved_bytes(CASES["graph"].make(1, 40), path))
    named = {name.replace("_", ".", 1): data for name, data in sections.items()}
    assert named.keys() <= file.sections.keys()
    path.write_bytes(reference.encode(file.kind, file.meta, file.sections | named))
    return annx.load(path)


def graph_links(path: Path) -> np.ndarray:
    file = reference.decode(saved_bytes(CASES["graph"].make(1, 40), path))
    links = np.frombuffer(file.sections["graph.links"], np.uint32)
    return links.reshape(40, -1).copy()


@pytest.mark.parametrize("what", ["beyond", "hole", "cycle", "tree", "orphan"])
def test_hostile_links_are_refused_before_adding(what: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    links = graph_links(path)
    tree = np.uint32(1 << 31)
    is_tree = (links & tree != 0) & (links != 0xFFFFFFFF)
    node, word = np.argwhere(is_tree)[0]
    if what == "beyond":
        links[3, 0] = 40
    elif what == "hole":
        room = np.argwhere((links[:, -2:] == 0xFFFFFFFF).all(axis=1))[0, 0]
        links[room, -1] = tree | np.uint32(12345)
    elif what == "cycle":
        links[-1, 0] = tree  # into the root
    elif what == "tree":
        links[3] = tree | np.arange(links.shape[1], dtype=np.uint32)
    else:
        links[node, word] &= ~tree
    index = hostile_graph(path, graph_links=links.tobytes())
    CASES["graph"].ask(index)  # wrong perhaps, but no crash
    with pytest.raises(annx.FormatError, match=r"graph\.links"):
        index.add(np.ones((2, 6), np.float32))


def test_damaged_rows_do_not_crash_adding(tmp_path: Path) -> None:
    # Keys that are NaN have no order, which sorting and pruning must survive.
    path = tmp_path / "a"
    file = reference.decode(saved_bytes(CASES["graph"].make(1, 40), path))
    names = [name for name in file.sections if name.startswith("rows.")]
    for name in names:
        size = len(file.sections[name])
        for nan in (b"\xc0\x7f", b"\0\0\xc0\x7f", b"\xff\xff", b"\x80\xff"):
            fill = (nan * size)[:size]
            index = hostile_graph(path, **{name.replace(".", "_", 1): fill})
            index.add(integers(7, 300, 6))
            assert len(index) == 340
            index.search(integers(8, 3, 6), 5)


# --- what is no file of ours ----------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not an annx file"),
        (b"hello", "not an annx file"),
        (bytes(1000), "not an annx file"),
        (b"\x93NUMPY" + bytes(200), "not an annx file"),
        (b"\x89ANNX\r\n\x1a", "truncated"),
        (b"\x89ANNX\r\n\x1a" + bytes(56), "checksum"),
    ],
)
def test_foreign_file_is_refused(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "foreign.annx"
    path.write_bytes(data)
    for mmap, verify in WAYS:
        with pytest.raises(annx.FormatError, match=message) as caught:
            annx.load(path, mmap=mmap, verify=verify)
        assert str(path) in str(caught.value)


def test_unknown_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(reference.encode("hologram", {}, {}))
    with pytest.raises(annx.FormatError, match="hologram"):
        annx.load(tmp_path / "a")


def test_newer_version_says_so(tmp_path: Path) -> None:
    data = bytearray(reference.encode("flat", {}, {}))
    data[8:12] = struct.pack("<I", reference.VERSION + 1)
    data[56:64] = struct.pack("<Q", reference.checksum(bytes(data[:56])))
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(annx.FormatError, match=r"format version 2; this annx reads up"):
        annx.load(tmp_path / "a")


def test_message_names_file_and_section(tmp_path: Path) -> None:
    path = tmp_path / "thing.annx"
    data = bytearray(saved_bytes(CASES["flat"].make(1, SMALL), path))
    section = struct.unpack_from("<Q", data, 128 + 32)[0]
    name = bytes(data[128:160]).rstrip(b"\0").decode()
    data[section] ^= 1
    path.write_bytes(data)
    with pytest.raises(annx.FormatError) as caught:
        annx.load(path)
    assert str(path) in str(caught.value)
    assert f"'{name}'" in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        annx.load(tmp_path / "missing")
    assert caught.value.filename == str(tmp_path / "missing")
    with pytest.raises(OSError, match="directory"):
        annx.load(tmp_path)
    with pytest.raises(FileNotFoundError):
        CASES["flat"].make(1, 3).save(tmp_path / "no" / "folder")
    with pytest.raises(IsADirectoryError):
        CASES["flat"].make(1, 3).save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_bad_arguments_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a"
    CASES["flat"].make(1, 3).save(path)
    with pytest.raises(ValueError, match="verify"):
        annx.load(path, verify="no")
    with pytest.raises(ValueError, match="null"):
        annx.load("a\0b")
    with pytest.raises(TypeError):
        annx.load(3)
    with pytest.raises(TypeError):
        annx.load(path, True)


def test_native_class_refuses_another_kind(tmp_path: Path) -> None:
    natives = {CASES[name].kind: native_type(CASES[name]) for name in WHOLE}
    for name, case in CASES.items():
        path = tmp_path / name
        thing = case.make(1, SMALL)
        thing.save(path)
        for kind, native in natives.items():
            if kind != case.kind and native is not None:
                with pytest.raises(annx.FormatError, match=case.kind):
                    native.load(os.fsencode(path), False, True)


def test_path_of_any_kind_is_accepted(tmp_path: Path) -> None:
    thing = CASES["flat"].make(1, SMALL)
    for name in ("plain", "with space", "né-日本"):
        path = tmp_path / name
        for given in (path, str(path)):
            thing.save(given)
            assert len(annx.load(given)) == len(thing)


@posix_only
def test_path_that_is_no_utf8(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    thing = CASES["flat"].make(1, SMALL)
    thing.save(path)
    assert len(annx.load(path)) == len(thing)
    os.truncate(path, 100)
    with pytest.raises(annx.FormatError, match="caf"):
        annx.load(path)


# --- replacing files ------------------------------------------------------------------


@posix_only
def test_save_follows_link_and_keeps_permissions(tmp_path: Path) -> None:
    thing = CASES["flat"].make(1, SMALL)
    target = tmp_path / "target"
    target.write_bytes(b"old")
    target.chmod(0o640)
    link = tmp_path / "link"
    link.symlink_to(target)
    thing.save(link)
    assert link.is_symlink()
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert len(annx.load(target)) == len(thing)
    with pytest.raises(OSError, match="Invalid argument"):
        thing.save("/dev/null")


@each_case
def test_save_over_the_mapped_file(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "a"
    case.make(1, 300).save(path)
    mapped = annx.load(path, mmap=True, verify="structure")
    expected = case.ask(mapped)
    mapped.save(path)
    assert case.ask(annx.load(path)) == expected
    other = case.make(2, 200)
    other.save(path)
    assert case.ask(mapped) == expected
    assert case.ask(annx.load(path)) == case.ask(other)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@posix_only
def test_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    old = saved_bytes(CASES["flat"].make(1, SMALL), path)
    run_python(
        """
        import resource, sys
        from saved_kinds import CASES
        thing = CASES["flat"].make(2, 5000)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
        try:
            thing.save(sys.argv[1])
        except OSError as error:
            assert "large" in str(error), error
        else:
            raise AssertionError("the limit was not felt")
        """,
        path,
    )
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@posix_only
def test_kill_during_save_leaves_old_or_new(tmp_path: Path) -> None:
    case = CASES["flat"]
    path = tmp_path / "a"
    sizes = (30_000, 40_000)
    expected = []
    for seed, size in enumerate(sizes):
        thing = case.make(seed, size)
        thing.save(path)
        expected.append(case.ask(thing))
    code = """
        import sys
        from saved_kinds import CASES
        things = [CASES["flat"].make(seed, size)
                  for seed, size in enumerate((30_000, 40_000))]
        print("ready", flush=True)
        while True:
            for thing in things:
                thing.save(sys.argv[1])
        """
    rng = random.Random(3)
    for _ in range(6):
        with start_python(code, path) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            time.sleep(rng.uniform(0.0, 0.05))
            child.send_signal(signal.SIGKILL)
            child.wait()
        assert case.ask(annx.load(path)) in expected
    leftovers = {p.name for p in tmp_path.iterdir()} - {"a"}
    assert all(name.startswith(".annx-") for name in leftovers)


def test_save_and_load_at_once(tmp_path: Path) -> None:
    case = CASES["flat"]
    path = tmp_path / "a"
    things = [case.make(seed, 2000 + 500 * seed) for seed in range(2)]
    expected = [case.ask(thing) for thing in things]
    things[0].save(path)
    stop = threading.Event()
    errors: list[BaseException] = []

    def save_for_ever(thing: Any) -> None:
        try:
            while not stop.is_set():
                thing.save(path)
        except BaseException as error:
            errors.append(error)

    savers = [threading.Thread(target=save_for_ever, args=(t,)) for t in things]
    for saver in savers:
        saver.start()
    try:
        for i in range(60):
            assert case.ask(annx.load(path, mmap=bool(i % 2))) in expected
    finally:
        stop.set()
        for saver in savers:
            saver.join()
    assert errors == []
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


# --- the checksum ---------------------------------------------------------------------


def test_checksum_equals_reference() -> None:
    rng = random.Random(1)
    for size in [*range(200), 4096, 65537]:
        data = rng.randbytes(size)
        assert _core.file_checksum(data) == reference.checksum(data)


def start_python(code: str, *args: Path) -> subprocess.Popen[bytes]:
    lines = code.splitlines()
    indent = min(len(x) - len(x.lstrip()) for x in lines if x.strip())
    text = "\n".join(line[indent:] for line in lines)
    paths = [str(Path(__file__).parent), *sys.path]
    return subprocess.Popen(
        [sys.executable, "-c", text, *map(str, args)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in paths if p)},
        stdout=subprocess.PIPE,
    )


def run_python(code: str, *args: Path) -> None:
    with start_python(code, *args) as child:
        child.communicate()
    assert child.returncode == 0
