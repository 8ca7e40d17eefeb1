/* SPDX-License-Identifier: MIT */
/* dashcam settle: makes captures small, in place. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#include "ipc/cleanup.h"
#include "persist/store.h"
#include "persist/writer.h"
#include "tools/commands.h"
#include "tools/json.h"
#include "tools/open.h"
#include "tools/places.h"
#include "tools/stores.h"
#include "tools/text.h"

struct settle_options {
	uint64_t level;
	bool json;
};

static const struct option settle_option_table[] = {
	{.name = "level",
	 .type = OPTION_COUNT,
	 .at = offsetof(struct settle_options, level),
	 .value = "N",
	 .help = "how hard to compress, as with zstd",
	 .fallback = "3",
	 .min = 1,
	 .max = 19},
	{.name = "json",
	 .type = OPTION_FLAG,
	 .at = offsetof(struct settle_options, json),
	 .help = "print JSON"},
	{0},
};

struct settling {
	const struct settle_options *options;
	struct json json;
	unsigned settled, failed, damaged, total;
};

static inline void closedir_cleanup(DIR **d)
{
	if (*d)
		closedir(*d);
}

static void report(struct settling *s, const char *path, bool already, uint64_t before, uint64_t after,
		   const struct dc_settle_result *result)
{
	const bool damaged = capture_check(path) != EXIT_OK;

	s->damaged += damaged;
	if (s->options->json) {
		json_object(&s->json, NULL);
		json_text(&s->json, "path", path);
		json_bool(&s->json, "already", already);
		json_bool(&s->json, "damaged", damaged);
		json_u64(&s->json, "bytes_before", before);
		json_u64(&s->json, "bytes", after);
		json_u64(&s->json, "stacks", result->unwound);
		json_u64(&s->json, "unwind_cpu_us", (uint64_t)result->unwind_cpu_ns / 1000);
		json_u64(&s->json, "name_cpu_us", (uint64_t)result->name_cpu_ns / 1000);
		json_end(&s->json);
	} else if (!already) {
		text_print(stdout, path, strlen(path));
		printf(": %s, was %s\n", text_bytes(after).s, text_bytes(before).s);
	}
}

static uint64_t size_of(int dir_fd, const char *name)
{
	struct stat st;

	return fstatat(dir_fd, name, &st, 0) == 0 ? (uint64_t)st.st_size : 0;
}

static void settle_one(struct settling *s, int dir_fd, const char *name, const char *path)
{
	uint64_t before = size_of(dir_fd, name);
	CLEANUP(close_fd) int names_fd = dc_store_names(dir_fd);
	const struct dc_settle_options options = {.zstd_level = (int)s->options->level, .resolve = {.cache_fd = names_fd}};
	struct dc_settle_result result = {0};
	int r = dc_settle(dir_fd, name, &options, &result);

	s->total++;
	if (r >= 0) {
		s->settled += r == 0;
		if (result.why[0])
			say("'%s': stacks: %s", path, result.why);
		report(s, path, r > 0, before, size_of(dir_fd, name), &result);
		return;
	}
	s->failed++;
	if (r == -ENODATA || r == -EBADMSG)
		say("'%s' is not a capture, or too damaged to be settled; it stays as it is", path);
	else if (r == -EPROTONOSUPPORT)
		say("'%s' is of a newer format: settle it with a newer dashcam; it stays as it is", path);
	else
		say("'%s': %s; it stays as it is", path, strerror(-r));
}

static bool is_capture_name(const char *name)
{
	size_t length = strlen(name);

	return length > 5 && strcmp(name + length - 5, ".dcap") == 0;
}

/* A directory of captures, and those of each user below it. */
static void settle_dir(struct settling *s, const char *path, bool below)
{
	CLEANUP(closedir) DIR *dir = opendir(path);
	struct dirent *entry;
	char child[PATH_MAX];

	if (!dir) {
		s->failed++;
		say("'%s': %s", path, strerror(errno));
		return;
	}
	while ((entry = readdir(dir))) {
		struct stat st;

		if (entry->d_name[0] == '.' ||
		    fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
		    snprintf(child, sizeof(child), "%s/%s", path, entry->d_name) >= (int)sizeof(child))
			continue;
		if (S_ISREG(st.st_mode) && is_capture_name(entry->d_name))
			settle_one(s, dirfd(dir), entry->d_name, child);
		else if (S_ISDIR(st.st_mode) && below)
			settle_dir(s, child, false);
	}
}

static void settle_operand(struct settling *s, const char *name)
{
	char path[PATH_MAX], copy[PATH_MAX];
	CLEANUP(close_fd) int fd = -1;
	struct stat st;
	int r = stores_find(NULL, name, path);

	if (r < 0 || stat(path, &st) < 0) {
		s->failed++;
		if (r == -ENOENT)
			say("'%s': no such file; 'dashcam ls' lists the captures", path);
		else
			say("'%s': %s", path, strerror(r < 0 ? -r : errno));
		return;
	}
	if (S_ISDIR(st.st_mode)) {
		settle_dir(s, path, true);
		return;
	}
	fd = open(dirname(strcpy(copy, path)), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) {
		s->failed++;
		say("'%s': %s", path, strerror(errno));
		return;
	}
	settle_one(s, fd, basename(strcpy(copy, path)), path);
}

static int settle_run(const void *options, const struct operands *operands)
{
	const struct settle_options *o = options;
	struct settling s = {.options = o};
	char place[PLACE_BYTES];

	json_init(&s.json, stdout, true);
	if (o->json)
		json_array(&s.json, NULL);
	for (unsigned i = 0; i < operands->count; i++)
		settle_operand(&s, operands->items[i]);
	if (operands->count == 0 && place_captures(place) == 0 && access(place, F_OK) == 0)
		settle_operand(&s, place);
	if (o->json)
		json_end(&s.json);
	else if (s.settled + s.failed + s.damaged == 0)
		puts(s.total > 0 ? "Everything is settled already." : "There is no capture to settle.");
	return s.failed > 0 ? EXIT_FAILED : s.damaged > 0 ? EXIT_DAMAGED : EXIT_OK;
}

const struct command cmd_settle = {
	.name = "settle",
	.summary = "make captures small, in place",
	.usage = "[FILE|DIR...]",
	.about = "Turns raw captures into settled ones: the same events in columns, compressed, with an "
		 "index. "
		 "A directory stands for all captures in it; without an argument, all yours are settled. "
		 "The new file replaces the old one when it is whole and on disk; whatever goes wrong, the "
		 "old one stays.\n\n"
		 "A watcher does the same by itself when there is time.",
	.exit_status = "0 when all went well, 1 when one could not be settled, 2 when one is damaged (what is whole is settled), 64 "
		       "when the arguments were wrong.",
	.examples = "dashcam settle --level 15 keep/\tas small as it gets\n",
	.see_also = "info ls watch",
	.options = settle_option_table,
	.options_size = sizeof(struct settle_options),
	.operand = OPERAND_CAPTURES,
	.operands_max = 4096,
	.run = settle_run,
};
