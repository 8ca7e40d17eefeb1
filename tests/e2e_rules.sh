#!/bin/bash
# SPDX-License-Identifier: MIT
# dashcam rules: what ships is listed, a configuration is explained, an error is pointed at; run and watch refuse the same.
source "$(dirname "$0")/e2e.sh"
set -o pipefail
mkdir -m 0700 "$dir/rings"

wrong() {
	echo "FAILED: $*"
	cat "$dir/out" "$dir/err"
	failures=$((failures + 1))
}

# expect STATUS ARG...: into out and err
expect() {
	local status=$1
	shift
	"$bin" "$@" >"$dir/out" 2>"$dir/err" </dev/null
	local found=$?
	((found == status)) || wrong "dashcam $*: exit status $found, expected $status"
}

expect 0 rules
shipped=$(grep -c '^default\.' "$dir/out")
((shipped >= 4)) || wrong "rules ship"
grep -q '^  when the process dies by a signal$' "$dir/out" || wrong "a rule is a sentence"
expect 0 rules --json
[[ $(jq -r '.rules | length' "$dir/out") == "$shipped" && $(jq -r '.errors | length' "$dir/out") == 0 ]] || wrong "rules --json"

expect 0 rules --when 'cpu > 95% for 5s' --when exec
[[ $(grep -c '^when-[12]$' "$dir/out") == 2 ]] || wrong "expressions have names"
grep -q '^  when for 5 s without a break it uses more than 95 % of a core$' "$dir/out" || wrong "an expression is explained"

expect 2 rules --when 'span "größe" > 250 or exec'
cat >"$dir/wanted" <<'END'
dashcam rules: --when, column 18: expected a time such as 250ms or 30s, found '250'
  span "größe" > 250 or exec
                 ^~~
END
LC_ALL=C.UTF-8 "$bin" rules --when 'span "größe" > 250 or exec' 2>"$dir/err"
cmp -s "$dir/wanted" "$dir/err" || wrong "the column is pointed at"

cat >"$dir/good.conf" <<'END'
[watch]
default-rules = no
[rule slow-pay]
when = span "http.request" where route == "/pay"
       > 250ms
severity = high
run = logger slow
[rule errors]
when = log >= error rate > 10/s
END
expect 0 rules check "$dir/good.conf"
[[ $(grep -cE '^(slow-pay|errors)$' "$dir/out") == 2 ]] || wrong "both rules are explained"
grep -q "when one span 'http.request' with route '/pay' lasts longer than 250 ms" "$dir/out" || wrong "lines of one text are one"
grep -q 'severity high.*run "logger slow"' "$dir/out" || wrong "what follows is told"

sed -i 's/250ms/250sec/; s/log >=/log >>/' "$dir/good.conf"
expect 2 rules check "$dir/good.conf"
[[ $(grep -c '\^' "$dir/err") == 2 ]] || wrong "both errors are pointed at"
grep -q "line 3: rule 'slow-pay', column 45: expected a time" "$dir/err" || wrong "the first one is named"
expect 2 rules check --json "$dir/good.conf"
[[ $(jq -c '[.errors[] | [.rule, .line, .column]]' "$dir/out") == '[["slow-pay",3,45],["errors",8,6]]' ]] || wrong "errors in JSON"
expect 1 rules check "$dir/none.conf"
for rate in 49 5000; do
	printf '[rule r]\nwhen = exec\nsample = %s\n' $rate >"$dir/rate.conf"
	expect 2 rules check "$dir/rate.conf"
	grep -qE "raises nothing, 49 stacks a second are sampled anyway|is too large, expected at most 1000" "$dir/err" ||
		wrong "a rate of $rate is refused"
done
sed -i 's/5000/199/; 1i [watch]\nsample = off' "$dir/rate.conf"
expect 0 rules check "$dir/rate.conf"
grep -q 'sample stacks 199 times a second for 30.0 s$' "$dir/out" || wrong "a rate is told"
expect 64 rules chek "$dir/good.conf"
expect 64 rules check

expect 1 watch --config "$dir/good.conf" --dir "$dir/rings" --out "$dir/captures"
grep -q "line 3: rule 'slow-pay', column 45" "$dir/err" || wrong "watch refuses it, too"
expect 64 run --when 'exec ute' -- true
grep -q "column 6" "$dir/err" || wrong "run names the column"
expect 64 watch --when 'exec ute' --dir "$dir/rings" --out "$dir/captures"

# What the manual page shows is what is taken.
MANWIDTH=200 mandoc -T utf8 "$DASHCAM_BUILD/tools/dashcam-rules.7" | col -b >"$dir/page"
sed -n 's/^\.Dl //p' "$DASHCAM_BUILD/tools/dashcam-rules.7" | sed 's/\\(dq/"/g' >"$dir/examples"
(($(wc -l <"$dir/examples") >= 30)) || wrong "the page has examples"
while read -r example; do
	grep -qF -- "$example" "$dir/page" || wrong "the page shows '$example' otherwise"
	expect 0 rules --when "$example"
done <"$dir/examples"

judge
