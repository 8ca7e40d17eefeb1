#!/bin/bash
# SPDX-License-Identifier: MIT
# A program (tests/holder.c) whose libraries are damaged, exchanged and made lies of while it runs: the capture is whole, what
# is left of them and all other modules have names, one line says which have none, and nothing takes long. Once with a
# watcher that has held the files since they were mapped, once settled later, from what lies there then.
source "$(dirname "$0")/e2e.sh"
print=$DASHCAM_BUILD/tests/print_stacks

nm "$DASHCAM_BUILD/tests/holder" | grep -qE '__tsan_' && { echo "skipped: threads of TSan's own"; exit 77; }
cd "$dir" || exit 1

cat >lib.c <<'END'
#include <unistd.h>
static __attribute__((noinline)) void inner(volatile int *n) { while (*n) { pause(); (*n)++; } }
void NAME(void) { volatile int n = 1; inner(&n); n++; }
END
for i in {0..9}; do
	gcc -g -O1 -shared -fPIC -Wl,--build-id -DNAME="wait_in_$i" lib.c -o "built$i.so" || exit 1
done

damage() {
	python3 - <<'END'
import os, struct

def sections(b):
    table, = struct.unpack_from('<Q', b, 0x28)
    count, names = struct.unpack_from('<HH', b, 0x3c)
    text, = struct.unpack_from('<Q', b, table + 64 * names + 24)
    found = {}
    for at in range(table, table + 64 * count, 64):
        name = text + struct.unpack_from('<I', b, at)[0]
        found[b[name:b.index(b'\0', name)].decode()] = at
    return table, 64 * count, found

def write(file, at, what):
    with open(file, 'r+b') as f:
        f.seek(at)
        f.write(what)

noise = bytes((i * 167 + i // 7 * 31) & 255 for i in range(8192))
for i in range(9):
    file = 'lib%d.so' % i
    b = open(file, 'rb').read()
    table, table_bytes, at = sections(b)
    place = lambda s: struct.unpack_from('<Q', b, at[s] + 24)[0]
    size = lambda s: struct.unpack_from('<Q', b, at[s] + 32)[0]
    if i == 0: # the section table is noise
        write(file, table, noise[:table_bytes])
    elif i == 1: # cut within its debug info
        os.truncate(file, place('.debug_info') + 10)
    elif i == 2: # a line table of 64 MiB, most of it a hole
        write(file, at['.debug_line'] + 32, struct.pack('<Q', 64 << 20))
        write(file, place('.debug_line'), struct.pack('<I', (64 << 20) - 4))
        os.truncate(file, 128 << 20)
    elif i == 3: # it says it is another build
        write(file, place('.note.gnu.build-id') + 16, noise[:20])
    elif i == 8: # debug info is noise
        write(file, place('.debug_info') + 11, noise[:size('.debug_info') - 11])
        write(file, place('.debug_abbrev'), noise[:size('.debug_abbrev')])
    else:
        os.unlink(file)
        if i == 4:
            os.mkdir(file)
        elif i == 5:
            os.mkfifo(file)
        elif i == 6:
            os.symlink('/nowhere/at/all', file)
        elif i == 7:
            open(file, 'w').close()
            os.truncate(file, 10 << 30)
END
}

# saved SETTLE: leaves the capture's name in $capture, of a program whose libraries were damaged after its start
saved() {
	rm -rf lib*.so out
	: >said
	for i in {0..9}; do cp "built$i.so" "lib$i.so"; done
	"$bin" run --sample off --settle "$1" --out out -- "$DASHCAM_BUILD/tests/holder" ./lib{0..9}.so >said 2>log &
	run=$!
	until_true grep -q . said
	pid=$(pid_of)
	sleep 0.3 # its maps are read
	damage
	capture=$("$bin" trigger --pid "$pid" --wait) || wrong "trigger: $(cat log)"
}

finish() {
	kill -9 "$pid"
	wait "$run"
	run=
}

named() { # NUMBER...: these libraries have names, no other
	"$print" "$capture" >stacks || wrong "$capture cannot be read"
	[[ $(grep -c ^TID stacks) == 11 ]] || wrong "$(grep -c ^TID stacks) threads instead of 11"
	[[ $(grep -oE 'wait_in_[0-9]' stacks | sort -u | tr -dc 0-9) == "${*// /}" ]] || wrong "named are not $*: $(cat stacks)"
	grep -q ' main$' stacks || wrong "the program itself has no names: $(cat stacks)"
	"$bin" info "$capture" >info || wrong "info: $(cat info)"
	grep -q 'Nothing was lost' info || wrong "not whole: $(cat info)"
}

SECONDS=0
saved yes
until_true grep -q ': settled' log
said=$(sed -n 's/.*settled.*no names in //p' log | tr -d ' ' | tr , '\n' | sort | tr '\n' ' ')
[[ $said == 'lib0.so lib1.so lib3.so ' ]] || wrong "not said: $(cat log)"
finish
named 2456789

saved no
finish
"$bin" settle "$capture" >log 2>&1 || wrong "settle: $(cat log)"
grep -q 'no names in lib[0-7].so, lib[0-7].so, lib[0-7].so and 4 more$' log || wrong "not said: $(cat log)"
named 289
((SECONDS < 60)) || wrong "it took $SECONDS s"

judge
