#!/bin/bash
# SPDX-License-Identifier: MIT
# The demo finds the culprit: who held the lock, in which request, doing what; in under 25 lines, and what it tells the
# reader to type next works.
set -u -o pipefail
source "$(dirname "$0")/e2e.sh"
cd "$DASHCAM_SOURCE" || exit 1

said=$(tools/demo 2>&1) || { echo "tools/demo failed:"; echo "$said"; exit 1; }
echo "$said"

lines=$(wc -l <<<"$said")
[ "$lines" -lt 25 ] || { echo "it takes $lines lines"; exit 1; }
for pattern in 'held the lock \(shard=[0-9]+\) for ([0-9]+ ms|1\.[0-9] s)' 'of it in snapshot\.throttle' \
	'inside of http\.request method=POST path=/snapshot.* > snapshot ' 'others waited [0-9.]+ m?s in all'; do
	grep -qE "$pattern" <<<"$said" || { echo "nothing in it matches '$pattern'"; exit 1; }
done

next=$(sed -n 's/^next, type: //p' <<<"$said")
shown=$(eval "$next" | grep -c 'snapshot')
[ "$shown" -gt 0 ] || { echo "'$next' shows no snapshot"; exit 1; }
