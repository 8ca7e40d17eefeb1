/* SPDX-License-Identifier: MIT */
/* dashcam ls, keep, rm: the captures one has. */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <string.h>
#include <sys/stat.h>

#include "ipc/cleanup.h"
#include "persist/store.h"
#include "tools/commands.h"
#include "tools/json.h"
#include "tools/stores.h"
#include "tools/text.h"
#include "tools/words.h"

struct ls_options {
	const char *store;
	bool json;
};

static const struct option ls_option_table[] = {
	{.name = "store",
	 .type = OPTION_DIR,
	 .at = offsetof(struct ls_options, store),
	 .value = "DIR",
	 .help = "list the captures in DIR, such as was given to run or watch by --out"},
	{.name = "json", .type = OPTION_FLAG, .at = offsetof(struct ls_options, json), .help = "print JSON"},
	{0},
};

struct stored {
	char *dir; /* shared by the entries of a directory: that of the first one owns it */
	bool owns_dir;
	struct dc_store_entry entry;
};

struct stored_list {
	unsigned count;
	struct stored *items;
	const char *asked; /* --store: it has to exist */
};

static void stored_list_cleanup(struct stored_list *l)
{
	for (unsigned i = 0; i < l->count; i++)
		if (l->items[i].owns_dir)
			free(l->items[i].dir);
	free(l->items);
}

static int add_entries(struct stored_list *l, const char *dir, const struct dc_store_entry *entries,
		       unsigned count)
{
	struct stored *items = count ? realloc(l->items, (l->count + count) * sizeof(*items)) : l->items;
	char *copy = count ? strdup(dir) : NULL;

	if (items)
		l->items = items;
	if (count && (!items || !copy)) {
		free(copy);
		return -ENOMEM;
	}
	for (unsigned i = 0; i < count; i++)
		l->items[l->count++] = (struct stored){.dir = copy, .owns_dir = i == 0, .entry = entries[i]};
	return 0;
}

/* One that cannot be read is said and passed over, unless it is the one that was asked for. */
static int load_dir(void *arg, const char *dir)
{
	CLEANUP(close_fd) int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CLEANUP(free) struct dc_store_entry *entries = NULL;
	struct stored_list *l = arg;
	unsigned count = 0;
	int r = fd < 0 ? -errno : dc_store_list(fd, &entries, &count);

	if (r == 0)
		return add_entries(l, dir, entries, count);
	say("'%s': %s", dir, strerror(-r));
	return l->asked && strcmp(l->asked, dir) == 0 ? r : 0;
}

static int newest_first(const void *a, const void *b)
{
	const struct dc_store_entry *x = &((const struct stored *)a)->entry,
				    *y = &((const struct stored *)b)->entry;

	if (x->at_ns != y->at_ns)
		return x->at_ns < y->at_ns ? 1 : -1;
	return strcmp(x->name, y->name);
}

static void ls_json(const struct stored_list *l)
{
	struct json j;

	json_init(&j, stdout, true);
	json_array(&j, NULL);
	for (unsigned i = 0; i < l->count; i++) {
		const struct dc_store_entry *e = &l->items[i].entry;

		json_object(&j, NULL);
		json_text(&j, "name", e->name);
		json_text(&j, "directory", l->items[i].dir);
		json_text(&j, "time", text_rfc3339(e->at_ns).s);
		json_text(&j, "reason", *e->text ? e->text : word_cause(e->reason));
		json_text(&j, "cause", e->damaged ? "unknown" : word_cause(e->reason));
		json_text(&j, "rule", e->rule);
		if (e->unit != DC_UNIT_NONE) {
			json_f64(&j, "value", e->value);
			json_f64(&j, "threshold", e->threshold);
			json_text(&j, "unit", word_unit(e->unit));
		}
		json_u64(&j, "severity", e->severity);
		json_u64(&j, "bytes", e->bytes);
		json_u64(&j, "uid", e->uid);
		json_bool(&j, "settled", e->settled);
		json_bool(&j, "damaged", e->damaged && !e->newer);
		if (e->newer)
			json_bool(&j, "newer", true);
		json_bool(&j, "kept", e->kept);
		json_end(&j);
	}
	json_end(&j);
}

static int ls_text(const struct stored_list *l)
{
	struct table t;
	uint64_t bytes = 0;
	int r;

	if (l->count == 0) {
		puts("There are no captures.");
		return 0;
	}
	table_init(&t, "WHEN|SIZE>|STATE|NAME|REASON|");
	for (unsigned i = 0; i < l->count; i++) {
		const struct dc_store_entry *e = &l->items[i].entry;

		bytes += e->bytes;
		table_cell(&t, "%s", text_day(e->at_ns).s);
		table_cell(&t, "%s", text_bytes(e->bytes).s);
		table_cell(&t, "%s%s",
			   e->newer     ? "newer format"
			   : e->damaged ? "damaged"
			   : e->settled ? "settled"
					: "raw",
			   e->kept ? ", kept" : "");
		table_cell(&t, "%s", e->name);
		table_cell(&t, "%s", *e->text ? e->text : e->damaged ? "" : word_cause(e->reason));
	}
	r = table_print(&t, stdout);
	if (r == 0)
		printf("\n%u capture%s, %s, in %s%s\n", l->count, l->count == 1 ? "" : "s", text_bytes(bytes).s, l->items[0].dir,
		       strcmp(l->items[0].dir, l->items[l->count - 1].dir) == 0 ? "" : " and others");
	return r;
}

static int ls_run(const void *options, const struct operands *operands)
{
	const struct ls_options *o = options;
	CLEANUP(stored_list) struct stored_list list = {.asked = o->store};
	int r;

	(void)operands;
	r = stores_each(o->store, load_dir, &list);
	if (r == -ENOMEM)
		return failure("out of memory");
	if (r < 0)
		return EXIT_FAILED;
	if (list.count > 0)
		qsort(list.items, list.count, sizeof(*list.items), newest_first);
	if (o->json)
		ls_json(&list);
	else if (ls_text(&list) < 0)
		return failure("out of memory");
	return EXIT_OK;
}

const struct command cmd_ls = {
	.name = "ls",
	.summary = "list the captures, newest first",
	.usage = "",
	.about = "Lists your captures, newest first: when, how large, raw or settled, the name to use with "
		 "the other commands, "
		 "and why it was saved: of a rule its name and the value that made it true. "
		 "Root sees those of all users.",
	.examples = "dashcam ls --json | jq -r '.[0] | .directory + \"/\" + .name'\tthe path of the newest\n",
	.see_also = "info keep rm settle show why",
	.options = ls_option_table,
	.options_size = sizeof(struct ls_options),
	.run = ls_run,
};

struct keep_options {
	const char *store;
	bool undo;
};

struct rm_options {
	const char *store;
	bool force;
};

static const struct option keep_option_table[] = {
	{.name = "undo",
	 .type = OPTION_FLAG,
	 .at = offsetof(struct keep_options, undo),
	 .help = "take the mark away"},
	{.name = "store",
	 .type = OPTION_DIR,
	 .at = offsetof(struct keep_options, store),
	 .value = "DIR",
	 .help = "look for names in DIR"},
	{0},
};

static const struct option rm_option_table[] = {
	{.name = "force",
	 .letter = 'f',
	 .type = OPTION_FLAG,
	 .at = offsetof(struct rm_options, force),
	 .help = "remove kept ones too"},
	{.name = "store",
	 .type = OPTION_DIR,
	 .at = offsetof(struct rm_options, store),
	 .value = "DIR",
	 .help = "look for names in DIR"},
	{0},
};

/* A capture taken apart into directory and name; what is no capture by its name is refused. */
struct target {
	char path[PATH_MAX];
	char split[PATH_MAX];
	char *name;
	int dir_fd;
};

static void target_cleanup(struct target *t)
{
	if (t->dir_fd >= 0)
		close(t->dir_fd);
}

static int target_open(struct target *t, const char *store, const char *operand)
{
	struct stat st;
	size_t length;
	int r = stores_find(store, operand, t->path);

	t->dir_fd = -1;
	if (r == -ENOENT)
		return failure("'%s': no such capture; 'dashcam ls' lists them", operand);
	if (r < 0)
		return failure("'%s': %s", operand, strerror(-r));
	length = strlen(t->path);
	if (stat(t->path, &st) == 0 && S_ISDIR(st.st_mode))
		return failure("'%s' is a directory, expected a capture file (.dcap)", t->path);
	if (length < 6 || strcmp(t->path + length - 5, ".dcap") != 0)
		return failure("'%s' is not a capture, expected a name that ends in .dcap", t->path);
	t->name = strrchr(t->path, '/') ? strrchr(t->path, '/') + 1 : t->path;
	strcpy(t->split, t->path);
	t->dir_fd = open(dirname(t->split), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return t->dir_fd < 0 ? failure("'%s': %s", t->split, strerror(errno)) : EXIT_OK;
}

static int keep_one(const struct keep_options *o, const char *operand)
{
	CLEANUP(target) struct target t;
	int r = target_open(&t, o->store, operand);

	if (r != EXIT_OK)
		return r;
	r = dc_store_keep(t.dir_fd, t.name, !o->undo);
	return r < 0 ? failure("'%s': %s", t.path, strerror(-r)) : EXIT_OK;
}

static int keep_run(const void *options, const struct operands *operands)
{
	int status = EXIT_OK;

	for (unsigned i = 0; i < operands->count; i++)
		status |= keep_one(options, operands->items[i]);
	return status;
}

const struct command cmd_keep = {
	.name = "keep",
	.summary = "mark captures so that no disk budget removes them",
	.usage = "NAME...",
	.about = "Marks captures, by name or path. "
		 "A watcher that has to make room removes others; 'dashcam rm' asks for --force.",
	.examples = "dashcam keep --undo NAME\tit may go again\n",
	.see_also = "ls rm watch",
	.options = keep_option_table,
	.options_size = sizeof(struct keep_options),
	.operand = OPERAND_CAPTURES,
	.operands_min = 1,
	.operands_max = 4096,
	.run = keep_run,
};

static bool is_kept(const struct target *t)
{
	char mark[NAME_MAX + 8];

	return snprintf(mark, sizeof(mark), "%s.keep", t->name) < (int)sizeof(mark) &&
	       faccessat(t->dir_fd, mark, F_OK, 0) == 0;
}

static int rm_one(const struct rm_options *o, const char *operand)
{
	CLEANUP(target) struct target t;
	int r = target_open(&t, o->store, operand);

	if (r != EXIT_OK)
		return r;
	if (is_kept(&t) && !o->force)
		return failure("'%s' is kept, it stays; --force removes it", t.path);
	r = dc_store_remove(t.dir_fd, t.name);
	return r < 0 ? failure("'%s': %s", t.path, strerror(-r)) : EXIT_OK;
}

static int rm_run(const void *options, const struct operands *operands)
{
	int status = EXIT_OK;

	for (unsigned i = 0; i < operands->count; i++)
		status |= rm_one(options, operands->items[i]);
	return status;
}

const struct command cmd_rm = {
	.name = "rm",
	.summary = "remove captures",
	.usage = "NAME...",
	.about = "Removes captures, by name or path, with their marks. Kept ones stay unless --force is "
		 "given.",
	.see_also = "keep ls",
	.options = rm_option_table,
	.options_size = sizeof(struct rm_options),
	.operand = OPERAND_CAPTURES,
	.operands_min = 1,
	.operands_max = 4096,
	.run = rm_run,
};
