#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs the native tests on processors that this machine is not, as far as the tools are
# there; says what it ran and what it left out. Needs CMake, Ninja and:
#   qemu-x86_64   the x86-64 build on a processor without AVX, and on one with AVX but
#                 not AVX2: both must fall back to the scalar kernels and pass
#   bochs         the same build on a processor with AVX-512 (emulate_avx512.sh), where
#                 the AVX-512 kernels must be chosen and pass
#   libsimde-dev  the AVX-512 kernels in terms of AVX2 (tests/native/avx512_portable), on
#                 this processor: other people's reading of the same manual
#   qemu-aarch64 and aarch64-linux-gnu-g++   everything cross-compiled for AArch64: the
#                 NEON kernels must be chosen and pass
# On Debian: apt-get install qemu-user g++-aarch64-linux-gnu libsimde-dev bochs bochsbios
# bochs-term vgabios. Takes about 12 minutes of processor time, nearly all of it building.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
PATH=$PATH:$PWD/.venv/bin  # CMake and Ninja, if only that environment has them

# Static, so that the emulator needs no system of its own to find libraries in.
build() {
  local folder=$1
  shift
  # A developer's ccache serves builds that are configured as a developer's.
  cmake -S . -B "$folder" -G Ninja -DCMAKE_BUILD_TYPE=Release -DANNX_PYTHON=OFF \
    -DANNX_DEV="$(command -v ccache >/dev/null && echo ON || echo OFF)" \
    -DANNX_NATIVE_TESTS=ON -DCMAKE_EXE_LINKER_FLAGS=-static "$@" >/dev/null
  cmake --build "$folder" -- --quiet
}
qemu() { command -v "qemu-$1" || command -v "qemu-$1-static"; }

ran=0
if [[ $(uname -m) == x86_64 ]]; then
  x86=$work/x86/annx_native_tests
  if qemu x86_64 >/dev/null || command -v bochs >/dev/null ||
    [[ -d /usr/include/simde ]]; then
    build "$work/x86"
  fi

  if emulator=$(qemu x86_64); then
    for cpu in Nehalem IvyBridge; do
      echo "--- x86-64, $cpu: expect scalar"
      ANNX_EXPECT_ISA=scalar "$emulator" -cpu "$cpu" "$x86" kernels
      if ANNX_ISA=avx2 "$emulator" -cpu "$cpu" "$x86" kernels_dispatch \
        >"$work/forced.txt" 2>&1; then
        echo "ANNX_ISA=avx2 was accepted on $cpu" >&2
        exit 1
      fi
      grep -q "does not support" "$work/forced.txt"
    done
    ran=1
  else
    echo "no qemu-x86_64: the fall-back on old x86-64 processors was not run"
  fi

  if command -v bochs >/dev/null; then
    bash .ci/emulate_avx512.sh "$x86"
    ran=1
  else
    echo "no bochs: AVX-512 instructions were not run"
  fi

  if [[ -d /usr/include/simde ]] && grep -qw avx2 /proc/cpuinfo; then
    # In the same folder: all but two units stay as they are.
    build "$work/x86" -DANNX_AVX512_PORTABLE=ON
    echo "--- AVX-512 by SIMDe: expect avx512"
    ANNX_EXPECT_ISA=avx512 "$x86" kernels
    ran=1
  else
    echo "no libsimde-dev, or no AVX2: AVX-512's logic was not run by SIMDe"
  fi
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
((ran)) || echo "nothing was emulated"
