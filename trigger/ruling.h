/* SPDX-License-Identifier: MIT */
/*
 * Rules and the processes they are about: carries facts to the evaluator (rules/evaluate.h), and what it decides to act.c.
 *
 *     found      a subject for the process; a tail of its ring, if any rule is about what programs record
 *     look       4 times a second: tails, within 1 % of a core over all of them; thresholds for the guests; once a second
 *                vitals of each process, if any rule asks for them
 *     span over  a guest's own word, at once
 *     ended      and exec, restarts
 *
 * Only what can be believed is asked: vitals of verified processes, nothing of rings from elsewhere. All calls are of the
 * watcher's loop; all are harmless when there are no rules.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "trigger/ring.h"

struct dc_watcher;
struct dc_entry;
struct dc_control_rule;
struct dc_tail_totals;

/* Return: 0, -ENOMEM. */
int dc_ruling_open(struct dc_watcher *w);
void dc_ruling_close(struct dc_watcher *w);

void dc_ruling_found(struct dc_watcher *w, struct dc_entry *e, int64_t now_ns);
void dc_ruling_look(struct dc_watcher *w, int64_t now_ns);
/* Whether it has a tail; what that brings is told to live statistics, too. */
bool dc_ruling_follows(const struct dc_entry *e);
/* What of it was heard and left out, of one that is followed; and async spans given up. */
const struct dc_tail_totals *dc_ruling_heard(const struct dc_entry *e, uint64_t *ret_given_up);
/* Return: false: no rule cares for this span. */
bool dc_ruling_span_over(struct dc_watcher *w, struct dc_entry *e, const struct dc_ring_trigger *t);
void dc_ruling_exec(struct dc_watcher *w, struct dc_entry *e);
bool dc_ruling_wants_exec(const struct dc_watcher *w);
/* Of a process without a ring: it goes on under another name. */
void dc_ruling_renamed(struct dc_watcher *w, struct dc_entry *e);
/* The image is no more: its last events. */
void dc_ruling_gone(struct dc_entry *e);
/* How it ended is known. */
void dc_ruling_ended(struct dc_watcher *w, struct dc_entry *e);
/*
 * Whose past a death by a signal is worth, as the rule of it that ships says, however it was changed.
 * Return: false: no capture is wanted of it at all.
 */
struct selection;
bool dc_ruling_select_death(const struct dc_watcher *w, struct dc_entry *e, struct selection *s);
void dc_ruling_forget(struct dc_watcher *w, struct dc_entry *e);
/* Guests stop comparing: the watcher leaves. */
void dc_ruling_leave(struct dc_watcher *w);

/* The configuration was changed. What is wrong with it has been said by config.reload, and then nothing changes. */
void dc_ruling_reload(struct dc_watcher *w);

/* Firings that budgets refused, ever. */
uint64_t dc_ruling_suppressed(const struct dc_watcher *w);
/* Rule @index for `status`. Return: false: there are not so many. */
bool dc_ruling_tell(const struct dc_watcher *w, uint32_t index, struct dc_control_rule *ret_rule);
