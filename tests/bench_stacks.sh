#!/bin/bash
# SPDX-License-Identifier: MIT
#
# bench_stacks [--json]: redis-server as Debian ships it (no frame pointers, no debug info) under redis-benchmark, sampled
# from outside: how many stacks unwind, whether the hottest functions are perf's, and what unwinding and naming 50,000 of
# them takes, beside perf script on as many samples of the same program.
set -u -o pipefail
export LC_ALL=C
here=$(cd "$(dirname "$0")/.." && pwd) # the build
dashcam=$here/tools/dashcam
dir=$(mktemp -d)
pids=()
finish() {
	for pid in "${pids[@]}"; do kill "$pid"; done
	wait
	rm -rf "$dir"
} 2>/dev/null
trap finish EXIT

skip() { echo "$*"; exit 77; }
for program in redis-server redis-benchmark redis-cli perf jq; do
	command -v "$program" >/dev/null || skip "skipped: $program is not installed (Debian: redis-server redis-tools linux-perf)"
done
perf record -e cpu-clock -o "$dir/probe" true >/dev/null 2>&1 || skip "skipped: this host refuses perf"

port=$((20000 + RANDOM % 20000))
redis() { redis-cli -p "$port" "$@" >/dev/null 2>&1; }
load() { # SECONDS
	timeout "$1" redis-benchmark -p "$port" -n 100000000 -c 16 -P 4 -q -t set,get,incr,lpush,lpop,sadd,hset,zadd >/dev/null 2>&1
}

# --- sampled by us, while perf looks on ---

"$dashcam" run --settle no --sample 1999 --sample-memory 512MiB --window 5m --out "$dir/out" --on-exit -- \
	redis-server --port "$port" --save '' --appendonly no --dir "$dir" >"$dir/log" 2>&1 &
run=$!
pids+=($run)
for _ in {1..50}; do redis ping && break; sleep 0.1; done
server=$(pgrep -P "$run" redis-server) || skip "skipped: redis-server did not start"
load 40 &
loading=$!
perf record -q -F 1999 -e cpu-clock --call-graph dwarf,8192 -m 64M -p "$server" -o "$dir/perf.data" -- sleep 36 >"$dir/perf.log" 2>&1
wait $loading
redis shutdown nosave
wait $run
raw=$(ls "$dir"/out/*.dcap) || { cat "$dir/log" >&2; exit 1; }

# --- ours: cold (no names kept) and warm ---

timed() { # FILE COMMAND...: seconds and KiB of memory, of all its processes
	local file=$1
	shift
	python3 - "$file" "$@" <<-'PY'
		import resource, subprocess, sys, time
		began = time.monotonic()
		status = subprocess.run(sys.argv[2:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
		took = time.monotonic() - began
		print(took, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, status, file=open(sys.argv[1], "w"))
	PY
}
mkdir "$dir/cold"
cp "$raw" "$dir/cold/a.dcap"
timed "$dir/cold.time" "$dashcam" settle "$dir/cold/a.dcap"
cp "$raw" "$dir/cold/b.dcap"
timed "$dir/warm.time" "$dashcam" settle "$dir/cold/b.dcap"
read -r cold _ cold_status <"$dir/cold.time"
read -r warm rss warm_status <"$dir/warm.time"
[ "$cold_status$warm_status" = 00 ] || { echo "dashcam settle failed" >&2; exit 1; }
info=$("$dashcam" info --json "$dir/cold/b.dcap" | jq '.processes[0].samples')
samples=$(jq '.cpu + .off_cpu' <<<"$info")
root=$(jq '100 * .to_root / (.cpu + .off_cpu)' <<<"$info")

# --- perf's ---

perf_samples=$(perf script -i "$dir/perf.data" -F pid 2>/dev/null | grep -c .)
timed "$dir/script.time" perf script -i "$dir/perf.data"
read -r script _ _ <"$dir/script.time"

# Hottest functions, by symbol: perf's ten, and how many of them are among our fifteen.
perf report -i "$dir/perf.data" --no-children -g none --percent-limit 0 --stdio -F overhead,symbol 2>/dev/null |
	sed -nE 's/^ *([0-9.]+)% +\[[.k]\] ([^ ]+).*/\2/p' | head -n 10 >"$dir/perf.top"
"$dashcam" report "$dir/cold/b.dcap" hot-functions --no-inlines --json -n 15 |
	jq -r '.[0]["hot-functions"][].function' | sed 's/\.\(isra\|part\|constprop\)\..*//; s/+0x.*//' >"$dir/our.top"
same=0
while read -r name; do
	grep -qxF -- "$(sed 's/\.\(isra\|part\|constprop\)\..*//' <<<"$name")" "$dir/our.top" && same=$((same + 1)) || missed+=" $name"
done <"$dir/perf.top"

per_50000() { awk -v s="$1" -v n="$2" 'BEGIN { printf "%.3f", n ? s * 50000 / n : 0 }'; }
warm_50000=$(per_50000 "$warm" "$samples")
result=$(jq -n --argjson samples "$samples" --argjson root "$root" --argjson same "$same" --arg missed "${missed:-}" \
	--argjson cold "$(per_50000 "$cold" "$samples")" --argjson warm "$warm_50000" --argjson rss "$rss" \
	--argjson perf_samples "$perf_samples" --argjson script "$(per_50000 "$script" "$perf_samples")" \
	'{samples: $samples, to_root_percent: ($root * 100 | round / 100), perf_top10_found: $same, perf_top10_missed: $missed,
	  cold_s_per_50000: $cold, warm_s_per_50000: $warm, rss_mib: ($rss / 1024 | round),
	  perf_samples: $perf_samples, perf_script_s_per_50000: $script,
	  perf_ratio: (if $warm > 0 then ($script / $warm * 10 | round / 10) else 0 end)}')
if [ "${1:-}" = --json ]; then
	jq -c . <<<"$result"
else
	jq -r 'to_entries[] | "  \(.key)\t\(.value)"' <<<"$result" | column -t -s $'\t'
fi
