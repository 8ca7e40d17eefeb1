/* SPDX-License-Identifier: MIT */
#include "tools/advice.h"

#include <sys/statvfs.h>

#include "ipc/ring.h"
#include "tools/text.h"

#define STEP_BYTES (UINT64_C(1) << 20)
#define STEP_LARGE_BYTES (UINT64_C(16) << 20)

uint64_t cap_needed(uint64_t cap_bytes, int64_t held_ns, int64_t wanted_ns)
{
	const double bytes = held_ns > 0 ? (double)cap_bytes * (double)wanted_ns / (double)held_ns : 1e30;
	const uint64_t step = bytes > 4.0 * STEP_LARGE_BYTES ? STEP_LARGE_BYTES : STEP_BYTES;

	if (bytes >= 0x1p63)
		return UINT64_MAX;
	return ((uint64_t)bytes + step - 1) / step * step;
}

uint64_t cap_most(const char *dir)
{
	uint64_t most = DC_RING_BYTES_MAX;
	struct statvfs fs;

	/* The guest takes a quarter of what is free; more than a quarter of all is never free for it. */
	if (dir && statvfs(dir, &fs) == 0 && fs.f_blocks * fs.f_frsize / 4 < most)
		most = fs.f_blocks * fs.f_frsize / 4;
	return most;
}

void cap_advice(FILE *out, uint64_t needed, uint64_t most, int64_t wanted_ns)
{
	if (needed <= most) {
		fprintf(out, "DASHCAM_MEMORY=%s would hold %s", text_size_option(needed).s, text_span(wanted_ns).s);
		return;
	}
	fprintf(out, "%s at this rate would take %s, and a ring has %s at most%s: ", text_span(wanted_ns).s,
		needed == UINT64_MAX ? "more than can be counted" : text_bytes(needed).s, text_bytes(most).s,
		most < DC_RING_BYTES_MAX ? " on this host" : "");
	fputs("ask for less (DASHCAM_WINDOW), or throttle the busiest sites ('dashcam sites')", out);
}
