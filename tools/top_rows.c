/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tools/top.h"
#include "trigger/rings.h"

#define ROWS_MAX 16384u

/* One watcher being asked, page by page. */
struct asking {
	struct top_rows *to;
	unsigned room;
	uint64_t total; /* rows it says there are */
	int64_t got;
	int error;
	const struct ring_filter *filter;
};

static int make_room(struct asking *a)
{
	struct dc_control_live *rows;

	if (a->to->count < a->room)
		return 0;
	if (a->to->count >= ROWS_MAX)
		return -ENOSPC;
	rows = reallocarray(a->to->rows, a->room + 256, sizeof(*rows));
	if (!rows)
		return -ENOMEM;
	a->to->rows = rows;
	a->room += 256;
	return 0;
}

static void each_row(void *arg, const struct dc_control_reply *reply)
{
	struct asking *a = arg;
	struct dc_control_live *row;

	if (reply->error || reply->op != DC_CONTROL_LIVE) {
		a->error = reply->error ? reply->error : -EPROTO;
		memcpy(a->to->why, reply->text, sizeof(a->to->why));
		a->to->why[sizeof(a->to->why) - 1] = '\0';
		return;
	}
	a->total = reply->events;
	if (!reply->live.pid || a->error)
		return;
	a->error = make_room(a);
	if (a->error)
		return;
	row = &a->to->rows[a->to->count++];
	*row = reply->live;
	row->name[sizeof(row->name) - 1] = row->site[sizeof(row->site) - 1] = '\0';
	a->got++;
}

static int ask_one(void *arg, uint32_t pid, const char *dir)
{
	struct asking *a = arg;
	struct dc_control_request q = {.version = DC_CONTROL_VERSION, .op = DC_CONTROL_LIVE};
	char why[DC_WHY_BYTES];
	int r = 1;

	(void)pid;
	q.pid = (uint32_t)a->filter->pid;
	q.flags = a->filter->pid || a->filter->name ? 0 : DC_CONTROL_ALL;
	if (a->filter->name)
		snprintf(q.name, sizeof(q.name), "%s", a->filter->name);
	a->got = 0;
	a->total = 1;
	for (int64_t before = -1; r > 0 && !a->error && a->got > before && (uint64_t)a->got < a->total;) {
		before = q.first = a->got;
		r = dc_control_ask(dir, &q, each_row, a, why);
	}
	if (r < 0)
		memcpy(a->to->why, why, sizeof(why));
	a->to->watchers += r > 0 && !a->error;
	return a->error == -ENOMEM ? a->error : 0;
}

/* ---- order ---- */

static const struct sort {
	const char *name;
	int key;
	size_t at; /* of a double in the row; 0: none */
} sorts[] = {
	{"rate", 'r', offsetof(struct dc_control_live, per_s)},
	{"p50", '5', offsetof(struct dc_control_live, p50_ns)},
	{"p99", 'p', offsetof(struct dc_control_live, p99_ns)},
	{"p99.9", '9', offsetof(struct dc_control_live, p999_ns)},
	{"max", 'm', offsetof(struct dc_control_live, max_ns)},
	{"open", 'o', 0},
	{"errors", 'e', offsetof(struct dc_control_live, errors_per_s)},
	{"name", 'n', 0},
};

const char *top_sort_key(int key)
{
	for (unsigned i = 0; i < sizeof(sorts) / sizeof(sorts[0]); i++)
		if (sorts[i].key == key)
			return sorts[i].name;
	return NULL;
}

static double value_of(const struct dc_control_live *row, const struct sort *by)
{
	double value;

	if (strcmp(by->name, "open") == 0)
		return row->open;
	memcpy(&value, (const char *)row + by->at, sizeof(value));
	return isnan(value) ? -1 : value;
}

/* Processes before sites; then by what was asked for, the largest first; then by name, so that rows stay where they are. */
static int compare(const void *left, const void *right, void *arg)
{
	const struct dc_control_live *a = left, *b = right;
	const struct sort *by = arg;
	int r;

	if (!a->kind != !b->kind)
		return a->kind ? 1 : -1;
	if (strcmp(by->name, "name") != 0) {
		const double x = value_of(a, by), y = value_of(b, by);

		if (x < y || x > y)
			return x < y ? 1 : -1;
	}
	r = strcmp(a->kind ? a->site : a->name, b->kind ? b->site : b->name);
	return r ? r : (a->pid > b->pid) - (a->pid < b->pid);
}

static const struct sort *sort_of(const char *name)
{
	for (unsigned i = 0; i < sizeof(sorts) / sizeof(sorts[0]); i++)
		if (strcmp(sorts[i].name, name) == 0)
			return &sorts[i];
	return &sorts[0];
}

int top_load(const struct ring_filter *filter, const char *sort, struct top_rows *ret_rows)
{
	struct asking a = {.to = ret_rows, .filter = filter};
	char dir[DC_RINGS_PATH_BYTES];
	int r = filter->dir ? 0 : dc_rings_dir(dir);

	*ret_rows = (struct top_rows){0};
	if (r < 0)
		return r;
	if (filter->dir)
		snprintf(dir, sizeof(dir), "%s", filter->dir);
	r = ask_one(&a, 0, dir);
	if (r == 0)
		r = dc_rings_each_run(dir, ask_one, &a) == -ENOMEM ? -ENOMEM : 0;
	if (r < 0)
		return r;
	if (ret_rows->count)
		qsort_r(ret_rows->rows, ret_rows->count, sizeof(*ret_rows->rows), compare,
			(void *)(uintptr_t)sort_of(sort));
	while (ret_rows->processes < ret_rows->count && !ret_rows->rows[ret_rows->processes].kind)
		ret_rows->processes++;
	return ret_rows->watchers ? 0 : -ENOENT;
}

void top_rows_cleanup(struct top_rows *t)
{
	free(t->rows);
	*t = (struct top_rows){0};
}
