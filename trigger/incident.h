/* SPDX-License-Identifier: MIT */
/*
 * From a reason to what a capture says of itself: fills struct dc_incident and struct dc_process
 * (persist/incident.h).
 *
 * The window is computed once per incident, on the clock of its first ring; rings that count in another clock
 * or unit get the same moments converted. What is said of a process comes from its ring, and only for
 * verified rings from /proc: an unverified one may name a process of somebody else. Command lines go through
 * dc_mask(); environments are never read.
 */
#pragma once

#include <stdint.h>

#include "persist/incident.h"
#include "trigger/ring.h"

/* What was asked for. Durations in ns. */
struct dc_window {
	int64_t last_ns; /* how far back; 0: all there is */
	int64_t after_ns;
	uint64_t at_tick; /* raw clock of the ring that fired; 0: now */
};

/*
 * dc_incident_init() - reason, words, host; nothing of the window yet
 * @text is cut to fit and may be NULL.
 */
void dc_incident_init(struct dc_incident *i, enum dc_reason reason, const char *text);

/*
 * dc_incident_window() - when, and from when to when, by the clock of @ring
 * A moment that the ring claims to be in the future counts as now. Return: 0, -ENOTSUP (a clock this host
 * does not have).
 */
int dc_incident_window(struct dc_incident *i, const struct dc_ring *ring, const struct dc_window *window);

/* dc_incident_anchor() - one more anchor of our own; called again when the window is over. */
void dc_incident_anchor(struct dc_incident *i);

/* dc_incident_edges() - the window in the units of @ring. */
int dc_incident_edges(const struct dc_incident *i, const struct dc_ring *ring, uint64_t *ret_from_units,
		      uint64_t *ret_to_units);

/* dc_incident_extend() - a later trigger joins: the window ends @after_ns after now if that is later. */
int dc_incident_extend(struct dc_incident *i, const struct dc_ring *ring, int64_t after_ns);

void dc_process_fill(struct dc_process *p, const struct dc_ring *ring);
/* @status: as waitpid() gives it. */
void dc_process_died(struct dc_process *p, int status);

/* "api", "command", ... : rule names of what has no rule of its own, and for messages. */
const char *dc_reason_name(enum dc_reason reason);
