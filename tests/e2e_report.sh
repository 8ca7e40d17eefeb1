#!/bin/bash
# SPDX-License-Identifier: MIT
# What people make of samples: report, profiles, names that come later, with a program that was stripped where it ran.
source "$(dirname "$0")/e2e.sh"
export DASHCAM_DIR=$dir/rings

mkdir "$dir/debug"
cc -g -O1 -pthread -o "$dir/debug/spinner.debug" "$DASHCAM_SOURCE/tests/spinner.c" -Wl,--build-id || exit 1
strip -o "$dir/spinner" "$dir/debug/spinner.debug"
"$bin" run --sample 199 --out "$dir/out" --on-exit -- "$dir/spinner" 11 2 2>"$dir/err"
if grep -q 'not sampled' "$dir/err"; then
	sed 's/.*not sampled: /sampling is refused here: /' "$dir/err"
	exit 77
fi
file=$(ls "$dir"/out/*.dcap) || exit 1

# Without names: modules and offsets, which is all that is needed to name them later.
"$bin" report "$file" hot-functions >"$dir/raw" || wrong "report hot-functions"
lacks "$dir/raw" function_that_computes
holds "$dir/raw" 'spinner\+0x[0-9a-f]+'

"$bin" symbolize "$file" --debug-dir "$dir/debug" >"$dir/said" || wrong "symbolize: $(cat "$dir/said")"
holds "$dir/said" 'frames have a name, [0-9]+ had one before'
"$bin" report "$file" hot-functions >"$dir/table" || wrong "report hot-functions"
holds "$dir/table" '^ *[0-9.]+ %.* function_that_computes +spinner'
awk '$5 == "function_that_computes" || $6 == "function_that_computes" { found = 1; if ($1 < 60) exit 1 } END { exit !found }' \
	"$dir/table" || wrong "a program that computes is not hot: $(cat "$dir/table")"
"$bin" symbolize "$file" --debug-dir "$dir/debug" >"$dir/said" || wrong "symbolize twice"
holds "$dir/said" 'nothing new is known'

"$bin" report "$file" hot-functions --json | jq -e '
	.[0] | .cpu_samples > 50 and ([."hot-functions"[].self_ns] | add) <= .cpu_ns and
	(."hot-functions"[0].function == "function_that_computes")' >/dev/null || wrong "report --json"
"$bin" report "$file" off-cpu >"$dir/off" || wrong "report off-cpu"
holds "$dir/off" '^OFF CPU +SWITCHES +PREEMPTED +LONGEST +THREAD'
"$bin" report "$file" threads >"$dir/threads" || wrong "report threads"
holds "$dir/threads" '^spinner/[0-9]+, .* of CPU'
"$bin" info "$file" >"$dir/info" || wrong info
holds "$dir/info" 'stacks, back to .* unwound, .* to the outermost function'
"$bin" show "$file" --stacks >"$dir/show" || wrong "show --stacks"
holds "$dir/show" 'on-cpu +function_that_computes <- main'

# Folded: process;thread;outermost...innermost and microseconds, which add up to the CPU time.
"$bin" export "$file" -f folded >"$dir/folded" || wrong "export folded"
holds "$dir/folded" '^spinner;spinner/[0-9]+;.*main;function_that_computes [0-9]+$'
folded=$(awk '{ sum += $NF } END { print sum }' "$dir/folded")
cpu=$("$bin" report "$file" hot-functions --json | jq '.[0].cpu_ns / 1000 | floor')
((folded <= cpu && folded > cpu - 1000)) || wrong "folded stacks hold $folded us, the samples $cpu"

# pprof: ids that are used exist, string numbers are in range, values add up.
"$bin" export "$file" -f pprof -o "$dir/pb" || wrong "export pprof"
python3 - "$dir/pb" "$cpu" "$DASHCAM_SOURCE/tests" <<'PY' || wrong "the profile is not sound"
import sys
sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[3])
from pprof import fields, packed

profile = list(fields(open(sys.argv[1], "rb").read()))
strings = [v.decode() for k, v in profile if k == 6]
assert strings[0] == ""
functions = {dict(fields(v))[1]: strings[dict(fields(v))[2]] for k, v in profile if k == 5}
locations, lines = set(), 0
for k, v in profile:
    if k == 4:
        f = list(fields(v))
        locations.add(dict(f)[1])
        for key, line in f:
            if key == 4: assert dict(fields(line))[1] in functions; lines += 1
mappings = {dict(fields(v))[1] for k, v in profile if k == 3}
types = [(strings[dict(fields(v))[1]], strings[dict(fields(v))[2]]) for k, v in profile if k == 1]
assert types == [("samples", "count"), ("cpu", "nanoseconds"), ("off", "nanoseconds"), ("events", "count")], types
cpu = 0
for k, v in profile:
    if k == 2:
        f = dict((a, b) for a, b in fields(v) if a != 3)
        assert all(i in locations for i in packed(f.get(1, b"")))
        values = packed(f[2]); assert len(values) == 4
        cpu += values[1]
assert "function_that_computes" in functions.values() and lines and mappings
assert cpu // 1000 == int(sys.argv[2]), (cpu, sys.argv[2])
PY

# From a server: what debuginfod-find prints is used, what it does not find is not, and it does not take for ever.
"$bin" run --sample 199 --out "$dir/out2" --on-exit -- "$dir/spinner" 11 1 2>/dev/null
file=$(ls "$dir"/out2/*.dcap) || exit 1
mkdir "$dir/bin" "$dir/real"
cp "$file" "$dir/real/quick.dcap"
cp "$file" "$dir/real/slow.dcap"
cat >"$dir/bin/debuginfod-find" <<-FIND
	#!/bin/sh
	[ "\$2" = "\$(readelf -n $dir/debug/spinner.debug | sed -n 's/.*Build ID: //p')" ] && echo $dir/debug/spinner.debug && exit
	[ -e $dir/slow ] && sleep 30
	exit 1
FIND
chmod +x "$dir/bin/debuginfod-find"
PATH=$dir/bin:$PATH DEBUGINFOD_URLS=http://localhost "$bin" symbolize "$file" --debuginfod >"$dir/said" || wrong "--debuginfod"
"$bin" report "$file" hot-functions >"$dir/table"
holds "$dir/table" function_that_computes
touch "$dir/slow"
began=$SECONDS
PATH=$dir/bin:$PATH DEBUGINFOD_URLS=http://localhost timeout 25 "$bin" symbolize "$file" --debuginfod --timeout 1s >"$dir/said" 2>&1
((SECONDS - began < 20)) || wrong "a slow server was waited for"
[ -z "$(find "${TMPDIR:-/tmp}" -maxdepth 1 -name 'dashcam.??????' -newer "$dir/slow")" ] || wrong "a temporary directory stayed"
DEBUGINFOD_URLS='' "$bin" symbolize "$file" --debuginfod 2>"$dir/err" && wrong "--debuginfod without servers"
holds "$dir/err" 'DEBUGINFOD_URLS names no server'

# The real program, and servers that know one build-id and no other: one that answers, one that takes its time over it.
# What it serves was built without -g, as far as one can see: it has symbols only.
if command -v debuginfod-find >/dev/null; then
	id=$(readelf -n "$dir/debug/spinner.debug" | sed -n 's/.*Build ID: //p')
	: >"$dir/ports"
	strip -g -o "$dir/served" "$dir/debug/spinner.debug"
	python3 - "$id" "$dir/served" >"$dir/ports" 2>/dev/null <<-'PY' &
		import http.server, sys, threading, time
		def serve(seconds):
		    class Handler(http.server.BaseHTTPRequestHandler):
		        def do_GET(self):
		            time.sleep(seconds)
		            known = self.path == '/buildid/%s/debuginfo' % sys.argv[1]
		            body = open(sys.argv[2], 'rb').read() if known else b''
		            self.send_response(200 if known else 404)
		            self.send_header('Content-Length', str(len(body)))
		            self.end_headers()
		            self.wfile.write(body)
		    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
		    threading.Thread(target=server.serve_forever, daemon=True).start()
		    return server.server_port
		print(serve(0), serve(30), flush=True)
		time.sleep(60)
	PY
	server=$!
	for ((i = 0; i < 100; i++)); do
		read -r quick slow <"$dir/ports" && break
		sleep 0.05
	done
	export DEBUGINFOD_CACHE_PATH=$dir/real/cache
	DEBUGINFOD_URLS=http://127.0.0.1:$quick "$bin" symbolize "$dir/real/quick.dcap" --debuginfod >"$dir/said" || wrong "--debuginfod, a real server"
	"$bin" report "$dir/real/quick.dcap" hot-functions >"$dir/table"
	holds "$dir/table" function_that_computes
	rm -rf "$DEBUGINFOD_CACHE_PATH"
	began=$SECONDS
	DEBUGINFOD_URLS=http://127.0.0.1:$slow "$bin" symbolize "$dir/real/slow.dcap" --debuginfod --timeout 1s >"$dir/said" 2>&1 ||
		wrong "--debuginfod, a slow server: $(cat "$dir/said")"
	((SECONDS - began < 15)) || wrong "a real slow server was waited for"
	holds "$dir/said" 'frames have a name'
	kill "$server"
	wait "$server" 2>/dev/null
fi

# Nothing to be read, nothing to be said wrong.
"$bin" report "$file" nonsense 2>"$dir/err"; (($? == 64)) || wrong "report nonsense"
holds "$dir/err" "no report is called 'nonsense'"
"$bin" report "$file" 2>"$dir/err"; (($? == 64)) || wrong "report without a name"
holds "$dir/err" 'which report\? hot-functions, off-cpu or threads'
head -c $(($(stat -c %s "$file") - 120)) "$file" >"$dir/cut.dcap"
"$bin" symbolize "$dir/cut.dcap" >/dev/null 2>"$dir/err"; (($? == 2)) || wrong "symbolize of a cut capture"
holds "$dir/err" 'the file was cut'
"$bin" export "$file" -f pprof --off-cpu >/dev/null 2>"$dir/err"; (($? == 64)) || wrong "pprof --off-cpu"
"$bin" symbolize "$dir/spinner" 2>"$dir/err"; (($? == 1)) || wrong "symbolize of no capture"
"$bin" symbolize "$file" -d "$dir/none" 2>"$dir/err"; (($? == 1)) || wrong "symbolize -d none"

judge
