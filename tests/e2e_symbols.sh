#!/bin/bash
# SPDX-License-Identifier: MIT
# Names, chains of inlined functions and lines, address by address, as eu-addr2line has them: a C program (our own), a C++
# one that inlines much, a Rust one. Then the same answers from the same program with its debug info elsewhere or in another form.
#
# DASHCAM_LONG=1: more addresses, all of the program dashcam, and the C library where its debug info is installed.
set -eu -o pipefail
command -v eu-addr2line >/dev/null || { echo "eu-addr2line is not installed"; exit 77; }
nm "$DASHCAM_BUILD/tests/symbolcheck" | grep -E '__[at]san_' >/dev/null && { echo "skipped: libdwfl and sanitizers are slow together"; exit 77; }
check=$DASHCAM_BUILD/tests/symbolcheck
source=$DASHCAM_SOURCE/tests/symbols
long=${DASHCAM_LONG:-}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

fail() { echo "$*"; exit 1; }
has() { command -v "$1" >/dev/null || { echo "not compared: there is no $1"; return 1; }; }

# against FILE STEP [more]: no difference; without "more" also no address where eu-addr2line knows less
against() {
	local said
	said=$("$check" "$1" "$2") || fail "$said"
	echo "${said/#"$dir/"/}"
	[ "${3-}" = more ] || [[ $said == *' 0 more,'* ]] || fail "$1: eu-addr2line should know the chains of this program"
}

# by_llvm FILE STEP: functions as llvm-symbolizer has them, where it is installed
by_llvm() {
	command -v llvm-symbolizer >/dev/null || return 0
	local said
	said=$("$check" --llvm "$1" "$2") || fail "$said"
	echo "${said/#"$dir/"/}"
}

# --- C: ipc and persist of this project, and the program that compares ---
mkdir c
(cd "$DASHCAM_SOURCE" && ls ipc/*.c persist/*.c persist/stacks/*.c tests/symbolcheck.c) |
	xargs -P 2 -I{} sh -c 'gcc -g -O2 -std=gnu17 -D_GNU_SOURCE -DDASHCAM_VERSION=\"0\" -I"$DASHCAM_SOURCE" -c "$DASHCAM_SOURCE/{}" -o "c/$(echo {} | tr / _).o"'
gcc c/*.o -o ours $(pkg-config --libs libzstd liburing libdw libelf liblzma) -liberty -lpthread
against "$dir/ours" $((long ? 41 : 331))

cmp -s <("$check" --all ours 401) <("$check" --tight ours 401) || fail "when tables are dropped and made again answers differ"

# --- C++ ---
g++ -g -O2 "$source/shop.cpp" -o shop
against "$dir/shop" $((long ? 3 : 41))
by_llvm "$dir/shop" 41
if has clang++; then
	# without -gdwarf-aranges eu-addr2line of elfutils before 0.190 finds no unit at all
	clang++ -g -O2 -gdwarf-aranges "$source/shop.cpp" -o shop-clang
	against "$dir/shop-clang" $((long ? 3 : 41)) more
	by_llvm "$dir/shop-clang" $((long ? 3 : 41))
	clang++ -g -O2 "$source/shop.cpp" -o shop-no-aranges
	cmp <("$check" --all "$dir/shop-clang" 7) <("$check" --all "$dir/shop-no-aranges" 7) ||
		fail "without .debug_aranges the answers differ"
fi

# --- Rust ---
if has rustc && rustc -g -C opt-level=2 "$source/shop.rs" -o shop-rust 2>rust.log; then
	against "$dir/shop-rust" $((long ? 101 : 1009)) more
	by_llvm "$dir/shop-rust" $((long ? 101 : 1009))
else
	tail -n 1 rust.log 2>/dev/null || true
fi

# --- without debug info: symbols, of which several may be at one address ---
against "$(readlink -f /bin/bash)" 9973
against "$(readlink -f "$(ldd shop | sed -n 's/.*libstdc++\.so\.6 => \([^ ]*\).*/\1/p')")" $((long ? 997 : 99991))

# --- the same debug info, elsewhere or written in another way ---
"$check" --all "$dir/shop" 7 >expected
# same NAME FILE [DIR]: the answers are those of shop
same() {
	"$check" ${3:+--debug-dir "$3"} --all "$2" 7 >got || fail "$1: cannot be read"
	cmp -s got expected || fail "$1: answers differ: $(diff got expected | head -n 6)"
	echo "$1: the same answers"
}
objcopy --only-keep-debug shop whole.debug
strip -o bare shop
"$check" --all "$dir/bare" 7 | grep -c 'shop::' >bare.count || true
[ "$(cat bare.count)" = 0 ] || fail "a stripped program should know nothing of its own, or nothing here is tested"

mkdir -p by-link/.debug beside
objcopy --add-gnu-debuglink=whole.debug bare by-link/shop
cp by-link/shop beside/shop
cp whole.debug beside/
cp whole.debug by-link/.debug/
same "debuglink, beside" beside/shop
same "debuglink, .debug/" by-link/shop
id=$(readelf -n shop 2>/dev/null | sed -n 's/.*Build ID: //p')
mkdir -p "by-id/.build-id/${id:0:2}" "by-path$dir"
cp whole.debug "by-id/.build-id/${id:0:2}/${id:2}.debug"
same "build-id" bare by-id
mkdir alone
objcopy --add-gnu-debuglink=whole.debug bare alone/shop
mkdir -p "by-path$dir/alone"
cp whole.debug "by-path$dir/alone/"
same "debuglink below a directory" "$dir/alone/shop" by-path
mkdir plain
cp shop plain/bare
same "a plain copy of that name" bare plain
g++ -g -O2 "$source/shop.cpp" -Wl,--build-id=0x0123456789abcdef -o other
objcopy --only-keep-debug other "by-id/.build-id/${id:0:2}/${id:2}.debug"
"$check" --debug-dir by-id --all bare 7 | grep 'shop::' >/dev/null && fail "debug info with another build-id was believed"
# Without a build-id it is the checksum that tells.
g++ -g -O2 "$source/shop.cpp" -Wl,--build-id=none -o nameless
objcopy --only-keep-debug nameless nameless.debug
mkdir sum
strip -o stripped nameless
objcopy --add-gnu-debuglink=nameless.debug stripped sum/nameless
cp nameless.debug sum/
cmp -s <("$check" --all nameless 7) <("$check" --all sum/nameless 7) || fail "debuglink by checksum: answers differ"
printf x | dd of=sum/nameless.debug bs=1 seek="$(($(stat -c %s sum/nameless.debug) - 1))" conv=notrunc status=none
"$check" --all sum/nameless 7 | grep 'shop::' >/dev/null && fail "debug info with another checksum was believed"
echo "debuglink by checksum: the same answers"
objcopy --compress-debug-sections=zlib shop shop-zlib
same "compressed" shop-zlib
if has dwz; then
	cp shop shop-dwz
	g++ -g -O2 -DOTHER "$source/shop.cpp" -o second
	dwz -m "$dir/common.dwz" -M "$dir/common.dwz" -h shop-dwz second 2>dwz.log || fail "dwz: $(cat dwz.log)"
	readelf -SW shop-dwz | grep gnu_debugaltlink >/dev/null || fail "dwz made no alternate file"
	same "dwz, alternate file" shop-dwz
	mkdir -p alt/.dwz
	mv common.dwz alt/.dwz/
	same "dwz, alternate file in a debug directory" shop-dwz alt
	mv alt/.dwz gone
	"$check" --all shop-dwz 7 >/dev/null || fail "without the alternate file there is no answer at all"
fi
g++ -gdwarf-4 -O2 "$source/shop.cpp" -o shop-4
same "DWARF 4" shop-4
g++ -g -gsplit-dwarf -O2 "$source/shop.cpp" -o shop-split
same "split units" "$dir/shop-split"
rm -f ./*.dwo
"$check" --all shop-split 7 | grep -F 'shop.cpp:' >/dev/null || fail "without its split units a program has no lines"

# Symbols of functions that are not exported, packed (MiniDebugInfo).
if has xz; then
	nm -f posix --defined-only shop | awk '$2 ~ /[Tt]/ {print $1}' | sort >keep
	objcopy -S --remove-section .comment --keep-symbols=keep whole.debug mini
	strip --strip-debug mini 2>/dev/null || true
	xz -k mini
	objcopy --add-section .gnu_debugdata=mini.xz bare shop-mini
	"$check" --all "$dir/shop-mini" 7 | grep -v ':[0-9]*$' | sort -u >named
	grep -x 'shop::sort().*\|void std::__introsort_loop.*' named >/dev/null || grep 'shop::\|std::' named >/dev/null ||
		fail "symbols in .gnu_debugdata are not found"
	echo ".gnu_debugdata: $(wc -l <named) names"
fi

# Link-time optimisation: chains lead into other units, where eu-addr2line does not follow.
gcc -g -O2 -flto -std=gnu17 -D_GNU_SOURCE -I"$DASHCAM_SOURCE" "$DASHCAM_SOURCE"/persist/stacks/{answers,texts,segments,symbol_table}.c \
	-shared -fPIC -o lto.so
against "$dir/lto.so" 13 more

if [ "$long" ]; then
	meson setup --buildtype=debugoptimized build "$DASHCAM_SOURCE" >meson.log 2>&1 && ninja -C build tools/dashcam >>meson.log 2>&1 ||
		fail "$(tail -n 5 meson.log)"
	against "$dir/build/tools/dashcam" 151
	libc=$(ldd "$dir/shop" | sed -n 's/.*libc\.so\.6 => \([^ ]*\).*/\1/p')
	id=$(readelf -n "$libc" 2>/dev/null | sed -n 's/.*Build ID: //p')
	if [ -e "/usr/lib/debug/.build-id/${id:0:2}/${id:2}.debug" ]; then
		against "$libc" 97
	else
		echo "not compared: the debug info of '$libc' is not installed (libc6-dbg)"
	fi
fi
