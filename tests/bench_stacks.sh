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
for program in redis-server redis-benchmark redis-cli perf wrk jq; do
	command -v "$program" >/dev/null || skip "skipped: $program is not installed (Debian: redis-server redis-tools linux-perf wrk)"
done
perf record -e cpu-clock -o "$dir/probe" true >/dev/null 2>&1 || skip "skipped: this host refuses perf"

port=$((20000 + RANDOM % 20000))
redis() { redis-cli -p "$port" "$@" >/dev/null 2>&1; }
load() { # SECONDS
	timeout "$1" redis-benchmark -p "$port" -n 100000000 -c 16 -P 4 -q -t set,get,incr,lpush,lpop,sadd,hset,zadd >/dev/null 2>&1
}

source=${DASHCAM_SOURCE:-$(jq -r .directories.source "$here/meson-info/meson-info.json")}
port=$((20000 + RANDOM % 20000))

timed() { # FILE COMMAND...: seconds, KiB of memory of the largest of its processes, exit status
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

# sampled NAME SECONDS CLIENT -- SERVER...: SERVER under `dashcam run` and CLIENT's load, perf beside it for a while;
# leaves NAME.raw (ours) and NAME.perf
sampled() {
	local name=$1 seconds=$2 client=$3 run server loading
	shift 4
	"$dashcam" run --settle no --sample 1999 --stacks copy --sample-memory 512MiB --window 5m --out "$dir/$name" --on-exit -- \
		"$@" >"$dir/$name.log" 2>&1 &
	run=$!
	pids+=($run)
	for _ in {1..100}; do server=$(pgrep -P "$run") && break; sleep 0.1; done # the rings take their time
	[ -n "$server" ] || { cat "$dir/$name.log" >&2; exit 1; }
	sleep 1
	timeout "$seconds" bash -c "$client" >/dev/null 2>&1 &
	loading=$!
	perf record -q -F 1999 -e cpu-clock --call-graph dwarf,8192 -m 64M -p "$server" -o "$dir/$name.perf" -- \
		sleep $((seconds - 2)) >"$dir/perf.log" 2>&1
	wait $loading
	kill "$server"
	wait "$run"
	mv "$dir/$name"/*.dcap "$dir/$name.raw.dcap" || { cat "$dir/$name.log" >&2; exit 1; }
}

# settled NAME: twice, with no names kept from before and with all of them; leaves NAME.cold, NAME.warm (timed) and NAME.dcap
settled() {
	local once
	mkdir "$dir/settle.$1"
	for once in cold warm; do
		cp "$dir/$1.raw.dcap" "$dir/settle.$1/a.dcap"
		timed "$dir/$1.$once" "$dashcam" settle "$dir/settle.$1/a.dcap"
		[ "$(cut -d' ' -f3 "$dir/$1.$once")" = 0 ] || { echo "dashcam settle failed" >&2; exit 1; }
	done
	mv "$dir/settle.$1/a.dcap" "$dir/$1.dcap"
	"$dashcam" info --json "$dir/$1.dcap" | jq '.processes[0].samples' >"$dir/$1.info"
}

per_50000() { awk -v n="$2" '{ printf "%.3f", n ? $1 * 50000 / n : 0 }' "$1"; }

sampled redis 36 "exec redis-benchmark -p $port -n 100000000 -c 16 -P 4 -q -t set,get,incr,lpush,lpop,sadd,hset,zadd" -- \
	redis-server --port $port --save '' --appendonly no --dir "$dir"
settled redis
samples=$(jq '.cpu + .off_cpu' "$dir/redis.info")

# Hottest functions, by symbol: perf's ten, and how many of them are among our fifteen.
perf report -i "$dir/redis.perf" --no-children -g none --percent-limit 0 --stdio -F overhead,symbol 2>/dev/null |
	sed -nE 's/^ *([0-9.]+)% +\[[.k]\] ([^ ]+).*/\2/p' | head -n 10 >"$dir/perf.top"
"$dashcam" report "$dir/redis.dcap" hot-functions --no-inlines --json -n 15 |
	jq -r '.[0]["hot-functions"][].function' | sed 's/\.\(isra\|part\|constprop\)\..*//' >"$dir/our.top"
same=0 missed=''
while read -r name; do
	grep -qxF -- "$(sed 's/\.\(isra\|part\|constprop\)\..*//' <<<"$name")" "$dir/our.top" && same=$((same + 1)) || missed+=" $name"
done <"$dir/perf.top"
perf_samples=$(perf script -i "$dir/redis.perf" -F pid 2>/dev/null | grep -c .)
timed "$dir/redis.script" perf script -i "$dir/redis.perf"

# A server with debug info: lines and inlined functions, by both.
cc -g -O2 -D_GNU_SOURCE -I"$source" -I"$source/recorder" "$source"/tools/demo.d/{conn,http,kvserver,service,table,worker}.c \
	"$here/recorder/libdashcam.a" -lpthread -o "$dir/kvserver" || exit 1
sampled kv 12 "exec wrk -t1 -c16 -d30 http://127.0.0.1:$((port + 1))/k/1" -- env DASHCAM=0 "$dir/kvserver" --port $((port + 1))
settled kv
kv_samples=$(jq '.cpu + .off_cpu' "$dir/kv.info")
kv_perf_samples=$(perf script --no-inline -i "$dir/kv.perf" -F pid 2>/dev/null | grep -c .)
timed "$dir/kv.script" timeout 300 perf script -i "$dir/kv.perf"

result=$(jq -n --slurpfile redis "$dir/redis.info" --argjson samples "$samples" --argjson same "$same" --arg missed "$missed" \
	--argjson cold "$(per_50000 "$dir/redis.cold" "$samples")" --argjson warm "$(per_50000 "$dir/redis.warm" "$samples")" \
	--argjson rss "$(cut -d' ' -f2 "$dir/redis.warm")" --argjson script "$(per_50000 "$dir/redis.script" "$perf_samples")" \
	--argjson kv_warm "$(per_50000 "$dir/kv.warm" "$kv_samples")" --argjson kv_cold "$(per_50000 "$dir/kv.cold" "$kv_samples")" \
	--argjson kv_script "$(per_50000 "$dir/kv.script" "$kv_perf_samples")" --argjson kv_samples "$kv_samples" \
	'def two: . * 100 | round / 100; def over($a; $b): if $b > 0 then $a / $b | two else 0 end;
	 {samples: $samples, to_root_percent: (100 * $redis[0].to_root / $samples | two), perf_top10_found: $same,
	  perf_top10_missed: $missed, warm_s_per_50000: $warm, cold_s_per_50000: $cold, rss_mib: ($rss / 1024 | round),
	  perf_script_s_per_50000: $script, perf_ratio: over($script; $warm),
	  debug_samples: $kv_samples, debug_warm_s_per_50000: $kv_warm, debug_cold_s_per_50000: $kv_cold,
	  debug_perf_script_s_per_50000: $kv_script, debug_perf_ratio: over($kv_script; $kv_warm)}')
if [ "${1:-}" = --json ]; then
	jq -c . <<<"$result"
else
	jq -r 'to_entries[] | "  \(.key)\t\(.value)"' <<<"$result" | column -t -s $'\t'
fi
