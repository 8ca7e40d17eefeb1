#!/bin/bash
# SPDX-License-Identifier: MIT
# <dashcam.h> in other people's builds: every macro compiles without a warning in C11 and C++17, with gcc and clang, at -O0
# and -O3, with LTO, inline and out of line; with -DDASHCAM_OFF an object refers to no symbol of ours.
set -u
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat >"$dir/user.c" <<'END'
#include <dashcam.h>
static int work(int fd, unsigned long n, const char *why, double d, _Bool b, float f, short s, unsigned char c)
{
	char text[8] = "text";
	DC_SPAN("span", "fd", fd, "n", n, "why", why, "d", d, "b", b, "f", f, "s", s, "c", c);
	DC_SPAN("two", "fd", fd, "s", s);
	dc_span_t x = DC_BEGIN("begin", "c", c, "text", text);
	DC_END(x);
	DC_INSTANT("instant");
	DC_INSTANT("secret", "fd", fd, "secret", DC_SECRET(why));
	DC_COUNTER("counter", s);
	DC_COUNTER("real", f);
	DC_LOG(DC_WARN, "plain");
	DC_LOG(DC_INFO, "%d %lu %s %f", fd, n, why, d);
	DC_ASYNC_BEGIN("job", n, "fd", fd);
	DC_ASYNC_END("job", n);
	DC_FLOW_OUT(n);
	DC_FLOW_IN(fd);
	DC_TRACE_CONTEXT(why);
	DC_STACK("stack");
	DC_TRIGGER("trigger", "fd", fd);
	dc_instant(dc_site_new(DC_SITE_INSTANT, why));
	dc_counter(dc_site_new(DC_SITE_COUNTER, why), fd);
	dc_span_t r = dc_begin(dc_site_new(DC_SITE_SPAN, why));
	DC_END(r);
	return fd;
}
int main(int argc, char **argv)
{
	struct dc_opts opts = DC_OPTS_INIT;
	struct dc_stats stats;
	stats.size = sizeof stats;
	dc_start(&opts);
	dc_start(0);
	dc_thread_name(argv[0]);
	dc_window(1000000000);
	dc_stats(&stats);
	work(argc, 1, argv[0], 1.0, 1, 1.0f, 1, 1);
	dc_stop();
	return 0;
}
END
sed 's/_Bool/bool/' "$dir/user.c" >"$dir/user.cpp"
warnings=(-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wformat=2 -Werror)
static=("$DASHCAM_BUILD/recorder/libdashcam.a" -pthread)
failed=0

# try WHAT COMMAND...: it succeeds and says nothing
try() {
	local what=$1 said
	shift
	said=$("$@" 2>&1) && [ -z "$said" ] && return
	printf '%s:\n%s\n' "$what" "$said" | head -n 20
	failed=1
}

for compiler in gcc g++ clang clang++; do
	command -v $compiler >/dev/null || continue
	source=$dir/user.c standard=c11
	[[ $compiler != *++ ]] || source=$dir/user.cpp standard=c++17
	for options in -O0 -O3 '-O3 -DDC_INLINE' '-O0 -DDC_INLINE' '-O2 -flto' '-O2 -DDASHCAM_OFF' '-O0 -DDASHCAM_OFF'; do
		[[ $compiler != clang* || $options != *-flto* ]] || continue # needs a linker plugin not every host has
		# shellcheck disable=SC2086 # options are words
		set -- $compiler -std=$standard $options "${warnings[@]}" -I "$DASHCAM_SOURCE/recorder" "$source"
		rm -f "$dir/user" "$dir/user.o"
		if [[ $options == *DASHCAM_OFF* ]]; then
			try "$*" "$@" -c -o "$dir/user.o"
			try "symbols of ours under $*" eval "! nm -u '$dir/user.o' | grep -iE ' (dc|dashcam)_'"
		elif [ -z "${DASHCAM_SANITIZED:-}" ]; then
			try "$*" "$@" -o "$dir/user" "${static[@]}"
			try "running $*" env DASHCAM_DIR="$dir" "$dir/user"
		fi
	done
done
exit $failed
