#!/bin/bash
# SPDX-License-Identifier: MIT
# Every key of the installed dashcam.conf is one that `dashcam watch` knows, with a value it takes; a wrong key is refused.
set -u -o pipefail
dir=$(mktemp -d)
watcher=
trap '[ -z "$watcher" ] || kill "$watcher"; rm -rf "$dir"' EXIT
mkdir -m 0700 "$dir/rings"
sed 's/^#\([a-z-]* = \)/\1/; s/^#\[/[/' "$DASHCAM_SOURCE/tools/dashcam.conf" >"$dir/all.conf"
keys=$(grep -c ' = ' "$dir/all.conf")
[ "$keys" -ge 10 ] || { echo "only $keys keys were found"; exit 1; }

# watch CONF: runs until it is ready or has ended
watch() {
	"$DASHCAM_BIN" watch --config "$1" --dir "$dir/rings" --out "$dir/captures" >"$dir/said" 2>&1 &
	watcher=$!
	for _ in $(seq 100); do
		kill -0 "$watcher" 2>/dev/null || { wait "$watcher"; watcher=; return 1; }
		[ -S "$dir/rings/watch.sock" ] && return
		sleep 0.1
	done
	return 1
}

watch "$dir/all.conf" || { echo "the sample is refused:"; cat "$dir/said"; exit 1; }
kill "$watcher"
wait "$watcher" || { echo "the watcher ended with $?"; cat "$dir/said"; exit 1; }
watcher=

echo 'per-our = 5' >>"$dir/all.conf"
watch "$dir/all.conf" && { echo "a wrong key is taken"; exit 1; }
grep -q 'per-our' "$dir/said" || { echo "the wrong key is not named:"; cat "$dir/said"; exit 1; }
echo "$keys keys"
