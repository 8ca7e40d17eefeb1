#!/bin/bash
# SPDX-License-Identifier: MIT
# fuzz.sh FUZZER FOUND CORPUS SECONDS: look for new inputs, starting from the kept corpus. What is new stays in FOUND
# (build directory); an input that fails is named on the last lines, to be kept in CORPUS with the fix.
set -eu
fuzzer=$1 found=$2 corpus=$3 seconds=$4
mkdir -p "$found" "$corpus"
# libFuzzer's own exit status of a finding is 77, which meson takes for "skipped".
exec "$fuzzer" -error_exitcode=1 -timeout_exitcode=1 -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 -verbosity=1 \
	-artifact_prefix="$found/../" "$found" "$corpus"
