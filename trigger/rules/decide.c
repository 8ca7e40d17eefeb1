/* SPDX-License-Identifier: MIT */
/* A rule's tree, and the moment it comes true. */
#include <string.h>

#include "trigger/rules/evaluate_inside.h"

bool dc_node_set(struct node_state *n, bool on, double value, double threshold, int64_t now_ns)
{
	bool turned = on != n->on;

	if (on && turned)
		n->since_ns = now_ns;
	if (on) {
		n->value = value;
		n->threshold = threshold;
	}
	n->on = on;
	return turned;
}

void dc_node_moment(struct node_state *n, double value, double threshold, const struct thing *thing, uint16_t site, uint32_t tid)
{
	n->value = value;
	n->threshold = threshold;
	n->thing = thing;
	n->site = site;
	n->tid = tid;
	n->tick = 0;
}

/*
 * The tree from its leaves up. @on: leaves that are true now only; @off: leaves to be left out. Only @commit moves the
 * times that `for` and `within` remember.
 */
static bool value_of(struct rule_state *r, uint32_t on, uint32_t off, bool commit, int64_t now_ns)
{
	bool v[DC_RULE_NODES_MAX] = {0};

	for (unsigned i = 0; i < r->count; i++) {
		const struct dc_rule_node *n = node_of(r, i);
		struct node_state *st = &r->nodes[i];
		bool left = v[n->left];

		switch (n->op) {
		case DC_RULE_AND:
			v[i] = left && v[n->right];
			break;
		case DC_RULE_OR:
			v[i] = left || v[n->right];
			break;
		case DC_RULE_NOT:
			v[i] = !left;
			break;
		case DC_RULE_FOR:
			if (commit && (!left || st->since_ns == NEVER))
				st->since_ns = left ? now_ns : NEVER;
			v[i] = left && st->since_ns != NEVER && now_ns - st->since_ns >= n->over_ns;
			break;
		case DC_RULE_WITHIN:
			if (commit && left)
				st->since_ns = now_ns;
			v[i] = left || (st->since_ns != NEVER && now_ns - st->since_ns <= n->over_ns);
			break;
		default:
			v[i] = (on >> i & 1) || (st->on && !(off >> i & 1));
		}
	}
	return v[r->count - 1];
}

/* xorshift64*: Vigna 2014. Whose turn it is need not be hard to guess. */
static double draw(struct dc_evaluate *e)
{
	e->random ^= e->random >> 12;
	e->random ^= e->random << 25;
	e->random ^= e->random >> 27;
	return (double)(e->random * UINT64_C(0x2545f4914f6cdd1d) >> 11) * 0x1p-53;
}

static bool is_its_turn(struct rule_state *r)
{
	const struct dc_rule_expression *e = &r->rule->when;

	r->times++;
	if (e->every > 1 && r->times % e->every != 0)
		return false;
	return e->probability >= 1 || draw(r->subject->evaluate) < e->probability;
}

static void fire(struct rule_state *r, unsigned leaf)
{
	const struct node_state *n = &r->nodes[leaf];
	struct dc_subject *s = r->subject;
	const struct lane_state *lane = n->tid ? dc_lane_by_tid(s, n->tid) : NULL;
	struct dc_rule_firing firing = {
		.rule = r->rule,
		.process = s->process,
		.leaf = node_of(r, leaf),
		.value = n->value,
		.threshold = n->threshold,
		.amount = n->amount,
		.allowed = n->allowed,
		.name = n->thing ? n->thing->name : "",
		.site = n->site,
		.tid = n->tid,
		.at_tick = n->tick,
		.at_units = s->moment_units,
	};

	if (!is_its_turn(r))
		return;
	if (r->told) {
		r->untold++;
		return;
	}
	if (lane)
		memcpy(firing.trace_id, lane->trace_id, sizeof(firing.trace_id));
	r->told = true;
	s->heard = true;
	s->evaluate->handler.fire(s->evaluate->arg, &firing);
}

void dc_tell_untold(struct rule_state *r)
{
	const struct dc_subject *s = r->subject;

	if (r->untold)
		s->evaluate->handler.untold(s->evaluate->arg, r->rule, s->process, r->untold);
	r->untold = 0;
}

static bool is_leaf(const struct dc_rule_node *n)
{
	return n->op > DC_RULE_WITHIN;
}

/* Which condition made it true: one of a moment if there is one, else the one that turned last. */
static unsigned decider(const struct rule_state *r, uint32_t moments)
{
	unsigned best = 0;
	int64_t best_ns = NEVER;

	if (moments)
		return (unsigned)__builtin_ctz(moments);
	for (unsigned i = 0; i < r->count; i++) {
		const struct node_state *n = &r->nodes[i];

		if (!is_leaf(node_of(r, i)) || (best_ns != NEVER && (!n->on || n->since_ns <= best_ns)))
			continue;
		best = i;
		best_ns = n->on ? n->since_ns : NEVER;
	}
	return best;
}

void dc_decide(struct rule_state *r, uint32_t moments, uint32_t anew, int64_t now_ns)
{
	const bool before = value_of(r, 0, anew, false, now_ns);
	const bool now = value_of(r, moments, 0, true, now_ns);

	if (now && !before)
		fire(r, decider(r, moments | anew));
	else if (before && !r->was)
		fire(r, decider(r, 0));
	r->was = moments ? value_of(r, 0, 0, false, now_ns) : now;
}
