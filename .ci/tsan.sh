#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Usage: .ci/tsan.sh [build folder]. The native tests and tests/test_concurrency.py under
# GCC's thread sanitizer. Linux; PYTHON names an interpreter that has annx's build and
# test requirements (default .venv/bin/python). CPython itself is not instrumented, so
# the sanitizer is preloaded and sees the extension's memory and every lock.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:-build-tsan}
# In full: CMake takes any interpreter it finds in place of a relative path.
python=$("${PYTHON:-.venv/bin/python}" -c 'import sys; print(sys.executable)')
PATH=$PATH:$(dirname "$python")  # CMake and Ninja, if only that environment has them
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DANNX_SANITIZE=thread \
  -DANNX_NATIVE_TESTS=ON -DPython_EXECUTABLE="$python" \
  -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)" >/dev/null
ninja -C "$build"
export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1
"$build/annx_native_tests"
site=$build/site/annx
mkdir -p "$site"
cp -r python/annx/. "$site"
rm -f "$site"/_core*.so
cp "$build"/_core*.so "$site"
LD_PRELOAD=$(g++ -print-file-name=libtsan.so) PYTHONPATH=$build/site \
  "$python" -m pytest -q -p no:cacheprovider tests/test_concurrency.py
