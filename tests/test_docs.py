# SPDX-License-Identifier: Apache-2.0
"""Examples in docstrings and in README.md run and give what they say.

The docstrings are those of the installed package (pytest's own `--doctest-modules`
takes file paths, which would be the source tree without its compiled module).
"""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import annx

ROOT = Path(__file__).resolve().parents[1]
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def modules() -> list[str]:
    walk = pkgutil.walk_packages(annx.__path__, prefix="annx.")
    return ["annx", *(info.name for info in walk if info.name != "annx._core")]


def examples() -> Iterator[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    for name in modules():
        for test in finder.find(importlib.import_module(name), name):
            if test.examples:
                yield test


def readme_blocks() -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("example", list(examples()), ids=lambda test: test.name)
def test_docstring_example_runs(
    example: doctest.DocTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    example.globs = {**example.globs, "np": np, "annx": annx}
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    results = runner.run(example, out=report.append)
    assert results.failed == 0, "".join(report)


@pytest.mark.parametrize("code", readme_blocks())
def test_readme_example_runs(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})
