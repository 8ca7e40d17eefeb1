/* SPDX-License-Identifier: MIT */
#include "trigger/budget.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/cleanup.h"

#define HOUR_NS INT64_C(3600000000000)

struct rule {
	char name[64];
	uint32_t uid;
	struct dc_budget_limits limits;
	uint32_t suppressed; /* since its last capture */
	uint32_t count;      /* captures in times[]; slot of the next one = count % per_hour */
	uint64_t taken;      /* captures ever */
	uint64_t refused;    /* ever */
	int64_t last_ns;
	int64_t *times; /* of its last per_hour captures, made with the first */
};

struct dc_budget {
	struct dc_budget_limits limits;
	uint64_t suppressed;
	uint32_t used;
	struct rule rules[DC_BUDGET_RULES_MAX];
};

int dc_budget_new(const struct dc_budget_limits *limits, struct dc_budget **ret_budget)
{
	struct dc_budget *b = calloc(1, sizeof(*b));

	if (!b)
		return -ENOMEM;
	b->limits = *limits;
	*ret_budget = b;
	return 0;
}

void dc_budget_free(struct dc_budget *b)
{
	for (uint32_t i = 0; b && i < b->used; i++)
		free(b->rules[i].times);
	free(b);
}

static const struct rule *find(const struct dc_budget *b, const char *name, uint32_t uid)
{
	for (uint32_t i = 0; i < b->used; i++)
		if (b->rules[i].uid == uid &&
		    strncmp(b->rules[i].name, name, sizeof(b->rules[i].name) - 1) == 0)
			return &b->rules[i];
	return NULL;
}

/* The rule that was used longest ago gives way: forgetting it costs a capture too many at worst, never one too few. */
static struct rule *make_room(struct dc_budget *b)
{
	struct rule *oldest = &b->rules[0];

	if (b->used < DC_BUDGET_RULES_MAX)
		return &b->rules[b->used++];
	for (uint32_t i = 1; i < b->used; i++)
		if (b->rules[i].last_ns < oldest->last_ns)
			oldest = &b->rules[i];
	free(oldest->times);
	return oldest;
}

/* Another bound on the hour: of its last captures as many are remembered as the new one counts. */
static int rebound(struct rule *r, uint32_t per_hour)
{
	const uint32_t old = r->limits.per_hour;
	int64_t *times = calloc(per_hour + 1, sizeof(*times));
	uint32_t kept = r->count < old ? r->count : old;

	if (!times)
		return -ENOMEM;
	if (kept > per_hour)
		kept = per_hour;
	for (uint32_t i = 0; i < kept; i++)
		times[i] = r->times[(r->count - kept + i) % old];
	free(r->times);
	r->times = times;
	r->count = kept;
	r->limits.per_hour = per_hour;
	return 0;
}

static struct rule *find_or_add(struct dc_budget *b, const struct dc_budget_limits *limits, const char *name, uint32_t uid)
{
	const uint32_t per_hour = limits->per_hour < DC_BUDGET_HOUR_MAX ? limits->per_hour : DC_BUDGET_HOUR_MAX;
	const struct rule *known = find(b, name, uid);
	struct rule *r = known ? &b->rules[known - b->rules] : NULL;
	int64_t *times;

	if (!r) {
		times = calloc(per_hour + 1, sizeof(*times));
		if (!times)
			return NULL;
		r = make_room(b);
		*r = (struct rule){.uid = uid, .times = times, .limits.per_hour = per_hour};
		snprintf(r->name, sizeof(r->name), "%s", name);
	}
	r->limits.cooldown_ns = limits->cooldown_ns;
	return r->limits.per_hour == per_hour || rebound(r, per_hour) == 0 ? r : NULL;
}

/* When the next capture is allowed by each of the two bounds; 0: now. */
static int64_t cooldown_ends(const struct rule *r)
{
	return r->taken ? r->last_ns + r->limits.cooldown_ns : 0;
}

static int64_t hour_ends(const struct rule *r)
{
	const uint32_t n = r->limits.per_hour;

	return n && r->count >= n ? r->times[r->count % n] + HOUR_NS : 0;
}

static enum dc_budget_verdict judge(const struct rule *r, int64_t now_ns)
{
	if (!r)
		return DC_BUDGET_MEMORY;
	if (now_ns < cooldown_ends(r))
		return DC_BUDGET_COOLDOWN;
	return now_ns < hour_ends(r) ? DC_BUDGET_HOUR : DC_BUDGET_YES;
}

enum dc_budget_verdict dc_budget_take_within(struct dc_budget *b, const struct dc_budget_limits *limits, const char *rule,
					     uint32_t uid, int64_t now_ns, uint32_t *ret_suppressed)
{
	struct rule *r = find_or_add(b, limits, rule, uid);
	enum dc_budget_verdict verdict = judge(r, now_ns);

	if (verdict != DC_BUDGET_YES) {
		b->suppressed++;
		*ret_suppressed = 1;
		if (r) {
			*ret_suppressed = ++r->suppressed;
			r->refused++;
		}
		return verdict;
	}
	if (r->limits.per_hour)
		r->times[r->count % r->limits.per_hour] = now_ns;
	r->count++;
	r->taken++;
	r->last_ns = now_ns;
	*ret_suppressed = r->suppressed;
	r->suppressed = 0;
	return DC_BUDGET_YES;
}

enum dc_budget_verdict dc_budget_take(struct dc_budget *b, const char *rule, uint32_t uid, int64_t now_ns,
				      uint32_t *ret_suppressed)
{
	return dc_budget_take_within(b, &b->limits, rule, uid, now_ns, ret_suppressed);
}

void dc_budget_refuse(struct dc_budget *b, const char *rule, uint32_t uid, uint64_t count)
{
	const struct rule *known = find(b, rule, uid);
	struct rule *r = known ? &b->rules[known - b->rules] : NULL;

	b->suppressed += count;
	if (!r)
		return;
	r->refused += count;
	r->suppressed = count < UINT32_MAX - r->suppressed ? r->suppressed + (uint32_t)count : UINT32_MAX;
}

int64_t dc_budget_next_ns(const struct dc_budget *b, const char *rule, uint32_t uid, int64_t now_ns)
{
	const struct rule *r = find(b, rule, uid);
	int64_t next = now_ns;

	if (!r)
		return now_ns;
	if (cooldown_ends(r) > next)
		next = cooldown_ends(r);
	if (hour_ends(r) > next)
		next = hour_ends(r);
	return next;
}

void dc_budget_count(const struct dc_budget *b, const char *rule, uint64_t *ret_taken, uint64_t *ret_suppressed)
{
	uint64_t taken = 0, suppressed = 0;

	for (uint32_t i = 0; i < b->used; i++) {
		if (strncmp(b->rules[i].name, rule, sizeof(b->rules[i].name) - 1) != 0)
			continue;
		taken += b->rules[i].taken;
		suppressed += b->rules[i].refused;
	}
	*ret_taken = taken;
	*ret_suppressed = suppressed;
}

uint64_t dc_budget_suppressed(const struct dc_budget *b)
{
	return b->suppressed;
}
