#!/bin/bash
# SPDX-License-Identifier: MIT
# Folders include only what they may, the recorder nothing but libc, and each outside library is named in one file.
source "$(dirname "$0")/check.sh"

# upward FOLDER ALLOWED-REGEX: quoted includes of FOLDER that are not allowed
upward() {
	[ -d "$1" ] || return
	sources "$1" | xargs -r grep -HnE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' |
		grep -vE "include[[:space:]]*\"($2)" | sed "s/\$/: $1\/ may not include this/"
}

# once HEADER: outside of tests only one file names it
once() {
	local files
	files=$(sources | grep -v '^tests/' | xargs -r grep -lE "#[[:space:]]*include[[:space:]]*[<\"]$1[>\"]")
	[ "$(grep -c . <<<"$files")" -le 1 ] || echo "<$1> is named in more than one file:" $files
}

# witness HEADER: nothing but one file of the tests names it
witness() {
	local files
	files=$(sources | xargs -r grep -lE "#[[:space:]]*include[[:space:]]*[<\"]$1[>\"]")
	grep -v '^tests/' <<<"$files" | grep . | sed "s|\$|: only tests may name <$1>|"
	[ "$(grep -c . <<<"$files")" -le 1 ] || echo "<$1> is named in more than one file:" $files
}

libc_only() {
	[ -d recorder ] || return
	sources recorder ipc | xargs -r grep -HnE '#[[:space:]]*include[[:space:]]*<(zstd|liburing|xxhash|libunwind|elfutils|dwarf|gelf|libelf|libiberty|lzma|ini|curl)' |
		sed 's/$/: recorder\/ and ipc\/ use libc only/'
}

check() {
	upward ipc 'ipc/'
	upward recorder 'ipc/|recorder/|dashcam_inline\.h"' # installed beside dashcam.h
	upward persist 'ipc/|persist/'
	upward trigger 'ipc/|persist/|trigger/'
	upward tools 'ipc/|persist/|trigger/|tools/|recorder/dashcam\.h"|dashcam\.h"'
	libc_only
	once 'zstd\.h'
	once 'liburing\.h'
	once 'xxhash\.h'
	once 'ini\.h'
	once 'elfutils/libdw\.h'
	once 'gelf\.h'
	once 'libiberty/demangle\.h'
	once 'lzma\.h'
	witness 'libunwind\.h'
}

plant ipc/a.c 'ipc/ may not' <<<'#include "recorder/dashcam.h"'
plant recorder/a.c 'recorder/ may not' <<<'#include "persist/format.h"'
plant persist/a.h 'persist/ may not' <<<'  #  include "trigger/ring.h"'
plant trigger/a.c 'trigger/ may not' <<<'#include "tools/cli.h"'
plant tools/a/b.c 'tools/ may not' <<<'#include "recorder/ring.h"'
plant recorder/a.c 'libc only' <<<'#include <zstd.h>'
plant persist/a.c 'only tests may' <<<'#include <libunwind.h>'
plant tests/a.c <<<'#include <libunwind.h>'
plant persist/a.c <<<$'#include <zstd.h>\n#include "ipc/ring.h"\n#include "persist/format.h"'
plant tools/a.c <<<'#include "recorder/dashcam.h"'

# twice FOLDER LINE: two files with it
twice() {
	local dir said
	dir=$(mktemp -d)
	mkdir "$dir/$1"
	tee "$dir/$1/a.c" >"$dir/$1/b.c" <<<"$2"
	said=$(look "$dir")
	rm -rf "$dir"
	[[ $said == *'more than one file'* ]] || { echo "the check is blind to a library named twice"; exit 1; }
}
twice persist '#include <liburing.h>'
twice tests '#include <libunwind.h>'

judge
