/* SPDX-License-Identifier: MIT */
/* dashcam scrub: removes named arguments from a capture before it is given away. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <string.h>

#include "persist/scrub.h"
#include "tools/commands.h"
#include "tools/json.h"
#include "tools/open.h"
#include "tools/stores.h"
#include "tools/text.h"

struct scrub_options {
	struct texts args;
	bool json;
};

static const struct option scrub_option_table[] = {
	{.name = "arg",
	 .letter = 'a',
	 .type = OPTION_TEXTS,
	 .at = offsetof(struct scrub_options, args),
	 .value = "NAME",
	 .help = "remove arguments of this name; may be given several times"},
	{.name = "json",
	 .type = OPTION_FLAG,
	 .at = offsetof(struct scrub_options, json),
	 .help = "print JSON"},
	{0},
};

static bool capture_has_key(const struct dc_capture *c, const char *key)
{
	for (unsigned p = 0; p < dc_capture_process_count(c); p++) {
		const struct dc_schema *schema = dc_capture_schema(c, p);

		for (uint32_t id = 0; id < schema->count; id++)
			for (unsigned i = 0; i < schema->sites[id].arg_count && i < DC_ARG_MAX; i++)
				if (schema->sites[id].keys[i] && strcmp(schema->sites[id].keys[i], key) == 0)
					return true;
	}
	return false;
}

/* A name that nothing has is more likely mistyped than absent, and its owner would believe the secret gone. */
static int check_keys(const char *path, const struct texts *keys)
{
	CLEANUP(dc_capture) struct dc_capture *c = NULL;
	int r = capture_open(path, &c);

	for (unsigned i = 0; r == EXIT_OK && i < keys->count; i++)
		if (!capture_has_key(c, keys->items[i]))
			r = failure("no site has an argument '%s'; nothing was changed", keys->items[i]);
	return r;
}

static int report(const struct scrub_options *o, const char *path, const struct dc_scrub_totals *t)
{
	struct json j;

	if (t->chunks_cut)
		say("'%s': %" PRIu64 " chunks held something that does not parse, which is gone too", path,
		    t->chunks_cut);
	if (t->blocks_left_out)
		say("'%s': %" PRIu64 " blocks could not be looked into and are left out", path,
		    t->blocks_left_out);
	if (!o->json) {
		printf("%s arguments removed\n", text_count(t->arguments).s);
		return EXIT_OK;
	}
	json_init(&j, stdout, true);
	json_object(&j, NULL);
	json_text(&j, "path", path);
	json_u64(&j, "arguments", t->arguments);
	json_u64(&j, "chunks_cut", t->chunks_cut);
	json_u64(&j, "blocks_left_out", t->blocks_left_out);
	json_end(&j);
	return EXIT_OK;
}

static int scrub(const struct scrub_options *o, const char *path)
{
	CLEANUP(close_fd) int fd = -1;
	struct dc_scrub_totals totals = {0};
	char directory[PATH_MAX], name[PATH_MAX];
	int r;

	snprintf(directory, sizeof(directory), "%s", path);
	snprintf(name, sizeof(name), "%s", path);
	fd = open(dirname(directory), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return failure("'%s': %s", path, strerror(errno));
	r = dc_scrub(fd, basename(name), o->args.items, o->args.count, &totals);
	if (r == -EINVAL)
		return failure("'%s': expected a name that ends in .dcap", path);
	if (r < 0)
		return failure("'%s': %s; it stays as it is", path, strerror(-r));
	return report(o, path, &totals);
}

static int scrub_run(const void *options, const struct operands *operands)
{
	const struct scrub_options *o = options;
	char path[PATH_MAX];
	int r;

	if (o->args.count == 0)
		return usage_error("which arguments? name them: --arg NAME");
	stores_find(NULL, operands->items[0], path);
	r = check_keys(path, &o->args);
	if (r == EXIT_OK)
		r = scrub(o, path);
	return r == EXIT_OK ? capture_check(path) : r;
}

const struct command cmd_scrub = {
	.name = "scrub",
	.summary = "remove named arguments from a capture",
	.usage = "FILE",
	.about = "Rewrites a capture without the arguments of the names given, in all processes and open "
		 "spans. "
		 "The events stay, and say that an argument was dropped; its bytes are nowhere in the new "
		 "file, which takes the "
		 "old one's place when it is whole and on disk. "
		 "Arguments of a log line have no names and stay. "
		 "Arguments whose names were not recorded, because a program had too many sites, are removed "
		 "as well.\n\n"
		 "A name that no site has is refused: most likely it is mistyped.",
	.examples = "dashcam scrub FILE --arg user --arg query\tbefore it is attached to a report\n",
	.see_also = "export info show",
	.options = scrub_option_table,
	.options_size = sizeof(struct scrub_options),
	.operand = OPERAND_CAPTURE,
	.operands_min = 1,
	.operands_max = 1,
	.run = scrub_run,
};
