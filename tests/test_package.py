# SPDX-License-Identifier: Apache-2.0
"""The package as a whole: what importing it brings, its version, names and twins."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import annx
import annx.reference

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path(annx.__file__).parent

# Public names that have no algorithm to repeat: errors, results, filters, files.
WITHOUT_TWIN = frozenset({"load", "IdSet", "KnnGraph", "SearchResult", "RadiusResult"})
# Methods about files, memory and the machine rather than the algorithm.
NATIVE_METHODS = frozenset(
    {"save", "load", "memory_usage", "stats", "storage", "to_bytes", "from_bytes"}
)
# Arguments about the machine.
NATIVE_ARGUMENTS = frozenset({"threads", "progress"})


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def needs_twin(name: str) -> bool:
    value = getattr(annx, name)
    if name in WITHOUT_TWIN or name.startswith("__") or not callable(value):
        return False
    return not (inspect.isclass(value) and issubclass(value, Exception))


def test_version_is_the_one_of_pyproject() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    match = re.search(r'^version = "(.+)"$', text, flags=re.MULTILINE)
    assert match is not None
    assert annx.__version__ == match.group(1)


def test_import_brings_numpy_alone() -> None:
    code = """
import sys
import numpy
before = set(sys.modules)
import annx
tops = {name.split(".")[0] for name in set(sys.modules) - before}
print(*sorted(tops - set(sys.stdlib_module_names) - {"annx", "numpy"}))
"""
    assert run_python(code) == ""


def test_import_leaves_reference_alone() -> None:
    code = "import sys, annx; print(*[m for m in sys.modules if 'annx.ref' in m])"
    assert run_python(code) == ""


def test_reference_works_without_native_module() -> None:
    code = f"""
import importlib, pkgutil, sys, types
package = types.ModuleType("annx")
package.__path__ = [{str(PACKAGE)!r}]
sys.modules["annx"] = package
sys.modules["annx._core"] = None  # importing it now raises
import annx.reference
for info in pkgutil.iter_modules(annx.reference.__path__, "annx.reference."):
    importlib.import_module(info.name)
loaded = {{m for m in sys.modules if m.startswith("annx.") and ".reference" not in m}}
print(*sorted(loaded - {{"annx._core", "annx.errors"}}))
"""
    assert run_python(code) == ""


def test_typing_files_are_installed() -> None:
    assert (PACKAGE / "py.typed").is_file()
    assert (PACKAGE / "_core.pyi").is_file()


@pytest.mark.parametrize("package", [annx, annx.reference], ids=["annx", "reference"])
def test_all_is_unique_and_present(package: object) -> None:
    names = list(package.__all__)  # type: ignore[attr-defined]
    assert len(names) == len(set(names))
    assert [name for name in names if not hasattr(package, name)] == []


@pytest.mark.parametrize("name", sorted(annx.__all__))
def test_public_name_is_documented(name: str) -> None:
    value = getattr(annx, name)
    if name.startswith("__") or not callable(value):
        return
    assert inspect.getdoc(value)


@pytest.mark.parametrize("name", [n for n in sorted(annx.__all__) if needs_twin(n)])
def test_public_name_has_twin(name: str) -> None:
    assert name in annx.reference.__all__
    assert_twin(name, getattr(annx, name), getattr(annx.reference, name))


@pytest.mark.parametrize("name", sorted(annx.transforms.__all__))
def test_transform_has_twin(name: str) -> None:
    twins = importlib.import_module("annx.reference.transforms")
    assert name in twins.__all__
    native, twin = getattr(annx.transforms, name), getattr(twins, name)
    assert_twin(name, native, twin)
    if name != "Transform":  # not made directly
        assert arguments(twin) == arguments(native)


def assert_twin(name: str, native: object, twin: object) -> None:
    if not inspect.isclass(native):
        assert arguments(twin) == arguments(native)
        return
    assert inspect.isclass(twin)
    for method, value in inspect.getmembers(native):
        if method.startswith("_") or method in NATIVE_METHODS:
            continue
        assert hasattr(twin, method), f"annx.reference.{name} lacks {method}"
        if callable(value):
            assert arguments(getattr(twin, method)) == arguments(value), method


def arguments(function: object) -> list[str]:
    """Names of the arguments in order, without those that concern the machine."""
    names = inspect.signature(function).parameters  # type: ignore[arg-type]
    return [name for name in names if name not in NATIVE_ARGUMENTS]


def test_numpy_is_the_only_requirement() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    match = re.search(r"^dependencies = \[(.*?)\]", text, re.MULTILINE | re.DOTALL)
    assert match is not None
    assert re.findall(r'"([a-z0-9_-]+)', match.group(1)) == [np.__name__]
