#!/bin/bash
# SPDX-License-Identifier: MIT
# What is installed is enough: pkg-config, headers and libraries build a C11, a C++17 and a static program, with no warning at
# the strictest, and each of them records. The rest of the installation is where a system looks for it.
set -eu -o pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

meson install -C "$DASHCAM_BUILD" --no-rebuild --destdir "$dir/root" >"$dir/log" 2>&1 || { cat "$dir/log"; exit 1; }
nm -D "$(find "$dir/root" -name 'libdashcam.so.1.*')" | grep '__[at]san_' >/dev/null &&
	{ echo "a sanitizer's library wants its own kind of program"; exit 77; }
[ "$(nm -D --defined-only "$(find "$dir/root" -name 'libdashcam.so.1.*')" | grep -vc ' dc_')" = 0 ] ||
	{ echo "libdashcam.so exports names without dc_"; exit 1; }

cat >"$dir/app.c" <<'END'
#include <dashcam.h>
#include <stdio.h>

int main(void)
{
	struct dc_stats stats = { .size = sizeof(stats) };
	int n = 3;
	{
		DC_SPAN("work", "n", n, "text", "hello", "real", 1.5);
		DC_INSTANT("tick", "flag", true);
		DC_COUNTER("depth", n);
		DC_LOG(DC_WARN, "%d of %s", n, "these");
	}
	int r = dc_stats(&stats);
	printf("%d sites, %d lost\n", r ? -1 : (int)stats.sites, (int)stats.dropped);
	return 0;
}
END
sed 's|struct dc_stats stats = .*|struct dc_stats stats{}; stats.size = sizeof(stats);|' "$dir/app.c" >"$dir/app.cpp"

PKG_CONFIG_PATH=$(dirname "$(find "$dir/root" -name dashcam.pc)")
export PKG_CONFIG_PATH PKG_CONFIG_SYSROOT_DIR=$dir/root
read -ra flags < <(pkg-config --cflags --libs dashcam)
read -ra static < <(pkg-config --cflags --libs --static dashcam)
lib=$(dirname "$(find "$dir/root" -name libdashcam.a)")
strict=(-Wall -Wextra -Wpedantic -Wconversion -Werror)

# try LABEL COMMAND...: build, then see it record
try() {
	local label=$1 said
	shift
	"$@" -o "$dir/app" || { echo "$label does not build"; exit 1; }
	said=$(DASHCAM_DIR=$dir LD_LIBRARY_PATH=$lib "$dir/app")
	[ "$said" = "4 sites, 0 lost" ] || { echo "$label says '$said', expected 4 sites, 0 lost"; exit 1; }
	echo "$label: $said"
}

try 'C11' cc -std=c11 "${strict[@]}" "$dir/app.c" "${flags[@]}"
try 'C17, optimised, bodies inline' cc -O2 -DDC_INLINE "${strict[@]}" "$dir/app.c" "${flags[@]}"
try 'C++17' c++ -std=c++17 "${strict[@]}" "$dir/app.cpp" "${flags[@]}"
try 'static' cc -static "${strict[@]}" "$dir/app.c" "${static[@]}"

for file in bin/dashcam lib/systemd/system/dashcam.service lib/tmpfiles.d/dashcam.conf etc/dashcam.conf share/man/man1/dashcam-help.1 \
	share/man/man5/dashcam.conf.5 share/bash-completion/completions/dashcam.bash; do
	[ -n "$(find "$dir/root" -path "*/$file")" ] || { echo "'$file' is not installed"; exit 1; }
done
