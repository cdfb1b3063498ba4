#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs the native tests on processors that this machine is not, as far as the tools are
# there; says what it ran and what it left out. Needs CMake, Ninja and:
#   qemu-x86_64   the x86-64 build on a processor without AVX, and on one with AVX but
#                 not AVX2: both must fall back to the scalar kernels and pass
#   qemu-aarch64 and aarch64-linux-gnu-g++   everything cross-compiled for AArch64: the
#                 NEON kernels must be chosen and pass
#   bochs (and ANNX_EMULATE_AVX512=1: it takes minutes)   see emulate_avx512.sh
# On Debian: apt-get install qemu-user g++-aarch64-linux-gnu.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cmake=$(command -v cmake || echo .venv/bin/cmake)

# Static, so that the emulator needs no system of its own to find libraries in.
build() {
  local folder=$1
  shift
  "$cmake" -S . -B "$folder" -G Ninja -DCMAKE_BUILD_TYPE=Release -DANNX_PYTHON=OFF \
    -DANNX_NATIVE_TESTS=ON -DCMAKE_EXE_LINKER_FLAGS=-static "$@" >/dev/null
  "$cmake" --build "$folder" -- --quiet
}
qemu() { command -v "qemu-$1" || command -v "qemu-$1-static"; }

ran=0
if [[ $(uname -m) == x86_64 ]] && emulator=$(qemu x86_64); then
  build "$work/x86"
  for cpu in Nehalem IvyBridge; do
    echo "--- x86-64, $cpu: expect scalar"
    ANNX_EXPECT_ISA=scalar "$emulator" -cpu "$cpu" "$work/x86/annx_native_tests" kernels
    if ANNX_ISA=avx2 "$emulator" -cpu "$cpu" "$work/x86/annx_native_tests" \
      kernels_dispatch >"$work/forced.txt" 2>&1; then
      echo "ANNX_ISA=avx2 was accepted on $cpu" >&2
      exit 1
    fi
    grep -q "does not support" "$work/forced.txt"
  done
  ran=1
else
  echo "no qemu-x86_64: the fall-back on old x86-64 processors was not run"
fi

if emulator=$(qemu aarch64) && command -v aarch64-linux-gnu-g++ >/dev/null; then
  build "$work/arm" -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
    -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++
  echo "--- AArch64: expect neon"
  # Not the tests of threads and forks, which qemu's own user mode does not survive.
  for part in kernels random file; do
    ANNX_EXPECT_ISA=neon "$emulator" "$work/arm/annx_native_tests" "$part"
  done
  ran=1
else
  echo "no qemu-aarch64 or aarch64-linux-gnu-g++: NEON was not run"
fi

if [[ -n ${ANNX_EMULATE_AVX512:-} ]]; then
  build "$work/avx512"
  bash .ci/emulate_avx512.sh "$work/avx512/annx_native_tests"
  ran=1
else
  echo "ANNX_EMULATE_AVX512 is not set: AVX-512 was only compiled"
fi
((ran)) || echo "nothing was emulated"
