/* SPDX-License-Identifier: MIT */
/* The watcher's end of its control socket, and what it tells of captures: to clients who wait, and to its log. */
#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trigger/settler.h"
#include "trigger/size.h"
#include "trigger/tail.h"
#include "trigger/watcher_inside.h"

static void wait_for(struct dc_watcher *w, uint64_t client, uint64_t job)
{
	for (uint32_t i = 0; i < WAITERS_MAX; i++) {
		if (w->waiters[i].used)
			continue;
		w->waiters[i] = (struct waiter){.client = client, .job = job, .used = true};
		return;
	}
}

/* Replies that a client still has to get after this one. */
static uint32_t still_waiting(const struct dc_watcher *w, uint64_t client)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < WAITERS_MAX; i++)
		n += w->waiters[i].used && w->waiters[i].client == client;
	return n;
}

static void refuse(struct dc_watcher *w, uint64_t client, int error, const char *text)
{
	struct dc_control_reply reply = {.op = DC_CONTROL_TRIGGER, .error = error};

	snprintf(reply.text, sizeof(reply.text), "%s", text);
	dc_control_reply(w->control, client, &reply);
}

bool dc_watcher_asked_for(const struct dc_entry *e, const struct ucred *peer,
			  const struct dc_control_request *q)
{
	const struct dc_ring *ring = e->ring;

	if (e->superseded || (peer->uid != 0 && ring->uid != peer->uid))
		return false;
	if (q->pid) /* also one just dead */
		return ring->pid == q->pid;
	if (e->gone)
		return false;
	return q->flags & DC_CONTROL_ALL || (q->name[0] && fnmatch(q->name, ring->header.name, 0) == 0);
}

struct asking {
	struct dc_watcher *w;
	uint64_t client;
};

static void note_job(void *arg, uint64_t job)
{
	struct asking *a = arg;

	wait_for(a->w, a->client, job);
}

/* Without DC_CONTROL_WAIT: the captures are under way, that is all there is to say. */
static void tell_under_way(struct dc_watcher *w, uint64_t client)
{
	struct dc_control_reply reply = {.op = DC_CONTROL_TRIGGER};

	for (uint32_t i = 0; i < WAITERS_MAX; i++) {
		if (!w->waiters[i].used || w->waiters[i].client != client)
			continue;
		w->waiters[i].used = false;
		reply.more = still_waiting(w, client);
		snprintf(reply.text, sizeof(reply.text), "capture %llu is under way",
			 (unsigned long long)w->waiters[i].job);
		dc_control_reply(w->control, client, &reply);
	}
}

static void serve_trigger(struct dc_watcher *w, uint64_t client, const struct ucred *peer,
			  const struct dc_control_request *q)
{
	CLEANUP(free) struct selection *s = calloc(1, sizeof(*s));
	struct asking asking = {.w = w, .client = client};
	const struct firing f = {.reason = DC_REASON_COMMAND,
				 .text = q->reason,
				 .severity = SEVERITY_ASKED,
				 .pid = (uint32_t)peer->pid,
				 .window = {.last_ns = q->last_ns < 0 ? w->config.last_ns : q->last_ns,
					    .after_ns = q->after_ns < 0 ? w->config.after_ns : q->after_ns}};
	int r;

	dc_roster_event(w->roster); /* a process that started a moment ago */
	for (uint32_t i = 0; s && i < dc_roster_count(w->roster); i++)
		if (dc_watcher_asked_for(dc_roster_at(w->roster, i), peer, q))
			s->rings[s->count++] = dc_roster_at(w->roster, i)->ring;
	if (!s || s->count == 0) {
		refuse(w, client, -ESRCH, "no recorded process of yours matches: see 'dashcam status'");
		return;
	}
	r = dc_watcher_fire(w, &f, s, note_job, &asking);
	if (r <= 0)
		refuse(w, client, r < 0 ? r : -EBUSY,
		       r == -EBUSY ? "too many captures are under way: try again in a moment" : strerror(-r));
	else if (!(q->flags & DC_CONTROL_WAIT))
		tell_under_way(w, client);
}

static void serve_status(struct dc_watcher *w, uint64_t client)
{
	struct dc_control_reply reply = {.op = DC_CONTROL_STATUS};
	struct dc_control_status *s = &reply.status;

	s->pid = (uint32_t)getpid();
	s->rings = dc_roster_count(w->roster);
	for (uint32_t i = 0; i < s->rings; i++)
		s->alive += !dc_roster_at(w->roster, i)->gone;
	s->jobs = dc_worker_jobs(w->worker, &s->pending);
	s->captures = w->captures;
	s->failed = w->failed;
	s->suppressed = dc_budget_suppressed(w->budget) + dc_budget_suppressed(w->deaths) +
			dc_ruling_suppressed(w);
	s->unknown_deaths = w->unknown_deaths;
	s->started_ns = w->started_ns;
	snprintf(s->out, sizeof(s->out), "%s", w->config.output.dir);
	dc_control_reply(w->control, client, &reply);
}

static bool worth_telling(struct dc_watcher *w, const struct dc_entry *e, const struct ucred *peer,
			  struct dc_control_process *ret_process)
{
	const struct dc_ring *ring = e->ring;
	struct dc_control_process *p = ret_process;
	struct dc_sample_mode mode;

	if (e->gone || e->superseded || !ring->pid || (peer->uid != 0 && peer->uid != ring->uid))
		return false;
	dc_sampling_mode(w, ring, &mode);
	*p = (struct dc_control_process){.pid = ring->pid,
					 .uid = ring->uid,
					 .ring = !ring->bare,
					 .scope = mode.scope,
					 .hz = mode.hz,
					 .copy_bytes = mode.copy_bytes};
	if (e->raised_hz) {
		p->raised_for_ns = dc_watcher_now_ns() - e->raised_ns;
		p->usual_hz = w->config.sample_hz;
		p->hz = e->raised_hz;
	}
	snprintf(p->name, sizeof(p->name), "%.63s", ring->header.name);
	snprintf(p->why, sizeof(p->why), "%.95s", ring->verified ? mode.why : "its ring is not proved to be its own");
	return ring->bare || e->raised_hz || p->scope == DC_SAMPLE_SCOPE_NONE || p->why[0];
}

static void serve_sampling(struct dc_watcher *w, uint64_t client, const struct ucred *peer)
{
	struct dc_control_reply reply = {.op = DC_CONTROL_SAMPLING};
	struct dc_control_process found[DC_CONTROL_SAMPLING_MAX];
	uint32_t count = 0;

	for (uint32_t i = 0; i < dc_roster_count(w->roster) && count < DC_CONTROL_SAMPLING_MAX; i++)
		count += worth_telling(w, dc_roster_at(w->roster, i), peer, &found[count]);
	for (uint32_t i = 0; i < count; i++) {
		reply.process = found[i];
		reply.more = count - 1 - i;
		dc_control_reply(w->control, client, &reply);
	}
	if (count == 0)
		dc_control_reply(w->control, client, &reply);
}

static bool heard_in_part(const struct dc_entry *e, const struct ucred *peer, struct dc_control_followed *ret_followed)
{
	const struct dc_ring *ring = e->ring;
	struct dc_control_followed *f = ret_followed;
	const struct dc_tail_totals *t;

	if (e->gone || e->superseded || !ring->pid || (peer->uid != 0 && peer->uid != ring->uid) || !dc_ruling_follows(e))
		return false;
	*f = (struct dc_control_followed){.pid = ring->pid, .uid = ring->uid};
	t = dc_ruling_heard(e, &f->given_up);
	f->events = t->events;
	f->left_out_events = t->skipped_events;
	f->left_out_bytes = t->skipped_bytes;
	f->left_out_chunks = t->skipped_chunks;
	f->lost_chunks = t->lost_chunks;
	snprintf(f->name, sizeof(f->name), "%.63s", ring->header.name);
	return t->skipped_chunks || t->lost_chunks || f->given_up;
}

static void serve_followed(struct dc_watcher *w, uint64_t client, const struct ucred *peer)
{
	struct dc_control_reply reply = {.op = DC_CONTROL_FOLLOWED};
	struct dc_control_followed found[DC_CONTROL_SAMPLING_MAX];
	uint32_t count = 0;

	for (uint32_t i = 0; i < dc_roster_count(w->roster) && count < DC_CONTROL_SAMPLING_MAX; i++)
		count += heard_in_part(dc_roster_at(w->roster, i), peer, &found[count]);
	for (uint32_t i = 0; i < count; i++) {
		reply.followed = found[i];
		reply.more = count - 1 - i;
		dc_control_reply(w->control, client, &reply);
	}
	if (count == 0)
		dc_control_reply(w->control, client, &reply);
}

static void serve_rules(struct dc_watcher *w, uint64_t client)
{
	struct dc_control_reply reply = {.op = DC_CONTROL_RULES};
	struct dc_control_rule next = {0};
	uint32_t i = 0;

	for (bool more = dc_ruling_tell(w, i, &reply.rule); more; reply.rule = next) {
		more = dc_ruling_tell(w, ++i, &next);
		reply.more = more;
		dc_control_reply(w->control, client, &reply);
	}
	if (i == 0)
		dc_control_reply(w->control, client, &reply);
}

void dc_watcher_on_request(void *arg, uint64_t client, const struct ucred *peer,
			   const struct dc_control_request *request)
{
	struct dc_watcher *w = arg;

	if (request->op == DC_CONTROL_TRIGGER)
		serve_trigger(w, client, peer, request);
	else if (request->op == DC_CONTROL_STATUS)
		serve_status(w, client);
	else if (request->op == DC_CONTROL_SAMPLING)
		serve_sampling(w, client, peer);
	else if (request->op == DC_CONTROL_LIVE)
		dc_living_serve(w, client, peer, request);
	else if (request->op == DC_CONTROL_RULES)
		serve_rules(w, client);
	else if (request->op == DC_CONTROL_FOLLOWED)
		serve_followed(w, client, peer);
	else
		refuse(w, client, -EOPNOTSUPP, "this watcher does not know that request");
}

/* --- what became of captures --- */

static const char *why_of(const struct dc_worker_report *r)
{
	return r->why[0] ? r->why : r->error == -ENODATA ? "nothing can be read of its rings" : strerror(-r->error);
}

static void tell_waiters(struct dc_watcher *w, const struct dc_worker_report *r, const char *path)
{
	struct dc_control_reply reply = {.op = DC_CONTROL_TRIGGER,
					 .error = r->error,
					 .processes = r->processes,
					 .events = r->totals.events,
					 .bytes = r->written_bytes};

	snprintf(reply.path, sizeof(reply.path), "%s", path);
	if (r->outcome == DC_WORKER_RETRY)
		snprintf(reply.text, sizeof(reply.text), "%.200s: kept pending, next try in 10 s", why_of(r));
	else if (r->error)
		snprintf(reply.text, sizeof(reply.text), "%.250s", why_of(r));
	for (uint32_t i = 0; i < WAITERS_MAX; i++) {
		struct waiter *waiter = &w->waiters[i];

		if (!waiter->used || waiter->job != r->job)
			continue;
		waiter->used = false;
		reply.more = still_waiting(w, waiter->client);
		dc_control_reply(w->control, waiter->client, &reply);
	}
}

static void on_saved(struct dc_watcher *w, const struct dc_worker_report *r, const char *path)
{
	w->captures++;
	if ((uint32_t)r->reason < REASONS_MAX)
		w->captures_of[r->reason]++;
	dc_watcher_say(w, "capture '%s': %s, %u process%s, %llu events, %s in %.0f ms", path,
		       dc_reason_name(r->reason), r->processes, r->processes == 1 ? "" : "es",
		       (unsigned long long)r->totals.events, dc_size_text(r->written_bytes).s,
		       (double)r->durable_ns / 1e6);
	dc_settler_add(w->settler, r->dir, r->name);
	if (w->config.on_saved)
		w->config.on_saved(w->config.on_arg, path);
}

void dc_watcher_take_reports(struct dc_watcher *w)
{
	struct dc_worker_report r;

	while (dc_worker_report(w->worker, &r)) {
		char path[DC_SAVE_PATH_BYTES + DC_SAVE_NAME_BYTES];

		snprintf(path, sizeof(path), "%s/%s", r.dir[0] ? r.dir : w->config.output.dir, r.name);
		if (r.outcome == DC_WORKER_SAVED) {
			on_saved(w, &r, path);
		} else if (r.outcome == DC_WORKER_RETRY) {
			dc_watcher_say(w, "capture '%s': %s, keeping the incident pending, next try in 10 s",
				       path, why_of(&r));
		} else {
			w->failed++;
			dc_watcher_say(w, "capture '%s': %s, the incident is lost", path, why_of(&r));
		}
		tell_waiters(w, &r, path);
	}
}
