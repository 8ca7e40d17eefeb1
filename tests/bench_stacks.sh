#!/bin/bash
# SPDX-License-Identifier: MIT
#
# bench_stacks [--json]: redis-server as Debian ships it (no frame pointers, no debug info) under redis-benchmark, sampled
# from outside: how many stacks unwind, whether the hottest functions are perf's, and what unwinding and naming 50,000 of
# them takes, beside perf.
#
# What is compared. `dashcam run` and `perf record` sample the same process at the same time, each by timers of its own, kernel and
# user, registers and 8 KiB of the stack copied; both files are in the page cache. All at rates of their own, since timers of
# one rate keep their distance: for all of a run the one may fire right behind the other, and sees what comes of its interrupt.
# Two perfs at 1999 Hz, beside each other, disagree by up to 9.6 standard deviations on one function of redis-server, and by
# 5 of 100 samples on how many are the kernel's; at different rates by what counting explains. Then, in turns, the median of three:
#   warm, cold      `dashcam settle` from the raw capture to the settled one, on disk by fsync: every stack unwound and named, by
#                   number. Names kept from the settling before, or none. Seconds of wall clock per 50,000 stacks.
#   perf_script     `perf script`: every stack unwound and named, as text, to /dev/null. Per 50,000 of perf's samples.
#   perf_ratio      perf_script over warm, in seconds of wall clock; perf_cpu_ratio: in seconds of CPU, of all processes.
#   perf_unwind_name_cpu_ratio  only unwinding and naming: the CPU time of our children that do so; of perf script what it takes
#                   beyond `perf script -F comm,pid,time`, which reads and orders the same samples and looks at no stack.
# For us: settle uses a second core where it is idle (the child unwinds while the parent reads). perf writes text, which is a part of
# what it takes; its file has each copy padded to 8 KiB, ours is as long as the stack was. For perf: settle also orders, compresses and
# syncs, and its file holds context switches and stacks of waiting besides. Not in it: deleting the raw file, which
# another link keeps.
#
# The hottest ten. Perf's are those of a second recording, of all CPUs and without stacks, as ours is made: the timer of a process
# stops while it is off the CPU, and sees half of what a switch takes. Counted from `perf script -F ip,sym`, since the report of perf
# 6.1 gives samples of one kernel function to another. Of both samplers only what they took in the seconds when both were at work.
#   perf_top10_found        of perf's ten those that are among our ten, or miss it by no more than counting explains: f being perf's
#                           function, g the last of our ten, share(f) - share(g) by perf and by us are within three standard deviations
#   perf_top10_in_top10     the same without any tolerance
#   perf_top10_worst_sigma  the largest disagreement over a share, in standard deviations; of ten, one is expected beyond 1.6
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

clocks() { python3 -c 'import time; print(f"{time.time():.6f} {time.monotonic():.6f}")'; }

timed() { # FILE COMMAND...: seconds, KiB of memory of the largest of its processes, exit status, seconds of CPU
	local file=$1
	shift
	python3 - "$file" "$@" <<-'PY'
		import resource, subprocess, sys, time
		began = time.monotonic()
		status = subprocess.run(sys.argv[2:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
		took = time.monotonic() - began
		used = resource.getrusage(resource.RUSAGE_CHILDREN)
		print(took, used.ru_maxrss, status, used.ru_utime + used.ru_stime, file=open(sys.argv[1], "w"))
	PY
}

# sampled NAME SECONDS CLIENT -- SERVER...: SERVER under `dashcam run` and CLIENT's load, perf beside it for a while;
# leaves NAME.raw (ours), NAME.perf, NAME.cpus (see above), and NAME.began, NAME.ended: a moment by CLOCK_REALTIME and by CLOCK_MONOTONIC
sampled() {
	local name=$1 seconds=$2 client=$3 run server loading recording others
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
	perf record -q -k CLOCK_MONOTONIC -F 1511 -e cpu-clock --call-graph dwarf,8192 -m 64M -p "$server" -o "$dir/$name.perf" -- \
		sleep $((seconds - 2)) >"$dir/perf.log" 2>&1 &
	recording=$!
	perf record -q -k CLOCK_MONOTONIC -F 1777 -e cpu-clock -a -m 4M -o "$dir/$name.cpus" -- sleep $((seconds - 2)) >"$dir/perf.log" 2>&1 &
	others=$!
	pids+=($recording $others)
	echo "$server" >"$dir/$name.pid"
	sleep 2
	clocks >"$dir/$name.began"
	sleep $((seconds - 5))
	clocks >"$dir/$name.ended"
	wait $recording $others
	wait $loading
	kill "$server"
	wait "$run"
	mv "$dir/$name"/*.dcap "$dir/$name.raw.dcap" || { cat "$dir/$name.log" >&2; exit 1; }
}

# A link, so that what is timed is not the deletion of the raw file.
settle_once() { # NAME RESULT
	ln -f "$dir/$1.raw.dcap" "$dir/settle.$1/a.dcap"
	timed "$dir/$2" "$dashcam" settle "$dir/settle.$1/a.dcap"
	[ "$(cut -d' ' -f3 "$dir/$2")" = 0 ] || { echo "dashcam settle failed" >&2; exit 1; }
}

# compared NAME PERF-OPTION...: cold, then warm and perf script in turns; leaves NAME.cold and files of three lines NAME.warm,
# NAME.script, and NAME.dcap
compared() {
	local name=$1
	shift
	mkdir "$dir/settle.$name"
	sync "$dir/$name.raw.dcap" "$dir/$name.perf"
	cat "$dir/$name.raw.dcap" "$dir/$name.perf" >/dev/null
	settle_once "$name" "$name.cold"
	for _ in 1 2 3; do
		settle_once "$name" once
		cat "$dir/once" >>"$dir/$name.warm"
		timed "$dir/once" timeout 300 perf script "$@" -i "$dir/$name.perf"
		cat "$dir/once" >>"$dir/$name.script"
	done
	mv "$dir/settle.$name/a.dcap" "$dir/$name.dcap"
	"$dashcam" info --json "$dir/$name.dcap" | jq '.processes[0].samples' >"$dir/$name.info"
	ln -f "$dir/$name.raw.dcap" "$dir/settle.$name/a.dcap"
	"$dashcam" settle --json "$dir/settle.$name/a.dcap" 2>/dev/null | jq '.[0] | (.unwind_cpu_us + .name_cpu_us) / 1e6' >"$dir/$name.resolve"
	timed "$dir/$name.order" perf script -F comm,pid,time -i "$dir/$name.perf"
	perf script -i "$dir/$name.perf" -F pid 2>/dev/null | grep -c . >"$dir/$name.samples"
}

# The middle one of column COLUMN of a file's lines.
middle() { cut -d' ' -f"$2" "$1" | sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

sampled redis 36 "exec redis-benchmark -p $port -n 100000000 -c 16 -P 4 -q -t set,get,incr,lpush,lpop,sadd,hset,zadd" -- \
	redis-server --port $port --save '' --appendonly no --dir "$dir"
compared redis
samples=$(jq '.cpu + .off_cpu' "$dir/redis.info")

# Hottest functions, by symbol, of the seconds both were at work.
# Ours reach back as far as the memory for samples goes, which those of other programs share.
read -r began_at began <"$dir/redis.began"
read -r ended_at ended <"$dir/redis.ended"
first_at=$(jq '.from_ns / 1e9' "$dir/redis.info")
read -r began_at began < <(awk -v at="$first_at" -v real="$began_at" -v mono="$began" \
	'BEGIN { d = at > real ? at - real : 0; printf "%.6f %.6f\n", real + d, mono + d }')
iso() { date -u -d "@$1" +%Y-%m-%dT%H:%M:%S.%6NZ; }
perf script -i "$dir/redis.cpus" --pid "$(cat "$dir/redis.pid")" --time "$began,$ended" -F ip,sym 2>/dev/null |
	awk 'NF { print $2 }' | sort | uniq -c >"$dir/perf.functions"
"$dashcam" report "$dir/redis.dcap" hot-functions --no-inlines --json -n 100000 --from "$(iso "$began_at")" --to "$(iso "$ended_at")" >"$dir/our.functions"
python3 - "$dir/perf.functions" "$dir/our.functions" >"$dir/top" <<'PY'
import collections, json, math, re, sys
plain = lambda name: re.sub(r"\.(isra|part|constprop)\..*", "", name)
perf, ours = collections.Counter(), collections.Counter()
for line in open(sys.argv[1]):
	count, name = line.split()
	perf[plain(name)] += int(count)
report = json.load(open(sys.argv[2]))[0]
for f in report["hot-functions"]:
	ours[plain(f["function"])] += round(report["cpu_samples"] * f["self_ns"] / report["cpu_ns"])
n, m = sum(perf.values()), report["cpu_samples"]
perf.pop("[unknown]", None)  # no function
top = [name for name, _ in ours.most_common(10)]
last = top[-1]

def by_chance(f):
	"""The samplers disagree on which of f and last is hotter: by less than three standard deviations?"""
	differ = (perf[f] - perf[last]) / n - (ours[f] - ours[last]) / m
	return abs(differ) <= 3 * math.sqrt((perf[f] + perf[last]) / n**2 + (ours[f] + ours[last]) / m**2)

ten = [name for name, _ in perf.most_common(10)]
missed = [f for f in ten if f not in top and not by_chance(f)]
sigma = lambda f: abs(perf[f] / n - ours[f] / m) / math.sqrt(perf[f] / n**2 + ours[f] / m**2)
print(json.dumps({"perf_top10_found": 10 - len(missed), "perf_top10_missed": " ".join(missed),
		  "perf_top10_in_top10": len(set(ten) & set(top)),
		  "perf_top10_worst": max(ten, key=sigma), "perf_top10_worst_sigma": round(max(map(sigma, ten)), 2),
		  "perf_top10_samples": n, "our_top10_samples": m}))
PY

# A server with debug info: lines and inlined functions, by both.
cc -g -O2 -D_GNU_SOURCE -I"$source" -I"$source/recorder" "$source"/tools/demo.d/{backend,conn,fault,http,kvserver,service,table,worker}.c \
	"$here/recorder/libdashcam.a" -lpthread -o "$dir/kvserver" || exit 1
sampled kv 12 "exec wrk -t1 -c16 -d30 http://127.0.0.1:$((port + 1))/k/1" -- env DASHCAM=0 "$dir/kvserver" --port $((port + 1))
compared kv

times() { # NAME: what its files say, as JSON
	jq -n --argjson stacks "$(jq '.cpu + .off_cpu' "$dir/$1.info")" --argjson samples "$(cat "$dir/$1.samples")" \
		--argjson cold "$(middle "$dir/$1.cold" 1)" --argjson warm "$(middle "$dir/$1.warm" 1)" \
		--argjson script "$(middle "$dir/$1.script" 1)" --argjson rss "$(middle "$dir/$1.warm" 2)" \
		--argjson warm_cpu "$(middle "$dir/$1.warm" 4)" --argjson script_cpu "$(middle "$dir/$1.script" 4)" \
		--argjson order_cpu "$(middle "$dir/$1.order" 4)" --argjson resolve "$(cat "$dir/$1.resolve")" \
		'def per($n): if $n > 0 then . * 50000 / $n else 0 end;
		 def three: . * 1000 | round / 1000;
		 def over($b): if $b > 0 then . / $b * 100 | round / 100 else 0 end;
		 {warm_s_per_50000: ($warm | per($stacks) | three), warm_cpu_s_per_50000: ($warm_cpu | per($stacks) | three), cold_s_per_50000: ($cold | per($stacks) | three),
		  perf_script_s_per_50000: ($script | per($samples) | three),
		  perf_script_cpu_s_per_50000: ($script_cpu | per($samples) | three), rss_mib: ($rss / 1024 | round),
		  perf_ratio: (($script | per($samples)) | over($warm | per($stacks))),
		  perf_cpu_ratio: (($script_cpu | per($samples)) | over($warm_cpu | per($stacks))),
		  perf_unwind_name_cpu_ratio: (($script_cpu - $order_cpu | per($samples)) | over($resolve | per($stacks))),
		  unwind_name_cpu_s_per_50000: ($resolve | per($stacks) | three)}'
}

result=$(jq -n --slurpfile redis "$dir/redis.info" --argjson samples "$samples" --slurpfile top "$dir/top" \
	--argjson times "$(times redis)" --argjson debug "$(times kv | jq 'with_entries(.key |= "debug_" + .)')" \
	'{samples: $samples, to_root_percent: (10000 * $redis[0].to_root / $samples | round / 100)} + $top[0] + $times + $debug')
if [ "${1:-}" = --json ]; then
	jq -c . <<<"$result"
else
	jq -r 'to_entries[] | "  \(.key)\t\(.value)"' <<<"$result" | column -t -s $'\t'
fi
