/* SPDX-License-Identifier: MIT */
#include "trigger/worker.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>

#include "ipc/now.h"

#define REPORTS_MAX (4 * DC_WORKER_JOBS_MAX)
#define DEATHS_MAX 64u

enum job_state {
	JOB_FREE,
	JOB_QUEUED, /* first pass when `due` has come */
	JOB_COPYING,
	JOB_WAITING,   /* for `after`; last pass when `due` has come */
	JOB_FINISHING, /* nothing can be added any more */
};

struct death {
	uint32_t ns_pid;
	uint64_t start_time;
	bool known;
	int status;
};

struct job {
	uint64_t id;
	enum job_state state;
	struct dc_save *save;
	int64_t due_ns;         /* CLOCK_MONOTONIC: not before */
	int64_t after_until_ns; /* end of the window; 0: one pass is enough */
	bool retried;
	/* what came in since it was submitted; applied before the last pass */
	uint32_t coalesced;
	uint32_t severity;
	uint64_t to_units;
	struct death deaths[DEATHS_MAX];
	uint32_t death_count;
};

struct dc_worker {
	pthread_t thread;
	bool started;
	pthread_mutex_t lock; /* everything below, but not the save of a job that is copying or finishing */
	pthread_cond_t changed;
	int event_fd;
	int64_t retry_ns;
	bool stopping;
	uint64_t next_id;
	struct job jobs[DC_WORKER_JOBS_MAX];
	struct dc_worker_report *reports; /* REPORTS_MAX, a ring */
	uint32_t report_first;
	uint32_t report_count;
};

static void report(struct dc_worker *w, const struct job *job, enum dc_worker_outcome outcome, int error)
{
	struct dc_worker_report *r = &w->reports[(w->report_first + w->report_count) % REPORTS_MAX];
	const struct dc_save *s = job->save;

	if (w->report_count == REPORTS_MAX)
		return; /* cannot be: a job has two at most, and the loop takes them between submits */
	*r = (struct dc_worker_report){.job = job->id,
				       .outcome = outcome,
				       .error = error,
				       .reason = s->incident.reason,
				       .processes = s->count,
				       .totals = s->totals,
				       .written_bytes = s->written_bytes,
				       .durable_ns = s->durable_ns};
	if (error < 0)
		memcpy(r->why, s->why, sizeof(r->why));
	memcpy(r->dir, s->dir, sizeof(r->dir));
	memcpy(r->name, s->name, sizeof(r->name));
	w->report_count++;
	eventfd_write(w->event_fd, 1);
}

static void end_job(struct dc_worker *w, struct job *job, enum dc_worker_outcome outcome, int error)
{
	report(w, job, outcome, error);
	dc_save_free(TAKE(job->save));
	*job = (struct job){.state = JOB_FREE};
}

/* Errors of the place where captures go: they pass, or somebody makes them pass. */
static bool worth_retrying(int error)
{
	switch (error) {
	case -ENOSPC:
	case -EDQUOT:
	case -EIO:
	case -EROFS:
	case -ENOENT:
	case -ENOTDIR:
	case -EACCES:
	case -EPERM:
	case -EMFILE:
	case -ENFILE:
	case -ENOMEM:
		return true;
	}
	return false;
}

static void try_later(struct dc_worker *w, struct job *job, int error)
{
	dc_save_abort(job->save);
	if (w->stopping || !worth_retrying(error)) {
		end_job(w, job, DC_WORKER_FAILED, error);
		return;
	}
	if (!job->retried)
		report(w, job, DC_WORKER_RETRY, error);
	job->retried = true;
	job->state = JOB_QUEUED;
	job->due_ns = dc_now_ns() + w->retry_ns;
}

static void apply_deaths(struct job *job)
{
	for (uint32_t i = 0; i < job->death_count; i++) {
		const struct death *d = &job->deaths[i];

		for (uint32_t k = 0; k < job->save->count; k++) {
			struct dc_member *m = &job->save->members[k];

			if (m->ring->header.pid == d->ns_pid && m->ring->header.start_time == d->start_time &&
			    d->known)
				dc_process_died(&m->process, d->status);
		}
	}
}

static void apply_additions(struct job *job)
{
	struct dc_incident *i = &job->save->incident;

	i->coalesced += job->coalesced;
	job->coalesced = 0;
	if (job->severity > i->severity)
		i->severity = job->severity;
	if (job->to_units > i->to_units)
		i->to_units = job->to_units;
	apply_deaths(job);
}

static bool all_dead(const struct job *job)
{
	for (uint32_t i = 0; i < job->save->count; i++)
		if (dc_ring_alive(job->save->members[i].ring) == 1)
			return false;
	return true;
}

/* Called and left with the lock held; the disk is waited for without it. */
static void first_pass(struct dc_worker *w, struct job *job)
{
	int r;

	job->state = JOB_COPYING;
	pthread_mutex_unlock(&w->lock);
	r = dc_save_first(job->save);
	pthread_mutex_lock(&w->lock);
	if (r < 0) {
		try_later(w, job, r);
		return;
	}
	job->state = JOB_WAITING;
	job->due_ns = job->death_count && all_dead(job) ? 0 : job->after_until_ns; /* they may have died meanwhile */
}

static void last_pass(struct dc_worker *w, struct job *job)
{
	const bool again = job->after_until_ns != 0;
	int r;

	job->state = JOB_FINISHING;
	apply_additions(job);
	pthread_mutex_unlock(&w->lock);
	r = dc_save_last(job->save, again);
	pthread_mutex_lock(&w->lock);
	if (r < 0)
		try_later(w, job, r);
	else
		end_job(w, job, DC_WORKER_SAVED, 0);
	malloc_trim(0); /* copy buffers are large and captures rare */
}

/* The job to go on with: first passes before last ones. *@ret_due_ns: when the earliest other one comes due. */
static struct job *next_job(struct dc_worker *w, int64_t now, int64_t *ret_due_ns)
{
	struct job *best = NULL;

	*ret_due_ns = INT64_MAX;
	for (uint32_t i = 0; i < DC_WORKER_JOBS_MAX; i++) {
		struct job *job = &w->jobs[i];

		if (job->state != JOB_QUEUED && job->state != JOB_WAITING)
			continue;
		if (job->due_ns > now && !w->stopping) {
			*ret_due_ns = job->due_ns < *ret_due_ns ? job->due_ns : *ret_due_ns;
			continue;
		}
		if (!best || job->state < best->state || (job->state == best->state && job->id < best->id))
			best = job;
	}
	return best;
}

static void wait_until(struct dc_worker *w, int64_t due_ns)
{
	const struct timespec until = {.tv_sec = due_ns / 1000000000, .tv_nsec = due_ns % 1000000000};

	if (due_ns == INT64_MAX)
		pthread_cond_wait(&w->changed, &w->lock);
	else
		pthread_cond_timedwait(&w->changed, &w->lock, &until);
}

static void *work(void *arg)
{
	struct dc_worker *w = arg;
	int64_t due_ns;

	pthread_mutex_lock(&w->lock);
	for (;;) {
		struct job *job = next_job(w, dc_now_ns(), &due_ns);

		if (job && job->state == JOB_QUEUED)
			first_pass(w, job);
		else if (job)
			last_pass(w, job);
		else if (w->stopping)
			break;
		else
			wait_until(w, due_ns);
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

static int start_thread(struct dc_worker *w)
{
	sigset_t all, before;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = -pthread_create(&w->thread, NULL, work, w);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	w->started = r == 0;
	if (r == 0)
		pthread_setname_np(w->thread, "dashcam-save");
	return r;
}

int dc_worker_new(int64_t retry_ns, struct dc_worker **ret_worker)
{
	struct dc_worker *w = calloc(1, sizeof(*w));
	pthread_condattr_t monotonic;
	int r = -ENOMEM;

	if (!w)
		return r;
	pthread_mutex_init(&w->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&w->changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
	w->retry_ns = retry_ns;
	w->next_id = 1;
	w->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	w->reports = calloc(REPORTS_MAX, sizeof(*w->reports));
	if (w->event_fd < 0)
		r = -errno;
	else if (w->reports)
		r = start_thread(w);
	if (r < 0) {
		dc_worker_free(w);
		return r;
	}
	*ret_worker = w;
	return 0;
}

void dc_worker_finish(struct dc_worker *w)
{
	if (!w->started)
		return;
	pthread_mutex_lock(&w->lock);
	w->stopping = true;
	pthread_cond_signal(&w->changed);
	pthread_mutex_unlock(&w->lock);
	pthread_join(w->thread, NULL);
	w->started = false;
}

void dc_worker_free(struct dc_worker *w)
{
	if (!w)
		return;
	dc_worker_finish(w);
	if (w->event_fd >= 0)
		close(w->event_fd);
	free(w->reports);
	pthread_cond_destroy(&w->changed);
	pthread_mutex_destroy(&w->lock);
	free(w);
}

int dc_worker_fd(const struct dc_worker *w)
{
	return w->event_fd;
}

static struct job *free_job(struct dc_worker *w)
{
	for (uint32_t i = 0; i < DC_WORKER_JOBS_MAX; i++)
		if (w->jobs[i].state == JOB_FREE)
			return &w->jobs[i];
	return NULL;
}

int dc_worker_submit(struct dc_worker *w, struct dc_save *save, int64_t after_ns, uint64_t *ret_job)
{
	struct job *job;

	pthread_mutex_lock(&w->lock);
	job = free_job(w);
	if (job) {
		*job = (struct job){.id = w->next_id++, .state = JOB_QUEUED, .save = save};
		job->after_until_ns = after_ns ? dc_now_ns() + after_ns : 0;
		*ret_job = job->id;
		pthread_cond_signal(&w->changed);
	}
	pthread_mutex_unlock(&w->lock);
	return job ? 0 : -EBUSY;
}

static bool covers(const struct job *job, struct dc_ring *const *rings, uint32_t count)
{
	if (job->state == JOB_FREE || job->state == JOB_FINISHING || job->save->uid != rings[0]->uid)
		return false;
	for (uint32_t i = 0; i < count; i++) {
		bool found = false;

		for (uint32_t k = 0; k < job->save->count && !found; k++)
			found = job->save->members[k].ring == rings[i];
		if (!found)
			return false;
	}
	return true;
}

static void fold_into(struct job *job, int64_t after_ns, uint32_t severity, uint64_t times)
{
	struct dc_incident reached = {.clock = job->save->incident.clock,
				      .tick_shift = job->save->incident.tick_shift};
	const int64_t until_ns = dc_now_ns() + after_ns;

	if (dc_incident_extend(&reached, job->save->members[0].ring, after_ns) == 0 &&
	    reached.to_units > job->to_units)
		job->to_units = reached.to_units;
	job->coalesced = times < UINT32_MAX - job->coalesced ? job->coalesced + (uint32_t)times : UINT32_MAX;
	if (severity > job->severity)
		job->severity = severity;
	if (until_ns > job->after_until_ns)
		job->after_until_ns = until_ns;
	if (job->state == JOB_WAITING)
		job->due_ns = job->after_until_ns;
}

int dc_worker_fold(struct dc_worker *w, struct dc_ring *const *rings, uint32_t count, int64_t after_ns,
		   uint32_t severity, uint64_t times, uint64_t *ret_job)
{
	int r = 0;

	pthread_mutex_lock(&w->lock);
	for (uint32_t i = 0; i < DC_WORKER_JOBS_MAX && r == 0; i++) {
		if (!covers(&w->jobs[i], rings, count))
			continue;
		fold_into(&w->jobs[i], after_ns, severity, times);
		*ret_job = w->jobs[i].id;
		r = 1;
	}
	pthread_mutex_unlock(&w->lock);
	return r;
}

static void note_death(struct job *job, const struct death *d)
{
	if (job->state == JOB_FREE || job->state == JOB_FINISHING ||
	    !dc_save_has(job->save, d->ns_pid, d->start_time))
		return;
	if (job->death_count < DEATHS_MAX)
		job->deaths[job->death_count++] = *d;
	if (job->state == JOB_WAITING && all_dead(job))
		job->due_ns = 0; /* nothing more will come */
}

void dc_worker_died(struct dc_worker *w, uint32_t ns_pid, uint64_t start_time, bool known, int status)
{
	const struct death d = {.ns_pid = ns_pid, .start_time = start_time, .known = known, .status = status};

	pthread_mutex_lock(&w->lock);
	for (uint32_t i = 0; i < DC_WORKER_JOBS_MAX; i++)
		note_death(&w->jobs[i], &d);
	pthread_cond_signal(&w->changed);
	pthread_mutex_unlock(&w->lock);
}

int dc_worker_report(struct dc_worker *w, struct dc_worker_report *ret_report)
{
	eventfd_t ignored;
	int r = 0;

	pthread_mutex_lock(&w->lock);
	if (w->report_count) {
		*ret_report = w->reports[w->report_first];
		w->report_first = (w->report_first + 1) % REPORTS_MAX;
		w->report_count--;
		r = 1;
	} else {
		eventfd_read(w->event_fd, &ignored);
	}
	pthread_mutex_unlock(&w->lock);
	return r;
}

uint32_t dc_worker_jobs(struct dc_worker *w, uint32_t *ret_pending)
{
	uint32_t jobs = 0, pending = 0;

	pthread_mutex_lock(&w->lock);
	for (uint32_t i = 0; i < DC_WORKER_JOBS_MAX; i++) {
		jobs += w->jobs[i].state != JOB_FREE;
		pending += w->jobs[i].state == JOB_QUEUED && w->jobs[i].retried;
	}
	pthread_mutex_unlock(&w->lock);
	*ret_pending = pending;
	return jobs;
}
