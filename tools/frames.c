/* SPDX-License-Identifier: MIT */
#include "tools/frames.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct frame_text frame_text(const struct dc_capture *c, unsigned process, uint64_t address)
{
	struct frame_text t;
	uint32_t count;
	const struct dc_ring_module *m = dc_capture_modules(c, process, &count);

	for (uint32_t i = 0; i < count; i++) {
		const char *path, *name;

		if (address < m[i].start || address >= m[i].end)
			continue;
		path = dc_capture_string(c, process, m[i].path);
		name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
		snprintf(t.s, sizeof(t.s), "%.255s+0x%" PRIx64, name, address - m[i].base);
		return t;
	}
	snprintf(t.s, sizeof(t.s), "0x%" PRIx64, address);
	return t;
}
