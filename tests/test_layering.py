# SPDX-License-Identifier: Apache-2.0
"""The source tree keeps its layers.

`base <- kernels <- storage <- codec <- search <- graph <- index <- bindings <- python`:
a layer uses those to its left only. Every rule is a function from a file's path and
text to the list of what is wrong with it, and every rule is shown a file that breaks
it.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("base", "kernels", "storage", "codec", "search", "graph", "index")

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)
# Headers that bring vector intrinsics.
INTRINSIC_HEADER = re.compile(r"^(\w*intrin\.h|arm_neon\.h|arm_sve\.h|arm_acle\.h)$")
INTRINSIC = re.compile(
    r"\b(_mm\d*_\w+|__m(128|256|512)\w*|v\w+q?_[fsu](8|16|32|64)|float32x\d\w*)\b"
)
# Slow to compile, or a sign of text handling where none belongs.
HEAVY_HEADERS = frozenset({"iostream", "regex", "ranges", "Eigen/Dense", "Eigen/Core"})

Rule = Callable[[str, str], list[str]]


def includes(text: str) -> list[tuple[bool, str]]:
    """Each include of a C++ file: is it in angle brackets, and its name."""
    return [(bracket == "<", name) for bracket, name in INCLUDE.findall(text)]


def code_only(text: str) -> str:
    """C++ text without comments (strings are left: none names an intrinsic)."""
    return re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL)


def layer_of(path: str) -> str | None:
    """The layer of a path such as `cpp/annx/search/topk.h`."""
    parts = path.split("/")
    return parts[2] if path.startswith("cpp/annx/") and len(parts) > 3 else None


def upward_includes(path: str, text: str) -> list[str]:
    """Includes of a layer to the right of the file's own."""
    layer = layer_of(path)
    if layer is None:
        return []
    if layer not in LAYERS:
        return [f"{path} is in the unknown layer {layer}"]
    wrong = []
    for angled, name in includes(text):
        if angled:
            continue
        parts = name.split("/")
        if parts[0] != "annx" or len(parts) < 3 or parts[1] not in LAYERS:
            wrong.append(f"{path} includes {name}; write annx/<layer>/<file>")
        elif LAYERS.index(parts[1]) > LAYERS.index(layer):
            wrong.append(f"{path} includes {name} from a layer above its own")
    return wrong


def pybind_outside_bindings(path: str, text: str) -> list[str]:
    """pybind11 and Python's own header belong to cpp/bindings alone."""
    if path.startswith("cpp/bindings/"):
        return []
    return [
        f"{path} includes {name}"
        for _, name in includes(text)
        if name.startswith("pybind11/") or name == "Python.h"
    ]


def intrinsics_outside_simd(path: str, text: str) -> list[str]:
    """Vector intrinsics belong to kernels/simd_*.h; dispatch.cpp asks for cpuid."""
    if not path.startswith("cpp/") or re.fullmatch(
        r"cpp/annx/kernels/simd_\w+\.h", path
    ):
        return []
    dispatch = path == "cpp/annx/kernels/dispatch.cpp"
    wrong = [
        f"{path} includes {name}"
        for _, name in includes(text)
        if (INTRINSIC_HEADER.match(name) or name == "cpuid.h")
        and not (dispatch and name in {"cpuid.h", "intrin.h"})
    ]
    used = {match.group(0) for match in INTRINSIC.finditer(code_only(text))}
    return wrong + [f"{path} uses {name}" for name in sorted(used)]


def heavy_headers(path: str, text: str) -> list[str]:
    """No header includes iostream, regex, ranges or Eigen."""
    if not path.endswith(".h"):
        return []
    return [f"{path} includes <{n}>" for _, n in includes(text) if n in HEAVY_HEADERS]


def isa_unit_includes(path: str, text: str) -> list[str]:
    """An isa_*.cpp sees primitives, the table and the loops, nothing that emits code.

    An inline function of the standard library compiled there with AVX-512 could be the
    copy that the linker keeps for the whole program.
    """
    if not re.fullmatch(
        r"cpp/annx/kernels/(isa_\w+\.cpp|simd_\w+\.h|\w+\.inc\.h)", path
    ):
        return []
    wrong = []
    for angled, name in includes(text):
        if angled:
            fine = name in {"cstddef", "cstdint"} or INTRINSIC_HEADER.match(name)
        else:
            fine = re.fullmatch(
                r"annx/kernels/(table\.h|builtin\.h|simd_\w+\.h|\w+\.inc\.h)", name
            )
        if not fine:
            wrong.append(f"{path} includes {name}")
    return wrong


def header_guard(path: str, text: str) -> list[str]:
    """`#pragma once` in every header but the loops, which are included many times."""
    if not path.endswith(".h"):
        return []
    guarded = "#pragma once" in text
    if path.endswith(".inc.h"):
        return [f"{path} has #pragma once"] if guarded else []
    return [] if guarded else [f"{path} lacks #pragma once"]


def licence_line(path: str, text: str) -> list[str]:
    """The first line (after a `#!`) names the licence."""
    lines = text.splitlines()
    if lines and lines[0].startswith("#!"):
        lines = lines[1:]
    if lines and lines[0].endswith("SPDX-License-Identifier: Apache-2.0"):
        return []
    return [f"{path} does not begin with its SPDX line"]


def module_imports(tree: ast.AST, *, nested: bool) -> Iterator[str]:
    """Names of the modules that a Python file imports; nested ones too if asked."""
    for node in ast.walk(tree) if nested else ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield "." * node.level + (node.module or "")
            elif node.module == "annx":
                yield from (f"annx.{alias.name}" for alias in node.names)
            else:
                yield node.module or ""


def python_imports(path: str, text: str) -> list[str]:
    """What each part of the Python package may import.

    The reference: the standard library, NumPy, itself and annx.errors. The package: the
    same and annx, at module level (an extra is imported where it is used).
    """
    if not path.startswith("python/annx/") or not path.endswith(".py"):
        return []
    reference = path.startswith("python/annx/reference/")
    wrong = []
    for name in module_imports(ast.parse(text), nested=reference):
        top = name.split(".")[0]
        if top == "numpy" or top in sys.stdlib_module_names:
            continue
        inside = name.startswith("annx.reference")
        allowed = inside or name == "annx.errors" if reference else not inside
        if top == "annx" and allowed:
            continue
        wrong.append(f"{path} imports {name}")
    return wrong


RULES: list[tuple[Rule, str, str]] = [
    (upward_includes, "cpp/annx/base/a.h", '#include "annx/kernels/table.h"'),
    (upward_includes, "cpp/annx/search/a.h", '#include "topk.h"'),
    (upward_includes, "cpp/annx/misc/a.h", ""),
    (pybind_outside_bindings, "cpp/annx/index/a.h", "#include <pybind11/numpy.h>"),
    (intrinsics_outside_simd, "cpp/annx/search/a.cpp", "#include <immintrin.h>"),
    (intrinsics_outside_simd, "cpp/annx/kernels/b.inc.h", "_mm256_setzero_ps();"),
    (intrinsics_outside_simd, "cpp/annx/kernels/b.inc.h", "auto x = vaddq_f32(a, b);"),
    (heavy_headers, "cpp/annx/base/a.h", "#include <iostream>"),
    (isa_unit_includes, "cpp/annx/kernels/isa_avx2.cpp", "#include <algorithm>"),
    (isa_unit_includes, "cpp/annx/kernels/simd_neon.h", '#include "annx/base/error.h"'),
    (header_guard, "cpp/annx/base/a.h", "// text"),
    (header_guard, "cpp/annx/kernels/b.inc.h", "#pragma once"),
    (licence_line, "python/annx/a.py", '"""Text."""'),
    (python_imports, "python/annx/reference/a.py", "from annx import _core"),
    (python_imports, "python/annx/reference/a.py", "def f():\n    import annx.flat"),
    (python_imports, "python/annx/reference/a.py", "import scipy"),
    (python_imports, "python/annx/flat.py", "import ml_dtypes"),
    (python_imports, "python/annx/flat.py", "from annx.reference import topk"),
]


def source_files() -> list[Path]:
    found = [CMAKE]
    for folder in ("cpp", "python", "tests", "bench"):
        for suffix in ("*.h", "*.cpp", "*.py"):
            found += (ROOT / folder).rglob(suffix)
    return [f for f in found if f.is_file() and "out" not in f.relative_to(ROOT).parts]


CMAKE = ROOT / "CMakeLists.txt"


@pytest.mark.parametrize("rule", sorted({rule.__name__ for rule, _, _ in RULES}))
def test_tree_keeps_rule(rule: str) -> None:
    check = globals()[rule]
    wrong = []
    for file in source_files():
        path = file.relative_to(ROOT).as_posix()
        wrong += check(path, file.read_text(encoding="utf-8"))
    assert wrong == []


@pytest.mark.parametrize(("rule", "path", "text"), RULES)
def test_rule_sees_violation(rule: Rule, path: str, text: str) -> None:
    assert rule(path, text) != []


def test_source_files_include_every_layer() -> None:
    folders = {layer_of(f.relative_to(ROOT).as_posix()) for f in source_files()}
    assert {"base", "kernels", "storage"} <= folders
