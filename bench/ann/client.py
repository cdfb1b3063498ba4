# SPDX-License-Identifier: Apache-2.0
"""The parent's side of a worker process."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import selectors
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

__all__ = ["SOURCE_PATHS", "Client", "WorkerError", "thread_environment"]

Array = np.ndarray[Any, Any]
Params = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]

# Every variable by which a numerical library is told its number of threads.
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "TBB_NUM_THREADS",
)


class WorkerError(RuntimeError):
    """A worker failed, died or took too long; the message has the library's words."""


def thread_environment(threads: int) -> dict[str, str]:
    """This environment with every thread variable set to ``threads``."""
    environment = dict(os.environ)
    environment.update(dict.fromkeys(_THREAD_VARIABLES, str(threads)))
    # Idle OpenMP threads must not burn processor time that is measured.
    environment["OMP_WAIT_POLICY"] = "PASSIVE"
    path = [str(ROOT), *SOURCE_PATHS]
    path += [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    environment["PYTHONPATH"] = os.pathsep.join(path)
    environment["PYTHONUNBUFFERED"] = "1"
    return environment


def _source_paths() -> list[str]:
    """Where annx is imported from if it is not installed but built in this tree."""
    if importlib.util.find_spec("annx") is not None:
        return []
    package = ROOT / "python" / "annx"
    built = any(package.glob("_core*.so")) or any(package.glob("_core*.pyd"))
    return [str(package.parent)] if built else []


# Taken when this module is imported, before anybody adds these very paths.
SOURCE_PATHS = _source_paths()


class Client:
    """Starts a worker and talks to it.

    Parameters
    ----------
    folder : Path
        For the worker's log, the ids it hands over and its temporary files.
    name : str
        Names both files.
    threads : int
        What the process's environment allows its libraries.
    """

    def __init__(self, folder: Path, name: str, *, threads: int = 1) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self._ids = folder / f"{name}.ids.npy"
        self._log_path = folder / f"{name}.log"
        self._log = self._log_path.open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.ann.worker"],
            cwd=ROOT,
            # A worker that is killed cannot remove what its library left in files;
            # they go with this folder.
            env=thread_environment(threads) | {"TMPDIR": str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def build(
        self,
        algorithm: str,
        class_name: str,
        params: Params,
        *,
        metric: str,
        base: Path,
        queries: Path,
        threads: int = 1,
        timeout: float = 3600.0,
    ) -> Params:
        """Build the index; returns seconds and bytes (see ``worker.py``)."""
        return self._ask(
            {
                "do": "build",
                "algorithm": algorithm,
                "class": class_name,
                "params": params,
                "metric": metric,
                "threads": threads,
                "base": str(base),
                "queries": str(queries),
            },
            timeout,
        )

    def measure(
        self,
        search: Params,
        *,
        mode: str = "single",
        k: int = 10,
        warm_up: int = 100,
        min_seconds: float = 0.3,
        timeout: float = 900.0,
    ) -> tuple[Params, Array | None]:
        """Run all queries; returns the figures and the ids found.

        Ids are None where the library has no batch call.
        """
        self._ids.unlink(missing_ok=True)
        reply = self._ask(
            {
                "do": "measure",
                "search": search,
                "mode": mode,
                "k": k,
                "warm_up": warm_up,
                "min_seconds": min_seconds,
                "ids": str(self._ids),
            },
            timeout,
        )
        if reply.get("unsupported"):
            return reply, None
        ids: Array = np.load(self._ids, allow_pickle=False)
        return reply, ids

    def close(self) -> None:
        """End the worker: ask first, then insist."""
        process = self._process
        assert process.stdin is not None
        # A dead worker's pipe breaks when what it never read is flushed.
        with contextlib.suppress(OSError):
            process.stdin.write(b'{"do": "quit"}\n')
            process.stdin.flush()
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
        self._log.close()
        self._ids.unlink(missing_ok=True)

    def _ask(self, message: Params, timeout: float) -> Params:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(message).encode() + b"\n")
            process.stdin.flush()
        except OSError as error:
            raise WorkerError(f"{self.name}: the worker is gone. {self._tail()}") from (
                error
            )
        line = self._read_line(timeout)
        reply: Params = json.loads(line)
        if not reply.pop("ok"):
            raise WorkerError(f"{self.name}: {reply['error']}")
        return reply

    def _read_line(self, timeout: float) -> bytes:
        """One answer, or an error when the worker dies or the time is up."""
        stdout = self._process.stdout
        assert stdout is not None
        deadline = time.monotonic() + timeout
        pieces = b""
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while not pieces.endswith(b"\n"):
                left = deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    self._process.kill()
                    raise WorkerError(f"{self.name}: no answer in {timeout:.0f} s")
                piece = os.read(stdout.fileno(), 65536)
                if not piece:
                    code = self._process.wait()
                    raise WorkerError(
                        f"{self.name}: the worker ended with code {code}. "
                        f"{self._tail()}"
                    )
                pieces += piece
        return pieces

    def _tail(self) -> str:
        text = self._log_path.read_text(encoding="utf-8", errors="replace")
        return " | ".join(text.strip().splitlines()[-3:])
