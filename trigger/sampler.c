/* SPDX-License-Identifier: MIT */
#include "trigger/sampler.h"

#include <errno.h>
#include <limits.h>
#include <linux/perf_event.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "ipc/cleanup.h"
#include "persist/incident.h"
#include "trigger/sampler_inside.h"

#define STACKS_BYTES (8u << 20) /* per CPU, where there are few */
#define ALL_BYTES (128u << 20) /* of all CPUs together */
#define CLEAN_NS SECOND_NS
#define IDS_KEPT_NS                                                                                                    \
	(900 * SECOND_NS) /* what a closed event's samples mean; old ones are overwritten by then, or forgotten */
#define COPY_LEAST (4u << 10)
#define WAKES_MAX 64u /* between two ticks */
#define ALL_KINDS ((1u << DC_PERF_KINDS) - 1)
#define FEW_KINDS (1u << DC_PERF_CPU | 1u << DC_PERF_CHANGES)

int64_t dc_sampler_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * SECOND_NS + ts.tv_nsec;
}

void dc_sampler_explain(int error, char *ret_why, size_t size)
{
	const int level = dc_perf_paranoid();

	if (error == -ENOSYS || level == INT_MAX)
		snprintf(ret_why, size, "this kernel has no perf events, or hides them");
	else if ((error == -EACCES || error == -EPERM) && level > 2)
		snprintf(ret_why, size, "kernel.perf_event_paranoid is %d: users may not sample", level);
	else if (error == -EACCES || error == -EPERM)
		snprintf(ret_why, size, "the kernel refuses perf events (another user's process, or a container)");
	else if (error == -EMFILE || error == -ENFILE)
		snprintf(ret_why, size, "too many open files: a descriptor per thread, CPU and event (ulimit -n)");
	else
		snprintf(ret_why, size, "perf_event_open: %s", strerror(-error));
}

/* --- rings --- */

static int open_rings(struct dc_sampler *s)
{
	const long cpus = sysconf(_SC_NPROCESSORS_CONF);
	uint64_t wanted = s->config.ring_bytes ? s->config.ring_bytes : STACKS_BYTES;

	if (!s->config.ring_bytes && cpus > 0 && wanted > ALL_BYTES / (uint64_t)cpus)
		wanted = ALL_BYTES / (uint64_t)cpus;
	return dc_cpus_open(s, RINGS, wanted, &s->cpus);
}

static int wait_for_changes(struct dc_sampler *s, bool muted)
{
	struct epoll_event event = {.events = muted ? 0 : EPOLLIN};
	const int op = s->epoll_fd < 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;

	if (s->epoll_fd < 0)
		s->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (s->epoll_fd < 0)
		return -errno;
	for (uint32_t i = 0; i < s->cpus.count; i++)
		if (epoll_ctl(s->epoll_fd, op, s->cpus.at[i].anchor[RING_CHANGES], &event) < 0)
			return -errno;
	s->muted = muted;
	return 0;
}

/* --- new and free --- */

/* What the kernel lets us see of our own process is what it lets us see at best. */
static int probe(struct dc_sampler *s)
{
	struct dc_perf_shape shape = {.hz = s->config.hz ? s->config.hz : 1, .kernel = true};
	int fd = -1, r;
	uint64_t id;

	r = dc_perf_open(DC_PERF_CPU, &shape, 0, 0, &fd, &id);
	s->kernel = r == 0;
	if (r == -EACCES || r == -EPERM) {
		shape.kernel = false;
		r = dc_perf_open(DC_PERF_CPU, &shape, 0, 0, &fd, &id);
	}
	if (r == 0)
		close(fd);
	return r == -ENODEV ? 0 : r;
}

/* All of the host in one group, or not: then every process has its own. */
static int sample_host(struct dc_sampler *s)
{
	struct group *g = dc_group_new(s, 0);
	int r;

	if (!g)
		return -ENOMEM;
	r = dc_group_open(s, g, dc_sampler_kinds(s, ALL_KINDS));
	if (r < 0)
		dc_group_free(s, g);
	else
		s->host = g;
	return r;
}

static void start(struct dc_sampler *s)
{
	int r = probe(s);

	if (r == 0)
		r = open_rings(s);
	if (r == 0 && s->config.host && sample_host(s) < 0) {
		dc_cpus_close(&s->cpus);
		s->config.host = false;
		r = open_rings(s);
	}
	if (r == 0)
		r = wait_for_changes(s, false);
	s->on = r == 0;
	if (r == -EPERM && dc_perf_paranoid() <= 2)
		snprintf(s->why, sizeof(s->why),
			 "no memory may be locked for the rings (ulimit -l, kernel.perf_event_mlock_kb)");
	else if (r < 0)
		dc_sampler_explain(r, s->why, sizeof(s->why));
}

int dc_sampler_new(const struct dc_sampler_config *config, struct dc_sampler **ret_sampler)
{
	struct dc_sampler *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->config = *config;
	s->epoll_fd = -1;
	pthread_mutex_init(&s->lock, NULL);
	if (s->config.hz > 10000)
		s->config.hz = 10000;
	if (s->config.hz == 0 && !s->config.ready)
		snprintf(s->why, sizeof(s->why), "switched off");
	else if (s->config.stacks == DC_STACKS_GUEST)
		snprintf(s->why, sizeof(s->why), "left to programs that record (--stacks guest)");
	else
		start(s);
	*ret_sampler = s;
	return 0;
}

static void process_free(struct process *p)
{
	dc_cpus_close(&p->own);
	free(p);
}

void dc_sampler_free(struct dc_sampler *s)
{
	if (!s)
		return;
	while (s->group_count)
		dc_group_free(s, s->groups[0]);
	if (s->epoll_fd >= 0)
		close(s->epoll_fd);
	dc_cpus_close(&s->cpus);
	for (uint32_t i = 0; i < s->process_count; i++)
		process_free(s->processes[i]);
	free(s->processes);
	free(s->groups);
	free(s->ids);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

/* --- processes --- */

/* The newest of this pid: older ones were other processes, or the same before it was added again. */
struct process *dc_sampler_find(const struct dc_sampler *s, uint32_t pid)
{
	for (uint32_t i = s->process_count; i-- > 0;)
		if (s->processes[i]->pid == pid)
			return s->processes[i];
	return NULL;
}

struct process *dc_process_new(struct dc_sampler *s, uint32_t pid, int64_t from_ns)
{
	struct process *p = s->process_count < PROCESSES_MAX ? calloc(1, sizeof(*p)) : NULL;
	struct process **more = p ? reallocarray(s->processes, s->process_count + 1, sizeof(struct process *)) : NULL;

	if (more)
		s->processes = more;
	if (!more) {
		free(p);
		return NULL;
	}
	p->pid = pid;
	p->from_ns = from_ns;
	s->processes[s->process_count++] = p;
	return p;
}

/* Whether anybody still needs the events of a group: the process they are of, or one it made. */
static bool group_needed(const struct dc_sampler *s, const struct group *g)
{
	for (uint32_t i = 0; i < s->process_count; i++)
		if ((s->processes[i]->group == g || s->processes[i]->boost == g) && dc_process_alive(s->processes[i]))
			return true;
	return g == s->host;
}

static int sample_process(struct dc_sampler *s, struct process *p)
{
	int r;

	p->group = dc_group_new(s, p->pid);
	if (!p->group)
		return -ENOMEM;
	r = dc_group_open(s, p->group, dc_sampler_kinds(s, ALL_KINDS));
	if (r == -EMFILE || r == -ENFILE) {
		const int few = dc_group_open(s, p->group, dc_sampler_kinds(s, FEW_KINDS));

		if (few == 0)
			snprintf(p->why, sizeof(p->why), "no switches: too many open files (ulimit -n)");
		r = few;
	}
	if (r < 0)
		dc_group_free(s, p->group);
	return r;
}

static int add(struct dc_sampler *s, uint32_t pid)
{
	struct process *p;
	int r = 0;

	if (!s->on)
		return 0;
	dc_sampler_drain(s);
	p = dc_sampler_find(s, pid);
	if (p && p->group && dc_process_alive(p)) {
		p->added = true;
		return 0;
	}
	p = dc_process_new(s, pid, dc_sampler_now_ns());
	if (!p)
		return -ENOMEM;
	p->added = true;
	p->group = s->host;
	if (!s->host)
		r = sample_process(s, p);
	if (r == -ESRCH) /* what was sampled of it before is found again */
		free(s->processes[--s->process_count]);
	else if (r < 0)
		dc_sampler_explain(r, p->why, sizeof(p->why));
	return r;
}

int dc_sampler_add(struct dc_sampler *s, uint32_t pid)
{
	int r;

	pthread_mutex_lock(&s->lock);
	r = add(s, pid);
	pthread_mutex_unlock(&s->lock);
	return r;
}

static void leave(struct process *p, int64_t forget_ns)
{
	p->forget_ns = forget_ns;
	p->copy_bytes = p->group ? p->group->copy_bytes : p->copy_bytes;
	p->off_cpu = p->group && p->group->kinds & 1u << DC_PERF_OFF;
}

void dc_sampler_remove(struct dc_sampler *s, uint32_t pid, int64_t keep_ns)
{
	struct process *p;

	pthread_mutex_lock(&s->lock);
	p = dc_sampler_find(s, pid);
	if (p && p->forget_ns == 0) {
		struct group *const of[] = {p->group, p->boost};

		leave(p, dc_sampler_now_ns() + (keep_ns > 0 ? keep_ns : 0));
		for (unsigned i = 0; i < 2; i++)
			if (of[i] && !group_needed(s, of[i]))
				dc_group_free(s, of[i]);
	}
	pthread_mutex_unlock(&s->lock);
}

static void raised_mode(const struct process *p, struct dc_sample_mode *m)
{
	const struct raised *r = p ? dc_process_raised(p) : NULL;

	if (!r)
		return;
	m->raised_hz = r->hz;
	m->raised_from_ns = r->from_ns;
	m->raised_to_ns = r->to_ns;
	m->hz = r->to_ns && m->hz ? m->hz : r->hz;
}

static void handed_mode(const struct dc_sampler *s, const struct process *p, struct dc_sample_mode *m)
{
	m->scope = DC_SAMPLE_SCOPE_HANDED;
	m->off_cpu = p->group ? p->group->kinds & 1u << DC_PERF_OFF : p->off_cpu;
	if (!m->why[0])
		snprintf(m->why, sizeof(m->why), "the process handed its events over%.40s",
			 m->off_cpu  ? ""
			 : s->kernel ? ", none of them off-CPU"
				     : "; off-CPU stacks are hidden from it");
}

void dc_sampler_mode(struct dc_sampler *s, uint32_t pid, struct dc_sample_mode *ret_mode)
{
	struct dc_sample_mode m = {.hz = s->config.hz};
	const struct process *p;
	const struct group *g;

	pthread_mutex_lock(&s->lock);
	p = dc_sampler_find(s, pid);
	g = p ? p->group : NULL;
	raised_mode(p, &m);
	if (!s->on)
		memcpy(m.why, s->why, sizeof(m.why));
	else if (!p)
		snprintf(m.why, sizeof(m.why), "nobody asked for it");
	else if (!m.hz)
		snprintf(m.why, sizeof(m.why), "switched off");
	else
		memcpy(m.why, p->why, sizeof(m.why));
	if (m.hz && (g || (p && p->forget_ns && !p->why[0]))) {
		m.scope = s->host ? 1 : 2;
		m.copy_bytes = g ? g->copy_bytes : p->copy_bytes;
		m.kernel = s->kernel;
		m.switches = !g || (g->kinds & 1u << DC_PERF_SWITCHES);
		m.off_cpu = s->kernel && (!g || (g->kinds & 1u << DC_PERF_OFF));
		if (p && p->own.count)
			handed_mode(s, p, &m);
		else if (!m.why[0] && !s->kernel)
			snprintf(m.why, sizeof(m.why),
				 "the kernel's own time and off-CPU stacks are hidden (kernel.perf_event_paranoid %d)",
				 dc_perf_paranoid());
	}
	pthread_mutex_unlock(&s->lock);
	*ret_mode = m;
}

void dc_sampler_tune(struct dc_sampler *s, uint32_t stack_used)
{
	uint32_t wanted = COPY_LEAST;

	while (wanted < DC_PERF_COPY_MAX && wanted < stack_used + stack_used / 4)
		wanted *= 2;
	pthread_mutex_lock(&s->lock);
	if (wanted < s->copy_bytes / 2) /* one capture of a shallow program says little of the others */
		wanted = s->copy_bytes / 2;
	if (!s->config.copy_bytes)
		s->copy_bytes = wanted < DC_PERF_COPY_MAX ? wanted : DC_PERF_COPY_MAX;
	pthread_mutex_unlock(&s->lock);
}

/* --- what the kernel tells of changes --- */

static void note(struct dc_sampler *s, enum note_kind kind, uint32_t pid, uint32_t parent)
{
	for (uint32_t i = 0; i < s->note_count && kind != NOTE_EXECED; i++)
		if (s->notes[i].kind == kind && s->notes[i].pid == pid)
			return;
	if (s->note_count < NOTES_MAX)
		s->notes[s->note_count++] = (struct note){kind, pid, parent};
	else
		s->lost_changes = true;
}

/* Of struct perf_event_mmap, _comm, _task: pid and tid come first; a task's then say by whom, and when. */
struct change {
	uint32_t pid;
	uint32_t other; /* tid; of a task, the parent's pid */
	uint32_t tid;
	uint32_t by;
	int64_t time_ns;
};

static void on_task(struct dc_sampler *s, const struct change *c, bool fork)
{
	const bool process = c->pid == c->tid;
	struct process *p = dc_sampler_find(s, fork && process ? c->other : c->pid);

	if (!fork) {
		if (p && process && dc_process_alive(p) && !p->added)
			p->ended = true; /* its other threads, if any, are not worth keeping the parent's events for */
		return;
	}
	s->forks[s->fork_count++ % FORKS_MAX] = (struct fork_seen){c->tid, c->by, c->time_ns};
	if (!process || c->pid == c->other || !p || !p->group)
		return;
	{
		struct process *child = dc_process_new(s, c->pid, c->time_ns);

		if (!child)
			return;
		dc_process_inherit(child, p, c->time_ns);
		note(s, NOTE_FORKED, c->pid, c->other);
		for (unsigned i = 0; i < EARLY_MAX; i++)
			if (s->early[i] == c->pid) {
				s->early[i] = 0;
				note(s, NOTE_EXECED, c->pid, 0);
			}
	}
}

static bool on_change(void *arg, const struct perf_event_header *record, size_t bytes)
{
	struct dc_sampler *s = arg;
	struct change c = {0};
	struct process *p;

	bytes -= sizeof(*record);
	memcpy(&c, record + 1, bytes < sizeof(c) ? bytes : sizeof(c));
	switch (record->type) {
	case PERF_RECORD_FORK:
	case PERF_RECORD_EXIT:
		if (bytes >= sizeof(c))
			on_task(s, &c, record->type == PERF_RECORD_FORK);
		break;
	case PERF_RECORD_COMM:
	case PERF_RECORD_MMAP:
		p = dc_sampler_find(s, c.pid);
		if (!p && record->type == PERF_RECORD_COMM && (record->misc & PERF_RECORD_MISC_COMM_EXEC))
			s->early[s->early_count++ % EARLY_MAX] = c.pid;
		if (!p || !p->group ||
		    (record->type == PERF_RECORD_COMM && !(record->misc & PERF_RECORD_MISC_COMM_EXEC)))
			break;
		if (record->type == PERF_RECORD_COMM && p->group->root == c.pid)
			p->group->decide = true;
		if (record->type == PERF_RECORD_COMM)
			note(s, NOTE_EXECED, c.pid, 0);
		note(s, NOTE_MAPPED, c.pid, 0);
		break;
	case PERF_RECORD_LOST:
		s->lost_changes = true;
		break;
	default:
		break;
	}
	return true;
}

void dc_sampler_drain(struct dc_sampler *s)
{
	for (uint32_t i = 0; i < s->cpus.count; i++)
		if (s->cpus.at[i].ring[RING_CHANGES].page)
			dc_perf_ring_read(&s->cpus.at[i].ring[RING_CHANGES], on_change, s);
}

/* What waits for the watcher; all processes after something was lost. Return: how many. */
static uint32_t take_notes(struct dc_sampler *s, struct note ret_notes[static NOTES_MAX], uint32_t **ret_all,
			   uint32_t *ret_count)
{
	const uint32_t count = s->note_count;

	memcpy(ret_notes, s->notes, count * sizeof(*ret_notes));
	s->note_count = 0;
	*ret_all = s->lost_changes ? calloc(s->process_count + 1, sizeof(uint32_t)) : NULL;
	*ret_count = 0;
	for (uint32_t i = 0; *ret_all && i < s->process_count; i++)
		if (dc_process_alive(s->processes[i]))
			(*ret_all)[(*ret_count)++] = s->processes[i]->pid;
	s->lost_changes = false;
	return count;
}

/* Without the lock: the watcher may call back. */
static void tell(struct dc_sampler *s)
{
	const struct dc_sampler_config *c = &s->config;
	CLEANUP(free) uint32_t *all = NULL;
	struct note notes[NOTES_MAX];
	uint32_t count, all_count;

	pthread_mutex_lock(&s->lock);
	count = take_notes(s, notes, &all, &all_count);
	pthread_mutex_unlock(&s->lock);
	for (uint32_t i = 0; i < count; i++) {
		if (notes[i].kind == NOTE_FORKED && c->forked)
			c->forked(c->arg, notes[i].parent, notes[i].pid);
		if (notes[i].kind == NOTE_EXECED && c->execed)
			c->execed(c->arg, notes[i].pid);
		if (notes[i].kind == NOTE_MAPPED && c->mapped)
			c->mapped(c->arg, notes[i].pid);
	}
	for (uint32_t i = 0; c->mapped && i < all_count; i++)
		c->mapped(c->arg, all[i]);
}

int dc_sampler_fd(const struct dc_sampler *s)
{
	return s->on ? s->epoll_fd : -1;
}

void dc_sampler_dispatch(struct dc_sampler *s)
{
	struct epoll_event ignored[16];

	if (!s->on)
		return;
	pthread_mutex_lock(&s->lock);
	(void)!epoll_wait(s->epoll_fd, ignored, 16, 0); /* polling an event takes its readiness back */
	dc_sampler_drain(s);
	if (++s->dispatched > WAKES_MAX && !s->muted)
		wait_for_changes(s, true);
	pthread_mutex_unlock(&s->lock);
	tell(s);
}

/* --- now and then --- */

static void clean_ids(struct dc_sampler *s, int64_t now)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < s->id_count; i++)
		if (s->ids[i].gone_ns == 0 || now - s->ids[i].gone_ns < IDS_KEPT_NS)
			s->ids[kept++] = s->ids[i];
	s->id_count = kept;
}

static void clean_processes(struct dc_sampler *s, int64_t now)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < s->process_count; i++) {
		struct process *p = s->processes[i];

		if (!p->added && p->forget_ns == 0 && (p->ended || (kill((pid_t)p->pid, 0) < 0 && errno == ESRCH))) {
			p->ended = true;
			leave(p, now + IDS_KEPT_NS / 10);
		}
		if (p->forget_ns && now >= p->forget_ns)
			process_free(p);
		else
			s->processes[kept++] = p;
	}
	s->process_count = kept;
}

static void clean_groups(struct dc_sampler *s)
{
	for (uint32_t i = s->group_count; i-- > 0;)
		if (!group_needed(s, s->groups[i]))
			dc_group_free(s, s->groups[i]);
}

void dc_sampler_tick(struct dc_sampler *s)
{
	const int64_t now = dc_sampler_now_ns();

	if (!s->on)
		return;
	pthread_mutex_lock(&s->lock);
	dc_sampler_drain(s);
	dc_group_tune_all(s, now);
	if (now - s->cleaned_ns >= CLEAN_NS) {
		clean_ids(s, now);
		clean_processes(s, now);
		clean_groups(s);
		s->cleaned_ns = now;
	}
	s->dispatched = 0;
	if (s->muted)
		wait_for_changes(s, false);
	pthread_mutex_unlock(&s->lock);
	tell(s);
}
