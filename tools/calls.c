/* SPDX-License-Identifier: MIT */
#include "tools/calls.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "tools/text.h"

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash && slash[1] ? slash + 1 : path;
}

static const char *module_of(const struct dc_stacks *s, const struct dc_frame *f)
{
	struct dc_map_view map;

	if (f->flags & DC_FRAME_KERNEL)
		return "[kernel]";
	if (f->map == UINT32_MAX)
		return "";
	map = dc_stacks_map(s, f->map);
	if (map.entry && map.entry->flags & DC_MAP_VDSO)
		return "[vdso]";
	return base_name(map.path);
}

static int unnamed(const struct dc_frame *f, struct call *c, int (*each)(void *arg, const struct call *c), void *arg)
{
	char text[320];

	if (*c->module)
		snprintf(text, sizeof(text), "%.255s+0x%" PRIx64, c->module, f->offset);
	else
		snprintf(text, sizeof(text), "0x%" PRIx64, f->address);
	c->function = text;
	return each(arg, c);
}

int calls_of_frame(const struct dc_stacks *s, const struct dc_frame *f, uint32_t number,
		   int (*each)(void *arg, const struct call *c), void *arg)
{
	struct call c = {.frame = number,
			 .file = "",
			 .module = module_of(s, f),
			 .kernel = f->flags & DC_FRAME_KERNEL,
			 .signal = f->flags & DC_FRAME_SIGNAL};
	uint32_t name = f->name;
	int r = 0;

	if (!*dc_stacks_name(s, name).function)
		return unnamed(f, &c, each, arg);
	c.named = true;
	for (unsigned i = 0; name && i < DC_STACKS_INLINE_MAX && r == 0; i++) {
		const struct dc_name_view v = dc_stacks_name(s, name);

		c.function = *v.function ? v.function : "?";
		c.file = v.file;
		c.line = v.line;
		c.inlined = v.outer != 0;
		r = each(arg, &c);
		name = v.outer;
	}
	return r;
}

/* From the frame at @place on. */
static int each_from(const struct dc_stacks *s, uint32_t stack, uint32_t place,
		     int (*each)(void *arg, const struct call *c), void *arg)
{
	const uint32_t *numbers;
	const uint32_t n = dc_stacks_frames(s, stack, &numbers);
	int r = 0;

	for (uint32_t i = place; i < n && r == 0; i++) {
		const struct dc_frame *f = dc_stacks_frame(s, numbers[i]);

		if (f)
			r = calls_of_frame(s, f, numbers[i], each, arg);
	}
	return r;
}

int calls_each(const struct dc_stacks *s, uint32_t stack, int (*each)(void *arg, const struct call *c), void *arg)
{
	return each_from(s, stack, 0, each, arg);
}

int calls_each_from(const struct dc_stacks *s, uint32_t stack, uint64_t address,
		    int (*each)(void *arg, const struct call *c), void *arg)
{
	const uint32_t *numbers;
	const uint32_t n = dc_stacks_frames(s, stack, &numbers);

	for (uint32_t i = 0; i < n; i++) {
		const struct dc_frame *f = dc_stacks_frame(s, numbers[i]);

		if (f && f->address == address && (f->flags & DC_FRAME_CALL))
			return each_from(s, stack, i, each, arg);
	}
	return -ENOENT;
}

/* --- as text --- */

struct printing {
	FILE *out;
	const char *lead;
	unsigned max;
	unsigned count;
};

static void put(FILE *out, const char *text)
{
	text_print(out, text, strlen(text));
}

static void print_whole(FILE *out, const struct call *c)
{
	put(out, c->function);
	if (c->line)
		fputs(" (", out), put(out, base_name(c->file)), fprintf(out, ":%u)", c->line);
	if (c->inlined)
		fputs(" [inlined]", out);
	else if (c->named && *c->module)
		fputs("  ", out), put(out, c->module);
	if (c->signal)
		fputs("  <signal handler called>", out);
}

static int print_call(void *arg, const struct call *c)
{
	struct printing *p = arg;

	if (p->max && p->count == p->max) {
		fprintf(p->out, "%s...\n", p->lead);
		return 1;
	}
	fputs(p->lead, p->out);
	print_whole(p->out, c);
	putc('\n', p->out);
	p->count++;
	return 0;
}

void calls_print(FILE *out, const struct dc_stacks *s, uint32_t stack, const char *lead, unsigned max)
{
	struct printing p = {.out = out, .lead = lead, .max = max};

	calls_each(s, stack, print_call, &p);
}

int calls_line_add(void *arg, const struct call *c)
{
	struct calls_line *l = arg;
	const bool more = l->max && l->count == l->max;

	fputs(l->count ? " <- " : "", l->out);
	put(l->out, more ? "..." : c->function);
	l->count++;
	return more;
}

void calls_line(FILE *out, const struct dc_stacks *s, uint32_t stack, unsigned max)
{
	struct calls_line l = {.out = out, .max = max};

	calls_each(s, stack, calls_line_add, &l);
}

static int json_call(void *arg, const struct call *c)
{
	struct json *j = arg;

	json_object(j, NULL);
	json_text(j, "function", c->function);
	if (*c->file)
		json_text(j, "file", c->file);
	if (c->line)
		json_u64(j, "line", c->line);
	if (*c->module)
		json_text(j, "module", c->module);
	if (c->inlined)
		json_bool(j, "inlined", true);
	json_end(j);
	return 0;
}

void calls_json(struct json *j, const char *key, const struct dc_stacks *s, uint32_t stack)
{
	json_array(j, key);
	calls_each(s, stack, json_call, j);
	json_end(j);
}

struct finding {
	char *text;
	size_t size;
	bool any;
};

static bool is_library(const char *module)
{
	return strncmp(module, "libc.", 5) == 0 || strncmp(module, "libc-", 5) == 0 || strncmp(module, "ld-", 3) == 0 ||
	       strncmp(module, "libpthread", 10) == 0 || strncmp(module, "libstdc++", 9) == 0 || module[0] == '[';
}

static int find_where(void *arg, const struct call *c)
{
	struct finding *f = arg;

	if (c->kernel)
		return 0;
	if (!f->any || !is_library(c->module))
		snprintf(f->text, f->size, "%s", c->function);
	f->any = true;
	return !is_library(c->module);
}

void calls_where(const struct dc_stacks *s, uint32_t stack, char *ret_text, size_t size)
{
	struct finding f = {.text = ret_text, .size = size};

	*ret_text = 0;
	calls_each(s, stack, find_where, &f);
}
