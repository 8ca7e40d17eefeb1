#!/bin/bash
# SPDX-License-Identifier: MIT
# What is built for the host only, persist/ and trigger/, compiles for aarch64 without a warning. Headers of other libraries are
# the host's: they are the same.
source "$(dirname "$0")/check.sh"
cc=aarch64-linux-gnu-gcc
command -v $cc >/dev/null || { echo "skipped: no $cc"; exit 77; }
headers=$(mktemp -d)
trap 'rm -rf "$headers"' EXIT
for name in elfutils dwarf.h gelf.h libelf.h libiberty liburing liburing.h lzma lzma.h xxhash.h zdict.h zstd.h zstd_errors.h; do
	[[ -e /usr/include/$name ]] && ln -s "/usr/include/$name" "$headers"
done

check() {
	sources persist trigger | grep '\.c$' |
		xargs -r -n 8 -P 4 $cc -fsyntax-only -O1 -std=gnu17 -D_GNU_SOURCE '-DDASHCAM_VERSION="0"' -Wall -Wextra -Wpedantic \
			-Wconversion -Wno-sign-conversion -I. -isystem "$headers" 2>&1 | grep -E '(error|warning):'
}

plant persist/a.c 'error' <<<'#include <sys/reg.h>'
plant persist/b.c '__builtin_ia32' <<<'int f(void) { return (int)__builtin_ia32_rdtsc(); }'
plant trigger/a.c 'warning' <<<'char f(int c) { return c; }'
plant trigger/b.c <<<'char f(void) { return 1; }'
judge
