# SPDX-License-Identifier: Apache-2.0
"""The worker protocol end to end, with brute force in NumPy as the library."""

from __future__ import annotations

import argparse
import ast
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import cli
from bench.ann import adapter, growth, pareto, report, run
from bench.ann.client import Client, WorkerError, thread_environment
from bench.ann.data import Dataset
from bench.ann.exact import exact_neighbors

FAST = run.Protocol(rounds=2, warm_up=1, min_seconds=0.0)


def _quiet(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def tiny() -> Dataset:
    rng = np.random.default_rng(5)
    base = rng.standard_normal((400, 16), dtype=np.float32)
    queries = rng.standard_normal((20, 16), dtype=np.float32)
    truth = exact_neighbors(base, queries, "cosine", 50)
    return Dataset("tiny", "cosine", base, queries, truth)


@pytest.fixture
def flat() -> adapter.Algorithm:
    return adapter.load_algorithm("numpy_flat")


def test_every_configuration_is_complete() -> None:
    names = [one.name for one in adapter.algorithms()]
    assert names[0] == "annx"
    assert {"faiss", "hnswlib", "usearch", "rabitqlib", "scann", "zvec"} <= set(names)
    for one in adapter.algorithms():
        assert one.source
        assert (one.folder / "module.py").exists()
        for variant in one.variants:
            assert variant.exact or variant.search, variant.name
            assert set(variant.metrics) <= {"l2", "cosine", "ip"}


def test_every_option_of_a_grid_is_used_by_its_adapter() -> None:
    for one in adapter.algorithms():
        source = (one.folder / "module.py").read_text(encoding="utf-8")
        for variant in one.variants:
            asked = {
                key for params in (*variant.build, *variant.search) for key in params
            }
            # annx's own options go to its functions as they are.
            unused = {key for key in asked if f'"{key}"' not in source}
            assert one.subject or not unused, f"{variant.name}: {unused}"


def test_committed_points_name_known_variants() -> None:
    for one in adapter.algorithms():
        variants = {variant.name for variant in one.variants}
        for path in one.folder.glob("pareto/*.json"):
            stored = json.loads(path.read_text())
            assert {point["variant"] for point in stored["points"]} <= variants, path
            assert stored["dataset"]["name"].replace(":", "-") == path.stem


def test_grid_expansion_varies_the_last_key_fastest() -> None:
    grid = adapter.expand([{"a": [1, 2], "b": [3, 4]}, {"c": 5}])
    assert grid == (
        {"a": 1, "b": 3},
        {"a": 1, "b": 4},
        {"a": 2, "b": 3},
        {"a": 2, "b": 4},
        {"c": 5},
    )
    assert adapter.expand({}) == ({},)


def test_thread_environment_sets_every_library() -> None:
    environment = thread_environment(3)
    assert environment["OMP_NUM_THREADS"] == "3"
    assert environment["NUMBA_NUM_THREADS"] == "3"


def test_worker_builds_measures_and_ends(tmp_path: Path, tiny: Dataset) -> None:
    np.save(tmp_path / "base.npy", tiny.base)
    np.save(tmp_path / "queries.npy", tiny.queries)
    with Client(tmp_path, "flat") as client:
        built = client.build(
            "numpy_flat",
            "Flat",
            {},
            metric="cosine",
            base=tmp_path / "base.npy",
            queries=tmp_path / "queries.npy",
        )
        assert built["wall_s"] > 0
        for mode in ("single", "batch"):
            figures, ids = client.measure({}, mode=mode, warm_up=2, min_seconds=0.0)
            assert ids is not None
            np.testing.assert_array_equal(ids, tiny.neighbors[:, :10])
            assert figures["queries"] == len(tiny.queries)
            assert figures["wall_s"] > 0
        assert set(figures) == {"queries", "wall_s", "cpu_s"}
        # A failed request is reported and does not end the worker.
        with pytest.raises(WorkerError, match="TypeError"):
            client.measure({"share": "all"}, min_seconds=0.0)
        _, ids = client.measure({"share": 0.5}, min_seconds=0.0)
        assert ids is not None
        assert ids.max() < 200
    assert client._process.returncode == 0


def test_worker_keeps_its_temporary_files_where_they_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import tempfile; print(tempfile.gettempdir())"
    started = subprocess.Popen

    def instead(command: list[str], **options: Any) -> Any:
        assert command[1:] == ["-m", "bench.ann.worker"]
        return started([command[0], "-c", code], **options)

    monkeypatch.setattr(subprocess, "Popen", instead)
    with Client(tmp_path, "scratch") as client:
        assert client._read_line(60.0).decode().strip() == str(tmp_path)


def test_dead_worker_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    with Client(tmp_path, "gone") as client:
        client._process.kill()
        client._process.wait()
        with pytest.raises(WorkerError, match="gone"):
            client.measure({})


def test_slow_worker_is_stopped(tmp_path: Path) -> None:
    with (
        Client(tmp_path, "slow") as client,
        pytest.raises(WorkerError, match="no answer in 0 s"),
    ):
        client.measure({}, timeout=0.0)


def test_compare_reports_medians_of_all_rounds(
    tiny: Dataset, flat: adapter.Algorithm
) -> None:
    result = run.compare(tiny, [flat], FAST, _quiet)
    assert result["failures"] == []
    assert [one["mode"] for one in result["points"]] == ["single", "batch"]
    for point in result["points"]:
        assert point["recall"] == point["recall_strict"] == 1.0
        assert len(point["repeats"]) == 2
        assert point["qps_range"][0] <= point["qps"] <= point["qps_range"][1]
    assert result["points"][0]["latency_us"]["p99"] > 0
    json.dumps(result)
    table = report.text(result)
    assert "numpy-flat (exact)" in table
    assert "QPS @0.95" in table
    assert "numpy-flat" in report.markdown(result, clock="cpu")


def test_sweep_commits_points_that_a_comparison_reads_back(
    tiny: Dataset,
    flat: adapter.Algorithm,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shares = [{"share": share} for share in (0.25, 0.5, 0.9, 0.95, 1.0)]
    variant = adapter.Variant("numpy_flat", "part", "Flat", ({},), tuple(shares))
    part = adapter.dataclasses.replace(flat, variants=(variant,))
    result = run.sweep(tiny, [part], FAST, _quiet)
    found = [point["recall"] for point in result["points"]]
    assert found == sorted(found)
    assert found[-1] == 1.0

    (tmp_path / "numpy_flat").mkdir()
    monkeypatch.setattr(pareto, "HERE", tmp_path)
    path = run.write_pareto(result, "numpy_flat")
    points = pareto.load_points("numpy_flat", "tiny", FAST.k)
    assert points is not None
    assert path.name == "tiny.json"
    recalls = [point["recall"] for point in points]
    assert recalls == sorted(recalls)

    # They serve the noisy variant of the set too, and no other k.
    assert pareto.load_points("numpy_flat", "tiny+noise", FAST.k) == points
    assert pareto.load_points("numpy_flat", "tiny", FAST.k + 1) is None

    # A sweep of that set itself begins with its own points.
    noisy = {**result, "dataset": {**result["dataset"], "name": "tiny+noise"}}
    noisy["indexes"] = [{**one, "variant": "other"} for one in result["indexes"]]
    run.write_pareto(noisy, "numpy_flat")
    own = pareto.load_points("numpy_flat", "tiny+noise", FAST.k)
    assert own is not None
    assert {point["variant"] for point in own} == {"other"}

    # Another variant's sweep leaves these points alone.
    rest = adapter.dataclasses.replace(variant, name="rest", search=({},))
    rest_only = adapter.dataclasses.replace(flat, variants=(rest,))
    run.write_pareto(run.sweep(tiny, [rest_only], FAST, _quiet), "numpy_flat")
    kept = pareto.load_points("numpy_flat", "tiny", FAST.k)
    assert kept is not None
    assert [point for point in kept if point["variant"] == "part"] == points
    assert len(kept) == len(points) + 1

    compared = run.compare(tiny, [part], FAST, _quiet)
    asked = {tuple(point["search"].items()) for point in compared["points"]}
    assert asked <= {tuple(point["search"].items()) for point in points}
    merged = report.merge([result, compared])
    assert len(merged["points"]) == len(result["points"]) + len(compared["points"])
    other = {**compared, "dataset": {**compared["dataset"], "rows": 1}}
    with pytest.raises(ValueError, match="do not go together"):
        report.merge([result, other])
    other = {**compared, "protocol": {**compared["protocol"], "k": 100}}
    with pytest.raises(ValueError, match="k = 100 and with k = 10 do not go"):
        report.merge([result, other])


def _swept(rows: int) -> dict[str, Any]:
    """A sweep whose costs are powers of the rows, others by either clock."""
    return {
        "format": run.FORMAT,
        "kind": "sweep",
        "command": "",
        "machine": {},
        "dataset": {"name": f"set@{rows}", "rows": rows},
        "protocol": {"targets": [0.9, 0.99, 0.999]},
        "indexes": [
            {
                "variant": "one",
                "cpu_s": 3e-6 * rows**1.25,
                "wall_s": 3e-6 * rows**1.5,
                "index_bytes": 8 * rows,
            }
        ],
        "points": [
            {
                "index": 0,
                "recall": recall,
                "recall_strict": 0.9,
                "qps_cpu": 1e9 / rows**0.5,
                "qps": 1e9 / rows**0.75,
            }
            for recall in (0.95, 0.9995)
        ][: 1 if rows > 50_000 else 2],
        "failures": [],
    }


def test_growth_is_the_slope_of_logarithms_by_either_clock() -> None:
    grown = growth.fit([_swept(90_000), _swept(10_000), _swept(30_000)])
    assert grown["datasets"] == ["set@10000", "set@30000", "set@90000"]
    for clock, unit, slopes in (
        ("cpu", "CPU", ("1.25", "0.50")),
        ("wall", "wall", ("1.50", "0.75")),
    ):
        text = growth.table(grown, clock=clock)
        building, memory, low, high, strict = text.splitlines()[2:]
        assert building.startswith(f"| one, building, {unit} s |")
        assert building.endswith(f"| {slopes[0]} |")
        assert memory.endswith("| 1.00 |")
        assert low.startswith(f"| one, {unit} us a query at 0.9 |")
        assert low.endswith(f"| {slopes[1]} |")
        # Out of reach on the largest set.
        assert high.endswith(f"| - | {slopes[1]} |")
        # Recall within 1e-6 counts for this target, and 0.9 of that is all there is.
        assert strict == f"| one, {unit} us a query at 0.999 | - | - | - | - |"
    assert growth.exponent([10, 10], [1.0, 2.0]) is None


def test_growth_command_writes_both_clocks_and_shows_the_one_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "growth",
        "--datasets=fashion-mnist-test@300,fashion-mnist-test@900",
        "--algorithms=numpy_flat",
        "--queries=5",
        "--min-seconds=0",
        "--targets=0.9",
        f"--out={tmp_path}",
    ]
    assert cli.main([*arguments, "--clock=cpu"]) == 0
    assert "numpy-flat, CPU us a query at 0.9" in capsys.readouterr().out
    (path,) = (
        path
        for path in tmp_path.glob("growth-*.json")
        if json.loads(path.read_text())["kind"] == "growth"
    )
    grown = json.loads(path.read_text())
    assert grown["rows"] == [300, 900]
    for curve in grown["curves"]:
        assert len(curve["wall"]["values"]) == len(curve["cpu"]["values"]) == 2
    assert cli.main(["table", str(path)]) == 0
    assert "numpy-flat, wall us a query at 0.9" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main([*arguments, "--no-plot"])


def test_broken_library_is_noted_and_skipped(
    tiny: Dataset, flat: adapter.Algorithm
) -> None:
    broken = adapter.Variant("numpy_flat", "none", "Missing", ({},), ({},))
    both = adapter.dataclasses.replace(flat, variants=(broken, *flat.variants))
    result = run.compare(tiny, [both], FAST, _quiet)
    assert [one["variant"] for one in result["indexes"]] == ["numpy-flat"]
    assert "Missing" in result["failures"][0]["error"]


def test_ratio_is_annx_over_the_best_peer() -> None:
    def row(name: str, speed: float | None, **flags: bool) -> dict[str, object]:
        kinds = {"subject": False, "exact": False} | flags
        return {"variant": name, "speeds": {0.95: speed}, **kinds}

    rows = [
        row("annx-graph", 300.0, subject=True),
        row("annx-flat", 50.0, subject=True, exact=True),
        row("hnsw", 100.0),
        row("qg", 200.0),
        row("none", None),
        row("flat", 25.0, exact=True),
    ]
    assert report.ratios(rows, [0.95], exact=False) == {0.95: (1.5, "qg")}
    assert report.ratios(rows, [0.95], exact=True) == {0.95: (2.0, "flat")}
    assert report.ratios(rows[2:], [0.95], exact=False) == {0.95: None}


def test_plot_writes_images(
    tiny: Dataset, flat: adapter.Algorithm, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    from bench.ann import plot

    result = run.compare(tiny, [flat], FAST, _quiet)
    paths = plot.draw(result, tmp_path / "tiny")
    assert [path.name for path in paths] == [
        "tiny.png",
        "tiny.pdf",
        "tiny-batch.png",
        "tiny-batch.pdf",
    ]
    assert paths[0].read_bytes().startswith(b"\x89PNG")


def test_no_two_libraries_look_alike_in_a_figure() -> None:
    pytest.importorskip("matplotlib")
    from bench.ann import plot

    looks = [
        (style["color"], style["marker"], style["linewidth"])
        for name, style in plot._styles().items()
        if not name.startswith("annx")
    ]
    assert len(set(looks)) == len(looks) > 20


def test_command_line_lists_and_refuses(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["list"]) == 0
    shown = capsys.readouterr().out
    assert "fashion-mnist-test" in shown
    assert "hnswlib" in shown
    assert cli.main(["compare", "--algorithms", "nothing"]) == 2
    assert "no algorithm 'nothing'" in capsys.readouterr().err
    assert cli.main(["compare", "--base-file", "x.npy"]) == 2
    assert cli.main(["compare", "--algorithms", "numpy_flat:other"]) == 2
    assert "has the variants ['numpy-flat']" in capsys.readouterr().err


def test_every_option_of_every_command_is_used() -> None:
    source = Path(cli.__file__).read_text(encoding="utf-8")
    commands = next(
        action
        for action in cli._parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    ).choices
    runs = {name: one.get_default("run") for name, one in commands.items()}
    for name, command in commands.items():
        body = _reached(source, runs[name].__name__)
        for action in command._actions:
            if action.dest != "help":
                used = f"options.{action.dest}" in body or f'"{action.dest}"' in body
                assert used, f"{name} --{action.dest}"


def _reached(source: str, start: str) -> str:
    """The source of a function and of all in its module that it may call."""
    tree = ast.parse(source)
    functions = {
        node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)
    }
    seen: list[str] = []
    todo = [start]
    while todo:
        name = todo.pop()
        if name in functions and name not in seen:
            seen.append(name)
            todo += [
                node.id
                for node in ast.walk(functions[name])
                if isinstance(node, ast.Name)
            ]
    return "\n".join(ast.unparse(functions[name]).replace("'", '"') for name in seen)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["compare", "--rounds=0"], "not a whole number from 1 on"),
        (["compare", "--queries=-1"], "not a whole number from 1 on"),
        (["compare", "--targets=95"], "recalls between 0 and 1"),
        (["compare", "--targets=high"], "recalls between 0 and 1"),
        (["compare", "--min-seconds=soon"], "not a number of seconds"),
        (["compare", "--dataset=x", "--base-file=y"], "not allowed with"),
        (["growth", "--datasets=x", "--no-plot"], "unrecognized arguments"),
    ],
)
def test_command_line_refuses_wrong_options_in_a_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main(arguments)
    assert sentence in capsys.readouterr().err


def test_command_line_tells_what_is_wrong_with_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["table", str(tmp_path / "none.json")]) == 2
    assert "No such file" in capsys.readouterr().err
    (tmp_path / "other.json").write_text("[1, 2]")
    assert cli.main(["table", str(tmp_path / "other.json")]) == 2
    assert "is no result of this bench" in capsys.readouterr().err
    assert cli.main(["compare", "--metric=ip", "--algorithms=numpy_flat"]) == 2
    assert "--metric goes with --base-file" in capsys.readouterr().err


def test_interrupted_command_ends_in_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(options: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_list", stop)
    assert cli.main(["list"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_variants_of_one_library_are_one_sweep() -> None:
    names = "faiss:faiss-hnsw,annx,faiss:faiss-flat,faiss:faiss-hnsw"
    found = cli._joined([cli._narrowed(name) for name in names.split(",")])
    assert [one.name for one in found] == ["faiss", "annx"]
    assert [one.name for one in found[0].variants] == ["faiss-hnsw", "faiss-flat"]


def test_sweep_prints_a_table_and_commits_for_one_k(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(pareto, "HERE", tmp_path)
    arguments = [
        "sweep",
        "--dataset=fashion-mnist-test@200",
        "--algorithms=numpy_flat",
        "--queries=5",
        "--min-seconds=0",
        "--clock=cpu",
        "--no-plot",
        "--commit",
        f"--out={tmp_path / 'out'}",
    ]
    assert cli.main(arguments) == 0
    assert "cpu clock" in capsys.readouterr().out
    assert [path.suffix for path in (tmp_path / "out").iterdir()] == [".json"]
    stored = pareto.points_path("numpy_flat", "fashion-mnist-test@200")
    before = stored.read_text()
    assert cli.main([*arguments, "--k=5"]) == 2
    assert "has points for k = 10, not 5" in capsys.readouterr().err
    assert stored.read_text() == before


def test_command_line_compares_files(
    tiny: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "base.npy", tiny.base)
    np.save(tmp_path / "queries.npy", tiny.queries)
    arguments = [
        "compare",
        "--algorithms=numpy_flat",
        f"--base-file={tmp_path / 'base.npy'}",
        f"--query-file={tmp_path / 'queries.npy'}",
        "--metric=cosine",
        "--rounds=1",
        "--min-seconds=0",
        "--no-plot",
        f"--out={tmp_path / 'out'}",
    ]
    assert cli.main(arguments) == 0
    assert "base: 400 x 16, cosine" in capsys.readouterr().out
    written = list((tmp_path / "out").glob("*.json"))
    assert len(written) == 1
    assert json.loads(written[0].read_text())["kind"] == "compare"
