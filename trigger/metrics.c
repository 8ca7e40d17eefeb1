/* SPDX-License-Identifier: MIT */
/*
 * Live statistics, and how the watcher itself does, as Prometheus reads them: text format 0.0.4, all lines of a metric
 * together, each set of labels once. https://prometheus.io/docs/instrumenting/exposition_formats/
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/event.h"
#include "ipc/utf8.h"
#include "trigger/http.h"
#include "trigger/watcher_inside.h"

#define ROWS_MAX 1000u
#define LISTEN_NS (300 * SECOND_NS) /* between two visits of a collector, at most, for figures to be there */

struct rows {
	uint32_t count;
	struct dc_control_live rows[ROWS_MAX];
	uint32_t image[ROWS_MAX]; /* of the process: 0, or which further one, where it has several rings */
};

static void keep(void *arg, const struct dc_control_live *row)
{
	struct rows *r = arg;
	uint32_t image = 0;

	if (row->kind && r->count) { /* follows the row of its process */
		image = r->image[r->count - 1];
	} else {
		for (uint32_t i = 0; i < r->count; i++)
			image += !r->rows[i].kind && r->rows[i].pid == row->pid;
	}
	r->image[r->count] = image;
	r->rows[r->count++] = *row;
}

/* Any bytes as the value of a label: UTF-8, with what the format escapes; what is no text becomes an underscore. */
static void label(FILE *out, const char *name, const char *value)
{
	const size_t n = strlen(value);

	fprintf(out, "%s=\"", name);
	for (size_t i = 0; i < n;) {
		const unsigned length = utf8_length((const uint8_t *)value + i, n - i);

		if (length == 0 || (uint8_t)value[i] < ' ' || value[i] == 0x7f)
			putc('_', out);
		else if (value[i] == '\\' || value[i] == '"')
			fprintf(out, "\\%c", value[i]);
		else
			fwrite(value + i, 1, length, out);
		i += length ? length : 1;
	}
	putc('"', out);
}

static void head(FILE *out, const char *name, const char *type, const char *help)
{
	fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void single(FILE *out, const char *name, const char *type, const char *help, double value)
{
	head(out, name, type, help);
	fprintf(out, "%s %.17g\n", name, value);
}

static void line(FILE *out, const char *name, const struct rows *r, uint32_t i, const char *quantile, double value)
{
	const struct dc_control_live *row = &r->rows[i];

	if (isnan(value))
		return;
	fprintf(out, "%s{pid=\"%u\",", name, row->pid);
	label(out, "process", row->name);
	if (r->image[i])
		fprintf(out, ",image=\"%u\"", r->image[i]);
	if (row->kind) {
		putc(',', out);
		label(out, "site", row->site);
		fprintf(out, ",kind=\"%u\"", row->kind);
	}
	if (quantile)
		fprintf(out, ",quantile=\"%s\"", quantile);
	fprintf(out, "} %.9g\n", value);
}

/* One metric: its lines are those rows for which @value is a number. */
struct metric {
	const char *name, *type, *help;
	double (*value)(const struct dc_control_live *row);
};

static double events(const struct dc_control_live *row)
{
	return row->kind ? NAN : row->per_s;
}

static double open_in_all(const struct dc_control_live *row)
{
	return row->kind ? NAN : (double)row->open;
}

static double window(const struct dc_control_live *row)
{
	return row->kind ? NAN : (double)row->window_ns / 1e9;
}

static double wanted_window(const struct dc_control_live *row)
{
	return row->kind ? NAN : (double)row->wanted_window_ns / 1e9;
}

static double dropped(const struct dc_control_live *row)
{
	return row->kind ? NAN : (double)row->dropped;
}

static double left_out(const struct dc_control_live *row)
{
	return row->kind ? NAN : (double)row->left_out_events;
}

static double left_out_bytes(const struct dc_control_live *row)
{
	return row->kind ? NAN : (double)row->left_out_bytes;
}

static double lost_chunks(const struct dc_control_live *row)
{
	return row->kind ? NAN : (double)row->lost_chunks;
}

static double given_up(const struct dc_control_live *row)
{
	return row->kind ? NAN : (double)row->given_up;
}

static double site_events(const struct dc_control_live *row)
{
	return row->kind ? row->per_s : NAN;
}

static double site_errors(const struct dc_control_live *row)
{
	return row->kind ? row->errors_per_s : NAN;
}

static double site_sampled(const struct dc_control_live *row)
{
	return row->kind ? (double)(row->flags & DC_CONTROL_LIVE_SAMPLED) : NAN;
}

static double span_open(const struct dc_control_live *row)
{
	return row->kind == DC_KIND_BEGIN ? (double)row->open : NAN;
}

static double counter(const struct dc_control_live *row)
{
	return row->kind == DC_KIND_COUNTER ? row->last : NAN;
}

static const struct metric metrics[] = {
	{"dashcam_process_events_per_second", "gauge", "Events recorded, of the last ten seconds.", events},
	{"dashcam_process_open_spans", "gauge", "Spans begun and not ended.", open_in_all},
	{"dashcam_process_window_seconds", "gauge", "How far back a capture would reach.", window},
	{"dashcam_process_wanted_window_seconds", "gauge", "How far back it should reach.", wanted_window},
	{"dashcam_process_dropped_events_total", "counter", "Events that found no room.", dropped},
	{"dashcam_process_left_out_events_total", "counter", "Events that the watcher left out to stay within its budget; the others stand for them.",
	 left_out},
	{"dashcam_process_left_out_bytes_total", "counter", "... the bytes of them.", left_out_bytes},
	{"dashcam_process_lost_chunks_total", "counter", "Chunks overwritten before the watcher read them.", lost_chunks},
	{"dashcam_process_async_given_up_total", "counter", "Async spans that were open, and are not followed any more.", given_up},
	{"dashcam_site_events_per_second", "gauge", "Events, of spans their ends, of the last ten seconds.",
	 site_events},
	{"dashcam_site_errors_per_second", "gauge", "Log lines of level error and above, there or inside of it.",
	 site_errors},
	{"dashcam_site_sampled", "gauge", "1: a random part of the events was counted, and stands for all.",
	 site_sampled},
	{"dashcam_span_open", "gauge", "Spans of the site begun and not ended.", span_open},
	{"dashcam_counter_value", "gauge", "The last value of a counter.", counter},
};

static void durations(FILE *out, const struct rows *r)
{
	static const char *const quantiles[] = {"0.5", "0.99", "0.999", "1"};
	const char *name = "dashcam_span_duration_seconds";

	head(out, name, "gauge", "How long spans lasted that ended in the last ten seconds.");
	for (uint32_t i = 0; i < r->count; i++) {
		const struct dc_control_live *row = &r->rows[i];
		const double values[] = {row->p50_ns, row->p99_ns, row->p999_ns, row->max_ns};

		for (unsigned q = 0; q < 4 && row->kind == DC_KIND_BEGIN; q++)
			line(out, name, r, i, quantiles[q], values[q] / 1e9);
	}
}

static void of_rows(FILE *out, const struct rows *r)
{
	for (unsigned m = 0; m < sizeof(metrics) / sizeof(metrics[0]); m++) {
		head(out, metrics[m].name, metrics[m].type, metrics[m].help);
		for (uint32_t i = 0; i < r->count; i++)
			line(out, metrics[m].name, r, i, NULL, metrics[m].value(&r->rows[i]));
	}
	durations(out, r);
}

static void of_watcher(FILE *out, struct dc_watcher *w)
{
	uint32_t alive = 0, pending = 0, jobs = dc_worker_jobs(w->worker, &pending);

	for (uint32_t i = 0; i < dc_roster_count(w->roster); i++)
		alive += !dc_roster_at(w->roster, i)->gone;
	single(out, "dashcam_watcher_rings", "gauge", "Rings held open.", dc_roster_count(w->roster));
	single(out, "dashcam_watcher_rings_alive", "gauge", "... whose process lives.", alive);
	single(out, "dashcam_watcher_jobs", "gauge", "Captures under way.", jobs);
	single(out, "dashcam_watcher_pending", "gauge", "... waiting for room on the disk.", pending);
	head(out, "dashcam_watcher_captures_total", "counter", "Captures saved, by reason.");
	for (uint32_t i = 1; i < REASONS_MAX; i++)
		if (w->captures_of[i])
			fprintf(out, "dashcam_watcher_captures_total{reason=\"%s\"} %llu\n",
				dc_reason_name((enum dc_reason)i), (unsigned long long)w->captures_of[i]);
	single(out, "dashcam_watcher_failed_total", "counter", "Incidents that could not be saved.", (double)w->failed);
	single(out, "dashcam_watcher_suppressed_total", "counter", "Triggers that budgets refused.",
	       (double)(dc_budget_suppressed(w->budget) + dc_budget_suppressed(w->deaths)));
	single(out, "dashcam_watcher_unknown_deaths_total", "counter", "Processes gone without anybody knowing how.",
	       (double)w->unknown_deaths);
}

static void rule_lines(FILE *out, const struct dc_watcher *w, const char *name, const char *help, bool suppressed)
{
	struct dc_control_rule rule;

	head(out, name, "counter", help);
	for (uint32_t i = 0; dc_ruling_tell(w, i, &rule); i++) {
		fprintf(out, "%s{", name);
		label(out, "rule", rule.name);
		fprintf(out, "} %llu\n", (unsigned long long)(suppressed ? rule.suppressed : rule.fired));
	}
}

static void page(void *arg, FILE *out)
{
	struct dc_watcher *w = arg;
	CLEANUP(free) struct rows *r = calloc(1, sizeof(*r));
	uint32_t all;

	dc_living_asked(w, LISTEN_NS);
	of_watcher(out, w);
	rule_lines(out, w, "dashcam_rule_fired_total", "Times that a rule came true and was acted on.", false);
	rule_lines(out, w, "dashcam_rule_suppressed_total", "Times that its budget kept it from that.", true);
	if (!r)
		return;
	all = dc_living_rows(w, NULL, NULL, 0, ROWS_MAX, keep, r);
	single(out, "dashcam_watcher_rows_left_out", "gauge", "Processes and sites beyond the bound of this page.",
	       all - r->count);
	of_rows(out, r);
}

int dc_metrics_open(struct dc_watcher *w, char ret_why[static DC_WHY_BYTES])
{
	return w->config.metrics ? dc_http_new(w->config.metrics, page, w, &w->metrics, ret_why) : 0;
}
