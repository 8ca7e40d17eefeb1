/* SPDX-License-Identifier: MIT */
#include "tools/cut.h"

#include "tools/lanes.h"
#include "tools/text.h"

static bool has_pid(const struct dc_capture *c, uint64_t pid)
{
	for (unsigned i = 0; i < dc_capture_process_count(c); i++)
		if (process_pid(dc_capture_process(c, i)) == pid)
			return true;
	return false;
}

int cut_resolve(const struct cut_options *o, const struct dc_capture *c, struct dc_cut *ret_cut)
{
	int64_t at = dc_capture_incident(c)->at_realtime_ns;
	struct dc_cut cut = {
		.from_ns = moment_resolve(&o->from, at),
		.to_ns = moment_resolve(&o->to, at),
		.pid = (uint32_t)o->pid,
		.tid = (uint32_t)o->tid,
		.name = o->name,
		.everything = o->everything,
	};

	if (o->pid && !has_pid(c, o->pid))
		return usage_error("--pid: no process %u in this capture", cut.pid);
	if (cut.from_ns && cut.to_ns && cut.from_ns > cut.to_ns)
		return usage_error("--from %s is later than --to %s", text_when(cut.from_ns).s,
				   text_when(cut.to_ns).s);
	*ret_cut = cut;
	return EXIT_OK;
}
