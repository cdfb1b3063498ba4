#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Usage: .ci/emulate_avx512.sh NATIVE_TESTS [TESTS]. Runs the kernel tests of a
# statically linked annx_native_tests on an emulated processor with AVX-512: Bochs's Ice
# Lake model, without an operating system (bare/start.c says how). On Debian: apt-get
# install bochs bochsbios bochs-term vgabios. ANNX_KEEP=FOLDER keeps the emulator's log.
set -euo pipefail
tests=$1
argument=${2:-kernels}
limit=${ANNX_EMULATE_SECONDS:-600}
bare=$(cd "$(dirname "$0")/bare" && pwd)
work=$(mktemp -d)
pid=
finish() {
  [[ -z ${ANNX_KEEP:-} ]] || cp "$work"/{serial.txt,bochs.log,bochsrc} "$ANNX_KEEP" || true
  [[ -z $pid ]] || kill -- "-$pid" 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT

strip -o "$work/tests" "$tests"
gcc -c "$bare/boot.S" -o "$work/boot.o"
ld -Ttext=0x7c00 --oformat binary "$work/boot.o" -o "$work/boot"
gcc -O2 -ffreestanding -fno-pic -fno-stack-protector -mno-red-zone -mgeneral-regs-only \
  -fno-asynchronous-unwind-tables -Wall -Wextra -Werror \
  -DPROGRAM_BYTES="$(stat -c %s "$work/tests")" -DARGUMENT="\"$argument\"" \
  -DSETTING='"ANNX_EXPECT_ISA=avx512"' -c "$bare/start.c" -o "$work/start.o"
ld -T "$bare/start.ld" --oformat binary "$work/start.o" -o "$work/start"
if (($(stat -c %s "$work/start") > 64 * 512)); then
  echo "start.c has outgrown the 64 sectors that boot.S reads" >&2
  exit 1
fi
disk=$work/disk
dd if="$work/boot" of="$disk" status=none
dd if="$work/start" of="$disk" bs=512 seek=1 status=none
dd if="$work/tests" of="$disk" bs=512 seek=128 status=none
# Whole cylinders of 16 heads by 63 sectors.
cylinders=$(($(stat -c %s "$disk") / (16 * 63 * 512) + 1))
truncate -s $((cylinders * 16 * 63 * 512)) "$disk"

cat >"$work/bochsrc" <<CFG
display_library: term
cpu: model=corei7_icelake_u, count=1, ips=100000000, reset_on_triple_fault=0
memory: guest=512, host=512
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
ata0-master: type=disk, path=$disk, mode=flat, cylinders=$cylinders, heads=16, spt=63
boot: disk
com1: enabled=1, mode=file, dev=$work/serial.txt
log: $work/bochs.log
panic: action=fatal
clock: sync=none
sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy
speaker: enabled=0
CFG
# Debian's Bochs starts in its debugger.
echo c >"$work/commands"
: >"$work/serial.txt"
# The text display wants a terminal; script gives it one.
set -m
script -qec "env TERM=xterm bochs -q -f $work/bochsrc -rc $work/commands" /dev/null \
  >/dev/null 2>&1 </dev/null &
pid=$!
set +m
for ((i = 0; i < limit; ++i)); do
  sleep 1
  if grep -qaE 'exit status|exception|cannot be read' "$work/serial.txt"; then break; fi
  if ! kill -0 "$pid" 2>/dev/null; then
    echo "the emulator stopped" >&2
    tail -n 5 "$work/bochs.log" >&2 || true
    break
  fi
done
echo "--- AVX-512, on Bochs's Ice Lake: expect avx512"
tr -d '\r' <"$work/serial.txt"
grep -qaE '[1-9][0-9]* native tests, 0 failed' "$work/serial.txt"
