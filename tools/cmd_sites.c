/* SPDX-License-Identifier: MIT */
/* dashcam sites: the places in the code that record, and their switches. */
#include <errno.h>
#include <fnmatch.h>
#include <string.h>

#include "ipc/decode.h"
#include "tools/commands.h"
#include "tools/json.h"
#include "tools/ringlist.h"
#include "tools/text.h"
#include "tools/words.h"

#define THROTTLE_MAX (UINT64_C(1) << 20)

struct sites_options {
	struct ring_filter rings;
	bool on;
	bool off;
	uint64_t throttle;
	bool stack;
	bool json;
};

static const struct option sites_option_table[] = {
	RING_OPTION_ROWS(sites_options),
	{.name = "on",
	 .type = OPTION_FLAG,
	 .at = offsetof(struct sites_options, on),
	 .help = "switch the sites on, every event"},
	{.name = "off",
	 .type = OPTION_FLAG,
	 .at = offsetof(struct sites_options, off),
	 .help = "switch the sites off"},
	{.name = "throttle",
	 .type = OPTION_COUNT,
	 .at = offsetof(struct sites_options, throttle),
	 .value = "N",
	 .help = "keep one event of N; N is a power of two",
	 .min = 2,
	 .max = THROTTLE_MAX},
	{.name = "stack",
	 .type = OPTION_FLAG,
	 .at = offsetof(struct sites_options, stack),
	 .help = "on, and with each event the stack it comes from; also with --throttle"},
	{.name = "json",
	 .type = OPTION_FLAG,
	 .at = offsetof(struct sites_options, json),
	 .help = "print JSON"},
	{0},
};

static bool wants_switch(const struct sites_options *o)
{
	return o->on || o->off || o->throttle || o->stack;
}

struct process_sites {
	const struct dc_ring *ring;
	struct dc_schema *schema;
	struct dc_ring_control *control;
};

static void process_sites_cleanup(struct process_sites *p)
{
	dc_schema_free(p->schema);
	free(p->control);
}

static int process_sites_load(const struct dc_ring *ring, struct process_sites *p)
{
	CLEANUP(dc_ring_tables) struct dc_ring_tables tables = {0};
	int r;

	p->ring = ring;
	r = dc_ring_tables(ring, &tables);
	if (r == 0)
		r = dc_schema_new(dc_ring_tables_sites(&tables), tables.counts.site_count,
				  dc_ring_tables_strings(&tables), tables.counts.strings_bytes, &p->schema);
	if (r == 0)
		r = dc_ring_control(ring, &p->control);
	return r;
}

static bool matches(const struct operands *globs, const char *name)
{
	for (unsigned i = 0; i < globs->count; i++)
		if (fnmatch(globs->items[i], name, 0) == 0)
			return true;
	return globs->count == 0;
}

static struct text switch_text(uint32_t word)
{
	const char *stack = word & DC_ENABLE_STACK ? ", with stacks" : "";

	if (word & DC_ENABLE_OFF)
		return text_format("off");
	if (DC_ENABLE_THROTTLE_OF(word))
		return text_format("one of %u%s", 1u << DC_ENABLE_THROTTLE_OF(word), stack);
	return text_format("on%s", stack);
}

static void list_text(const struct process_sites *p, const struct operands *globs, struct table *t)
{
	for (uint32_t id = 1; id < p->schema->count; id++) {
		const struct dc_site_info *site = &p->schema->sites[id];

		if (!matches(globs, site->name))
			continue;
		table_cell(t, "%s[%u]", p->ring->header.name, ring_pid(p->ring));
		table_cell(t, "%s", site->kind == DC_KIND_LOG ? site->format : site->name);
		table_cell(t, "%s", site->kind == DC_KIND_BEGIN ? "span" : word_kind(site->kind));
		table_cell(t, "%s", switch_text(p->control->enable[id]).s);
		table_cell(t, "%s:%u", site->file, site->line);
	}
}

static void list_json(const struct process_sites *p, const struct operands *globs, struct json *j)
{
	for (uint32_t id = 1; id < p->schema->count; id++) {
		const struct dc_site_info *site = &p->schema->sites[id];
		uint32_t word = p->control->enable[id];

		if (!matches(globs, site->name))
			continue;
		json_object(j, NULL);
		json_u64(j, "pid", ring_pid(p->ring));
		json_text(j, "process", p->ring->header.name);
		json_u64(j, "id", id);
		json_text(j, "name", site->name);
		json_text(j, "kind", site->kind == DC_KIND_BEGIN ? "span" : word_kind(site->kind));
		if (site->kind == DC_KIND_LOG)
			json_text(j, "format", site->format);
		json_text(j, "file", site->file);
		json_u64(j, "line", site->line);
		json_bool(j, "on", !(word & DC_ENABLE_OFF));
		json_u64(j, "one_of", UINT64_C(1) << DC_ENABLE_THROTTLE_OF(word));
		json_bool(j, "stack", word & DC_ENABLE_STACK);
		json_array(j, "args");
		for (unsigned i = 0; i < site->arg_count && i < DC_ARG_MAX; i++)
			json_text(j, NULL, site->keys[i] ? site->keys[i] : "");
		json_end(j);
		json_end(j);
	}
}

/* The word to store: what is not ours to switch (DC_ENABLE_STOPPED is dc_stop()'s) stays. */
static uint32_t switched(const struct sites_options *o, uint32_t word)
{
	word &= ~(DC_ENABLE_OFF | DC_ENABLE_STACK | DC_ENABLE_THROTTLE(31));
	if (o->stack)
		word |= DC_ENABLE_STACK;
	if (o->off)
		word |= DC_ENABLE_OFF;
	else if (o->throttle)
		word |= DC_ENABLE_THROTTLE(__builtin_ctzll(o->throttle));
	return word;
}

static int switch_sites(const struct process_sites *p, const struct sites_options *o,
			const struct operands *globs)
{
	unsigned count = 0;
	int r = 0;

	for (uint32_t id = 1; r == 0 && id < p->schema->count && id < DC_SITE_MAX; id++) {
		if (!matches(globs, p->schema->sites[id].name))
			continue;
		r = dc_ring_set_enable(p->ring, id, switched(o, p->control->enable[id]));
		count += r == 0;
	}
	if (r == -EROFS || r == -EACCES || r == -EPERM)
		return failure("%s[%u]: only its user and root may switch its sites", p->ring->header.name,
			       ring_pid(p->ring));
	if (r < 0)
		return failure("%s[%u]: %s", p->ring->header.name, ring_pid(p->ring), strerror(-r));
	printf("%s[%u]: %u of %u sites switched %s\n", p->ring->header.name, ring_pid(p->ring), count,
	       p->schema->count ? p->schema->count - 1 : 0, switch_text(switched(o, 0)).s);
	return EXIT_OK;
}

struct listing {
	struct table table;
	struct json json;
};

static int one_process(const struct sites_options *o, const struct operands *globs,
		       const struct dc_ring *ring, struct listing *listing)
{
	CLEANUP(process_sites) struct process_sites p = {0};
	int r = process_sites_load(ring, &p);

	if (r < 0)
		return failure("%s[%u]: cannot read its sites: %s", ring->header.name, ring_pid(ring),
			       strerror(-r));
	if (wants_switch(o))
		return switch_sites(&p, o, globs);
	if (o->json)
		list_json(&p, globs, &listing->json);
	else
		list_text(&p, globs, &listing->table);
	return EXIT_OK;
}

static int check_usage(const struct sites_options *o, const struct operands *globs)
{
	if (o->on + o->off + (o->throttle > 0 || o->stack) > 1)
		return usage_error("--on, --off and --throttle exclude each other, and --stack goes with --throttle only");
	if (wants_switch(o) && globs->count == 0)
		return usage_error("which sites? give their names, or '*' for all");
	if (o->throttle & (o->throttle - 1))
		return usage_error("--throttle: '%llu' is not a power of two",
				   (unsigned long long)o->throttle);
	return EXIT_OK;
}

static int sites_run(const void *options, const struct operands *operands)
{
	const struct sites_options *o = options;
	CLEANUP(ring_list) struct ring_list list = {0};
	bool listing_wanted = !wants_switch(o);
	struct listing listing;
	int r, status = EXIT_OK;

	r = check_usage(o, operands);
	if (r == EXIT_OK)
		r = ring_list_load(&o->rings, &list);
	if (r != EXIT_OK)
		return r;
	if (list.count == 0)
		return failure("no such process records in '%s'", list.dir);
	table_init(&listing.table, "PROCESS|SITE|KIND|STATE|WHERE|");
	json_init(&listing.json, stdout, true);
	if (listing_wanted && o->json)
		json_array(&listing.json, NULL);
	for (unsigned i = 0; i < list.count; i++) {
		r = one_process(o, operands, list.rings[i].ring, &listing);
		status = r != EXIT_OK ? r : status;
	}
	if (listing_wanted && o->json)
		json_end(&listing.json);
	if (table_print(&listing.table, listing_wanted && !o->json ? stdout : NULL) < 0)
		return failure("out of memory");
	return status;
}

const struct command cmd_sites = {
	.name = "sites",
	.summary = "list the places in the code that record; switch them on or off",
	.usage = "[GLOB...]",
	.about = "Lists the sites of the recording processes: name, kind, state, and where in the source "
		 "they are. "
		 "With --on, --off, --throttle or --stack, switches the sites whose name matches one of the globs, at "
		 "once and "
		 "without stopping anybody. "
		 "A site shows up when it has recorded for the first time; one that shows up later is on.",
	.examples =
		"dashcam sites --pid 4240 'cache.*' --off\tcache events are too many and not interesting\n"
		"dashcam sites 'http.*' --throttle 16\tkeep one of sixteen\n"
		"dashcam sites 'lock.wait' --stack\twho waits, from where\n"
		"dashcam sites '*' --on\teverything as it was\n",
	.see_also = "status",
	.options = sites_option_table,
	.options_size = sizeof(struct sites_options),
	.operand = OPERAND_GLOB,
	.operands_max = 64,
	.run = sites_run,
};
