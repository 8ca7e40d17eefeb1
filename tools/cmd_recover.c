/* SPDX-License-Identifier: MIT */
/* dashcam recover: a capture from what a program left in its ring when it died and nobody watched. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#include "tools/commands.h"
#include "tools/json.h"
#include "tools/places.h"
#include "tools/text.h"
#include "trigger/recover.h"

struct recover_options {
	const char *output;
	bool json;
};

static const struct option recover_option_table[] = {
	{.name = "output",
	 .letter = 'o',
	 .type = OPTION_FILE,
	 .at = offsetof(struct recover_options, output),
	 .value = "FILE",
	 .help = "write FILE, whose name ends in .dcap; else a name is made among your captures"},
	{.name = "json",
	 .type = OPTION_FLAG,
	 .at = offsetof(struct recover_options, json),
	 .help = "print JSON"},
	{0},
};

struct recovery {
	struct dc_save_output output;
	bool as_json;
	struct json json;
	unsigned recovered, alive;
	int status;
};

static void report(struct recovery *v, const char *ring, const struct dc_save *s)
{
	char path[PATH_MAX];

	dc_save_path(s, path, sizeof(path));
	v->recovered++;
	if (!v->as_json) {
		puts(path);
		return;
	}
	json_object(&v->json, NULL);
	json_text(&v->json, "ring", ring);
	json_text(&v->json, "path", path);
	json_u64(&v->json, "events", s->totals.events);
	json_u64(&v->json, "bytes", s->written_bytes);
	json_end(&v->json);
}

static void recover_ring(struct recovery *v, const char *path, bool one_of_many)
{
	CLEANUP(dc_save) struct dc_save *s = NULL;
	char why[DC_WHY_BYTES] = "";
	int r = dc_recover(path, &v->output, &s, why);

	if (r == 0)
		report(v, path, s);
	else if (r == -EBUSY && one_of_many)
		v->alive++;
	else if (r == -EBUSY)
		v->status = failure("'%s': its process lives; save it with 'dashcam trigger'", path);
	else
		v->status = *why ? failure("%s", why) : failure("'%s': %s", path, strerror(-r));
}

/* All rings of a directory whose owners are gone. */
static void recover_dir(struct recovery *v, const char *path)
{
	DIR *dir = opendir(path);
	struct dc_ring_name name;
	struct dirent *entry;
	char ring[PATH_MAX];

	if (!dir) {
		v->status = failure("'%s': %s", path, strerror(errno));
		return;
	}
	while ((entry = readdir(dir)))
		if (dc_ring_name_parse(entry->d_name, &name) == 0 &&
		    snprintf(ring, sizeof(ring), "%s/%s", path, entry->d_name) < (int)sizeof(ring))
			recover_ring(v, ring, true);
	closedir(dir);
	if (v->recovered == 0 && v->status == EXIT_OK)
		v->status = failure(v->alive ? "'%s': no ring of a program that is gone; save what lives with 'dashcam trigger'"
					     : "'%s': no ring of a program that is gone",
				    path);
}

static bool is_capture_name(const char *path)
{
	size_t length = strlen(path);

	return length > 5 && strcmp(path + length - 5, ".dcap") == 0;
}

/* @copies: room for what dirname() and basename() take apart. */
static int place_output(const struct recover_options *o, char copies[2][PATH_MAX], struct recovery *v)
{
	if (!o->output) {
		if (place_captures(copies[0]) < 0)
			return failure("no home directory to save captures in: give -o FILE");
		v->output.dir = copies[0];
		v->output.per_uid = geteuid() == 0;
		return EXIT_OK;
	}
	if (!is_capture_name(o->output))
		return usage_error("--output: '%s' does not end in .dcap", o->output);
	if (strlen(o->output) >= PATH_MAX)
		return failure("--output: the path is too long");
	if (access(o->output, F_OK) == 0)
		return failure("'%s' is there already, and stays; choose another name", o->output);
	v->output.dir = dirname(strcpy(copies[0], o->output));
	v->output.name = basename(strcpy(copies[1], o->output));
	return EXIT_OK;
}

static int recover_run(const void *options, const struct operands *operands)
{
	const struct recover_options *o = options;
	struct recovery v = {.as_json = o->json};
	char copies[2][PATH_MAX];
	struct stat st;
	int r;

	if (stat(operands->items[0], &st) < 0)
		return failure("'%s': %s", operands->items[0], strerror(errno));
	if (S_ISDIR(st.st_mode) && o->output)
		return usage_error("--output names one file, but '%s' is a directory of rings",
				   operands->items[0]);
	r = place_output(o, copies, &v);
	if (r != EXIT_OK)
		return r;
	json_init(&v.json, stdout, true);
	if (o->json)
		json_array(&v.json, NULL);
	if (S_ISDIR(st.st_mode))
		recover_dir(&v, operands->items[0]);
	else
		recover_ring(&v, operands->items[0], false);
	if (o->json)
		json_end(&v.json);
	return v.status;
}

const struct command cmd_recover = {
	.name = "recover",
	.summary = "save what a dead program left in its ring",
	.usage = "RING|DIR",
	.about = "Reads a ring whose process is gone, whatever it died of, and saves all that is in it as a "
		 "capture, whose path "
		 "is printed. "
		 "No watcher has to run or to have run. "
		 "A directory stands for all such rings in it. "
		 "The ring itself is not removed.\n\n"
		 "'dashcam status' lists rings of programs that died.",
	.examples = "dashcam recover /dev/shm/dashcam-1000\teverything that the dead left there\n",
	.see_also = "info status trigger",
	.options = recover_option_table,
	.options_size = sizeof(struct recover_options),
	.operand = OPERAND_RING,
	.operands_min = 1,
	.operands_max = 1,
	.run = recover_run,
};
