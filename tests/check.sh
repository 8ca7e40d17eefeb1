# SPDX-License-Identifier: MIT
# Sourced by check_*.sh. Each defines check(), which prints one line per fault of the tree it stands in. A check that
# cannot fail is worth nothing, so each first plants faults and near misses, then looks at the real sources.

set -u -o pipefail
planted=0

# sources [FOLDER...]: our C and C++ files, all or those of the folders
sources() {
	local folders=("$@")
	[ $# -gt 0 ] || folders=(ipc recorder persist trigger tools tests)
	find "${folders[@]}" -name '*.[ch]' -o -name '*.cpp' -o -name '*.hpp' 2>/dev/null | sort
}

# look DIR: what check() has to say about the tree there
look() { (cd "$1" && check); }

# plant FILE [TEXT] <content: check() must object with a line that holds TEXT; without TEXT it must be content
plant() {
	local dir said
	dir=$(mktemp -d)
	mkdir -p "$dir/$(dirname "$1")"
	cat >"$dir/$1"
	said=$(look "$dir")
	rm -rf "$dir"
	planted=$((planted + 1))
	if [ $# -gt 1 ]; then
		[[ $said == *"$2"* ]] && return
		echo "the check is blind: planted fault $planted ('$2') was answered by '$said'"
	else
		[ -z "$said" ] && return
		echo "the check is wrong: clean file $planted ($1) was answered by '$said'"
	fi
	exit 1
}

# judge: the real sources
judge() {
	local said
	said=$(look "${DASHCAM_SOURCE:-$(dirname "$0")/..}")
	[ -z "$said" ] && echo "clean; $planted planted files were judged right" && exit 0
	printf '%s\n' "$said"
	exit 1
}
