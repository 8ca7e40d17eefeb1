#!/bin/bash
# SPDX-License-Identifier: MIT
# --metrics: what Prometheus reads of a watcher, held strictly against the text format 0.0.4, with a process whose name needs
# escaping; and the addresses that are refused.
source "$(dirname "$0")/e2e.sh"

for address in 0.0.0.0:9100 '[::]:9100' 192.168.1.1:9100 9100; do
	"$bin" watch --out "$dir/captures" --metrics "$address" 2>"$dir/err"
	[[ $? == 64 ]] || wrong "--metrics $address is a wrong argument"
	(($(wc -l <"$dir/err") == 1)) || wrong "--metrics $address: expected one line: $(cat "$dir/err")"
	holds "$dir/err" "^dashcam watch: --metrics: '.*expected unix:PATH or 127\.0\.0\.1:PORT; see"
done

port=$((20000 + $$ % 30000))
printf '[watch]\nout = %s\nsample = off\nmetrics = 127.0.0.1:%u\n' "$dir/captures" "$port" >"$dir/conf"
"$bin" watch --config "$dir/conf" 2>"$dir/watch.err" &
pids+=("$!")
DASHCAM_NAME=$'we"ird\\na\nme\xff' "$DASHCAM_BUILD/tests/guest" tick 20 0 >/dev/null &
guest=$!
pids+=("$guest")
for ((i = 0; i < 200; i++)); do
	"$bin" status 2>/dev/null | grep -q recording && grep -q "save the past now" "$dir/watch.err" && break
	grep -q 'cannot listen' "$dir/watch.err" && echo "port $port is taken" && exit 77
	sleep 0.05
done

# get PATH: the reply, head and body
get() {
	exec 3<>"/dev/tcp/127.0.0.1/$port" || return 1
	printf 'GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n' "$1" >&3
	timeout 10 cat <&3
	exec 3<&-
}

get /metrics >/dev/null
sleep 1.2
get /metrics | tr -d '\r' >"$dir/reply"
get /other | tr -d '\r' >"$dir/other"
holds "$dir/other" '^HTTP/1.1 404 '
holds "$dir/reply" '^HTTP/1.1 200 OK$'
sed '1,/^$/d' "$dir/reply" >"$dir/page"
[[ $(grep -i '^content-length' "$dir/reply" | tr -dc 0-9) == $(wc -c <"$dir/page") ]] || wrong "the length is not what came"
holds "$dir/page" "^dashcam_process_events_per_second\{pid=\"$guest\",process=\"we\\\\\"ird\\\\\\\\na_me_\"\} [0-9.]+$"
holds "$dir/page" "^dashcam_site_events_per_second\{.*,site=\"tick\",kind=\"1\"\} [1-9][0-9.]*$"
holds "$dir/page" '^dashcam_span_duration_seconds\{.*quantile="0.99"\} [0-9.e-]+$'
holds "$dir/page" '^dashcam_watcher_rings_alive 1$'
holds "$dir/page" '^dashcam_rule_fired_total\{rule="default\.exit-signal"\} 0$'

# What the watcher does not hear, or does not follow any more, is said: of 3,000 spans that are open it follows 2,048, and none
# when some ends may have been among what it did not hear.
DASHCAM_NAME=busy "$DASHCAM_BUILD/tests/guest" tick 1 1 sleep 1000 async 3000 sleep 1500 burst 2000000 tick 20 0 >/dev/null &
busy=$!
pids+=("$busy")
told_of() { "$bin" status --json --interval 1ms --pid "$busy" | jq -e ".heard_in_part[] | select(.pid == $busy) | $1" >/dev/null; }
until_true told_of 'if .left_out + .lost_chunks == 0 then .async_given_up == 952 else .async_given_up > 0 end'
until_true told_of '.left_out + .lost_chunks > 0 and (.left_out == 0 or .left_out_bytes > .left_out)'
"$bin" status --pid "$busy" | tr '\n' ' ' >"$dir/status"
holds "$dir/status" "busy\[$busy\]: its watcher heard .*; (left out [0-9].*, for which those stand|.* overwritten before).*; gave up "
get /metrics | grep "pid=\"$busy\"" >"$dir/busy"
holds "$dir/busy" '^dashcam_process_async_given_up_total\{.*\} [1-9]'
grep -E '^dashcam_process_(left_out_events|left_out_bytes|lost_chunks)_total' "$dir/busy" | grep -qv ' 0.$' || wrong "the page says nothing of what was left out"
"$bin" top --once --json --pid "$busy" | jq -e '.processes[0] | .async_given_up > 0 and .left_out + .lost_chunks > 0' >/dev/null || wrong "top says nothing of it"

# Each metric: HELP, TYPE, then its lines, once and together; each series once; names, labels and values as the format wants them.
LC_ALL=C awk '
	function bad(why) { print "line " NR ": " why ": " $0; failed = 1 }
	/^# HELP [a-z_]+ [^\\]*$/ { if (seen[$3]++) bad("again"); name = $3; typed = 0; next }
	/^# TYPE [a-z_]+ (gauge|counter)$/ { if ($3 != name || typed++) bad("TYPE out of place"); next }
	/^#/ || /^$/ { bad("neither HELP nor TYPE"); next }
	{
		if (!match($0, /^[a-z_]+(\{[a-z_]+="([^"\\]|\\["\\n])*"(,[a-z_]+="([^"\\]|\\["\\n])*")*\})? -?[0-9][0-9.]*(e[-+][0-9]+)?$/))
			bad("not a sample")
		metric = $0; sub(/[ {].*/, "", metric)
		if (metric != name || !typed) bad("outside of its group, which is " name)
		series = $0; sub(/ [^ ]*$/, "", series)
		if (had[series]++) bad("twice")
		lines++
	}
	END { if (lines < 20) { print "only " lines " samples"; failed = 1 } exit failed }' "$dir/page" >"$dir/format" ||
	wrong "the page is not in the format: $(head -5 "$dir/format")"
if command -v promtool >/dev/null; then
	promtool check metrics <"$dir/page" >"$dir/promtool" 2>&1 || wrong "promtool: $(head -5 "$dir/promtool")"
fi

judge
