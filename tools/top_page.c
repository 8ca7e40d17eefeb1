/* SPDX-License-Identifier: MIT */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/cleanup.h"
#include "ipc/event.h"
#include "tools/json.h"
#include "tools/text.h"
#include "tools/top.h"

#define NAME_LEAST 12u
#define WIDE 100u /* columns, when nobody says */
#define FIXED 60u /* what the columns beside the name take */

/* Bytes of a recorded program in so many columns, escaped, padded. Every character counts as one. */
static void cell_name(FILE *out, const char *name, unsigned width)
{
	CLEANUP(free) char *safe = NULL;
	size_t size = 0, at = 0;
	unsigned used = 0;
	FILE *f = open_memstream(&safe, &size);

	if (!f)
		return;
	text_print(f, name, strlen(name));
	if (fclose(f) != 0)
		return;
	for (; at < size && used < width; used++)
		for (at++; at < size && (safe[at] & 0xc0) == 0x80; at++)
			;
	fwrite(safe, 1, at, out);
	fprintf(out, "%*s", (int)(width - used), "");
}

static unsigned wide(const char *text)
{
	unsigned n = 0;

	for (; *text; text++)
		n += (*text & 0xc0) != 0x80;
	return n;
}

static void cell(FILE *out, const char *text, unsigned width)
{
	const unsigned used = wide(text);

	fprintf(out, " %*s%s", used < width ? (int)(width - used) : 0, "", text);
}

static struct text rate_text(double per_s)
{
	if (per_s > 0 && per_s < 10)
		return text_format("%.1f", per_s);
	return text_count((uint64_t)(per_s + 0.5));
}

static struct text span_text(double ns)
{
	return isnan(ns) ? text_format("-") : text_span((int64_t)ns);
}

static void process_heading(FILE *out, unsigned name)
{
	fprintf(out, "%-*s %6s %9s %4s %19s %9s", (int)name, "PROCESS", "PID", "EVENTS/S", "OPEN", "WINDOW", "DROPPED");
}

static void process_line(FILE *out, const struct dc_control_live *r, unsigned name)
{
	cell_name(out, r->name, name);
	cell(out, text_format("%u", r->pid).s, 6);
	cell(out, text_format("%s%s", r->flags & DC_CONTROL_LIVE_SAMPLED ? "~" : "", rate_text(r->per_s).s).s, 9);
	cell(out, text_format("%u", r->open).s, 4);
	cell(out, text_format("%s of %s", text_span(r->window_ns).s, text_span(r->wanted_window_ns).s).s, 19);
	cell(out, text_count(r->dropped).s, 9);
}

static void site_heading(FILE *out, unsigned name)
{
	fprintf(out, "%-*s %6s %9s %7s %7s %7s %7s %4s %5s", (int)name, "SPAN, EVENT", "PID", "RATE/S", "P50", "P99",
		"P99.9", "MAX", "OPEN", "ERR/S");
}

static void site_line(FILE *out, const struct dc_control_live *r, unsigned name)
{
	const double figures[] = {r->p50_ns, r->p99_ns, r->p999_ns, r->max_ns};

	cell_name(out, r->site, name);
	cell(out, text_format("%u", r->pid).s, 6);
	cell(out, text_format("%s%s", r->flags & DC_CONTROL_LIVE_SAMPLED ? "~" : "", rate_text(r->per_s).s).s, 9);
	if (r->kind == DC_KIND_COUNTER && !isnan(r->last)) {
		cell(out, text_format("last value %.10g", r->last).s, 31);
	} else {
		for (unsigned i = 0; i < 4; i++)
			cell(out, span_text(figures[i]).s, 7);
	}
	cell(out, r->kind == DC_KIND_BEGIN ? text_format("%u", r->open).s : "-", 4);
	cell(out, rate_text(r->errors_per_s).s, 5);
}

/* The first line: in all, and of a terminal what keys do. */
static void summary(FILE *out, const struct top_rows *t, const char *sort, unsigned columns, bool keys)
{
	uint64_t left_out = 0, given_up = 0;
	double per_s = 0;
	bool sampled = false;

	for (unsigned i = 0; i < t->count; i++) {
		const struct dc_control_live *r = &t->rows[i];

		sampled |= (r->flags & DC_CONTROL_LIVE_SAMPLED) != 0;
		if (r->kind)
			continue;
		per_s += r->per_s;
		left_out += r->left_out_events;
		given_up += r->given_up;
	}
	fprintf(out, "%u process%s, %s events/s, by %s", t->processes, t->processes == 1 ? "" : "es", rate_text(per_s).s, sort);
	if (sampled)
		fprintf(out, ", ~ sampled, %s left out", text_count(left_out).s);
	if (given_up)
		fprintf(out, ", %s async spans given up", text_count(given_up).s);
	if (keys && (columns > WIDE || (!sampled && !given_up)))
		fputs("   q quit; r 5 p 9 m o e n sort", out);
}

static void end_line(FILE *out, unsigned lines)
{
	fputs(lines ? "\033[K\r\n" : "\n", out); /* clears what the page before had there */
}

static unsigned at_most(unsigned a, unsigned b)
{
	return a < b ? a : b;
}

void top_page(FILE *out, const struct top_rows *t, const char *sort, unsigned columns, unsigned lines)
{
	const unsigned all = columns ? columns : WIDE, name = all > FIXED + NAME_LEAST ? all - FIXED - 1 : NAME_LEAST;
	const unsigned room = !lines ? ~0u : lines > 8 ? lines - 5 : 4, sites = t->count - t->processes;
	/* a third for the processes, or what the sites leave */
	const unsigned processes = at_most(t->processes, room - at_most(sites, room - room / 3));

	summary(out, t, sort, columns, lines != 0);
	end_line(out, lines);
	end_line(out, lines);
	process_heading(out, name);
	end_line(out, lines);
	for (unsigned i = 0; i < processes; i++) {
		process_line(out, &t->rows[i], name);
		end_line(out, lines);
	}
	end_line(out, lines);
	site_heading(out, name);
	for (unsigned i = 0; i < at_most(sites, room - processes); i++) {
		end_line(out, lines);
		site_line(out, &t->rows[t->processes + i], name);
	}
	fputs(lines ? "\033[K" : "\n", out); /* no line end below the last line: it would scroll */
}

static void figure(struct json *j, const char *key, double value, double unit)
{
	if (!isnan(value))
		json_fixed(j, key, value / unit, 3);
}

static void json_row(struct json *j, const struct dc_control_live *r)
{
	json_object(j, NULL);
	json_u64(j, "pid", r->pid);
	json_text(j, "process", r->name);
	if (r->kind)
		json_text(j, "site", r->site);
	json_fixed(j, "per_s", r->per_s, 3);
	json_bool(j, "sampled", r->flags & DC_CONTROL_LIVE_SAMPLED);
	json_u64(j, "open", r->open);
	if (r->kind) {
		json_bool(j, "span", r->kind == DC_KIND_BEGIN);
		json_fixed(j, "errors_per_s", r->errors_per_s, 3);
		figure(j, "p50_us", r->p50_ns, 1e3);
		figure(j, "p99_us", r->p99_ns, 1e3);
		figure(j, "p99_9_us", r->p999_ns, 1e3);
		figure(j, "max_us", r->max_ns, 1e3);
		figure(j, "last", r->last, 1);
	} else {
		figure(j, "window_s", (double)r->window_ns, 1e9);
		figure(j, "wanted_window_s", (double)r->wanted_window_ns, 1e9);
		json_u64(j, "dropped", r->dropped);
		json_u64(j, "left_out", r->left_out_events);
		json_u64(j, "left_out_bytes", r->left_out_bytes);
		json_u64(j, "lost_chunks", r->lost_chunks);
		json_u64(j, "async_given_up", r->given_up);
	}
	json_end(j);
}

void top_json(FILE *out, const struct top_rows *t)
{
	struct json j;

	json_init(&j, out, true);
	json_object(&j, NULL);
	json_array(&j, "processes");
	for (unsigned i = 0; i < t->processes; i++)
		json_row(&j, &t->rows[i]);
	json_end(&j);
	json_array(&j, "sites");
	for (unsigned i = t->processes; i < t->count; i++)
		json_row(&j, &t->rows[i]);
	json_end(&j);
	json_end(&j);
}
