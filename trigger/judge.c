/* SPDX-License-Identifier: MIT */
/*
 * How processes ended. A lock that is gone says only that an image is no more: its process may have called exec, may
 * have said goodbye, or may have died. What is not known for sure is called unknown and not guessed.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "trigger/death.h"
#include "trigger/proc.h"
#include "trigger/watcher_inside.h"

#define ALIVE_LOOKS 8u /* lock gone, process there: an exit takes its time, after 2 s it was exec */
#define EXIT_RECALL_NS (2 * SECOND_NS)
#define UNKNOWN_LOOKS 4u   /* dead, and its parent has not asked how */
#define CONNECTOR_LOOKS 2u /* the kernel's message comes a moment after the lock is gone */

static bool process_ended(const struct dc_entry *e)
{
	struct pollfd p = {.fd = e->pidfd, .events = POLLIN};
	struct dc_proc_stat st;

	if (e->exit_known)
		return true;
	if (e->pidfd >= 0)
		return poll(&p, 1, 0) > 0;
	return e->ring->pid == 0 || dc_proc_stat(e->ring->pid, &st) < 0 || st.state == 'Z' ||
	       st.start_time != e->ring->header.start_time;
}

int dc_watcher_save_death(struct dc_watcher *w, struct dc_entry *e, int signal, int64_t after_ns)
{
	CLEANUP(free) struct selection *s = calloc(1, sizeof(*s));
	char text[128];
	int r;
	const struct dc_cause cause = {.expression = "exit signal",
				       .sentence = "when a process dies by a signal",
				       .unit = DC_UNIT_SIGNAL,
				       .value = signal};
	const struct firing f = {.reason = DC_REASON_DEATH,
				 .rule = "default.exit-signal",
				 .cause = &cause,
				 .text = text,
				 .severity = SEVERITY_DEATH,
				 .pid = e->ring->pid ? e->ring->pid : e->ring->header.pid,
				 .signal = (uint32_t)signal,
				 .budgeted = true,
				 .window = {.last_ns = w->config.last_ns, .after_ns = after_ns}};

	snprintf(text, sizeof(text), "%s died by SIG%s", e->ring->header.name,
		 sigabbrev_np(signal) ? sigabbrev_np(signal) : "?");
	if (!s)
		return -EBUSY;
	if (!dc_ruling_select_death(w, e, s))
		return 0;
	r = dc_watcher_fire(w, &f, s, NULL, NULL);
	if (r < 0 && r != -EBUSY) {
		w->failed++;
		dc_watcher_say(w, "death of '%s' not saved: %s", e->ring->header.name, strerror(-r));
	}
	return r;
}

/* Saved when the signal came; unless it got over that one. */
static bool died_as_told(const struct dc_entry *e, const struct dc_entry *image)
{
	return image->crashed && (!e->exit_known || (WIFSIGNALED(e->exit_status) && WTERMSIG(e->exit_status) == image->crashed));
}

/* Scripts end their helpers by signals all the time; one that nobody asked to be watched has to crash, or be killed. */
static bool worth_saving(const struct dc_entry *e)
{
	switch (WTERMSIG(e->exit_status)) {
	case SIGABRT:
	case SIGBUS:
	case SIGFPE:
	case SIGILL:
	case SIGKILL:
	case SIGSEGV:
	case SIGSYS:
	case SIGTRAP:
		return true;
	default:
		return !e->descendant;
	}
}

/* How it ended is settled, for all images of the process. */
static void conclude(struct dc_watcher *w, struct dc_entry *e)
{
	const struct dc_ring_header *h = &e->ring->header;
	bool told = died_as_told(e, e);

	for (uint32_t i = 0; i < dc_roster_count(w->roster); i++) {
		struct dc_entry *other = dc_roster_at(w->roster, i);

		if (!dc_entry_same(other, e) || !other->gone)
			continue;
		other->judged = true;
		other->exit_known = e->exit_known;
		other->exit_status = e->exit_status;
		told = told || died_as_told(e, other);
	}
	dc_worker_died(w->worker, h->pid, h->start_time, e->exit_known, e->exit_status);
	dc_sampling_remove(w, e->ring);
	/* Of one that was told it is saved already. Of others the ring does not change any more: there is time to try again. */
	if (!told && e->exit_known && WIFSIGNALED(e->exit_status) && w->config.on_death && worth_saving(e) &&
	    dc_watcher_save_death(w, e, WTERMSIG(e->exit_status), 0) == -EBUSY)
		e->judged = false;
	dc_ruling_ended(w, e); /* now what other rules say of it becomes part of that */
	if (told || (e->exit_known && WIFSIGNALED(e->exit_status)))
		return;
	if (!e->exit_known && e->ring->bare) {
		if (!e->descendant)
			dc_watcher_say(w, "process '%s' (%u) is gone and how is not known", h->name, h->pid);
	} else if (!e->exit_known && !e->goodbye) {
		w->unknown_deaths++;
		dc_watcher_say(w,
			       "process '%s' (%u) is gone and how is not known: for %lld s 'dashcam recover "
			       "%s/%s' saves its past",
			       h->name, h->pid, (long long)(w->config.grace_ns / SECOND_NS), w->config.dir,
			       e->ring->name);
	}
}

static int64_t boottime_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return ts.tv_sec * SECOND_NS + ts.tv_nsec;
}

static void note_exit(void *arg, uint32_t pid, int status)
{
	struct dc_watcher *w = arg;

	w->exits[pid % EXITS_MAX] = (struct exit_seen){.pid = pid, .status = status, .at_ns = boottime_ns()};
}

void dc_watcher_hear_exits(struct dc_watcher *w)
{
	if (w->connector_fd >= 0)
		dc_death_connector_read(w->connector_fd, note_exit, w);
}

/* Was its exit told before its ring was found? Not so long ago that the pid could be another's. */
static void recall_exit(struct dc_watcher *w, struct dc_entry *e)
{
	const struct exit_seen *x = &w->exits[e->ring->pid % EXITS_MAX];
	const int64_t tick_ns = SECOND_NS / sysconf(_SC_CLK_TCK);
	const uint64_t ended = (uint64_t)(x->at_ns / tick_ns);

	if (e->exit_known || x->pid == 0 || x->pid != e->ring->pid || boottime_ns() - x->at_ns > EXIT_RECALL_NS ||
	    ended < e->ring->header.start_time)
		return;
	e->exit_known = true;
	e->exit_status = x->status;
}

/* Return: 0 it is known or never will be; -EAGAIN somebody may still tell. */
static int ask_how(const struct dc_watcher *w, struct dc_entry *e)
{
	int r = -ENODATA;

	if (e->exit_known)
		return 0;
	if (e->pidfd >= 0)
		r = dc_death_ask(e->pidfd, e->ring->pid, e->ring->header.start_time, &e->exit_status);
	e->exit_known = r == 0;
	if (r == 0 || e->goodbye)
		return 0;
	if (r == -EAGAIN)
		return e->asked <= UNKNOWN_LOOKS ? -EAGAIN : 0;
	return w->connector_fd >= 0 && e->ring->pid && e->asked <= CONNECTOR_LOOKS ? -EAGAIN : 0;
}

static void judge(struct dc_watcher *w, struct dc_entry *e)
{
	if (e->ring->bare)
		dc_roster_event(w->roster); /* it may have a ring since a moment ago, which is then what is saved */
	if (e->superseded)
		return;
	e->asked++;
	dc_watcher_hear_exits(w);
	recall_exit(w, e);
	if (!process_ended(e)) {
		e->replaced = e->judged = e->asked > ALIVE_LOOKS;
		if (e->replaced)
			dc_ruling_exec(w, e);
	} else if (ask_how(w, e) == 0) {
		conclude(w, e);
	}
}

void dc_watcher_on_gone(void *arg, struct dc_entry *e)
{
	dc_watcher_note_group(e);
	dc_ruling_gone(e);
	judge(arg, e);
}

bool dc_watcher_judge_all(struct dc_watcher *w)
{
	bool open = false;

	for (uint32_t i = 0; i < dc_roster_count(w->roster); i++) {
		struct dc_entry *e = dc_roster_at(w->roster, i);

		if (e->gone && !e->judged) {
			judge(w, e);
			open = open || !e->judged;
		}
	}
	return open;
}

void dc_watcher_exited(struct dc_watcher *w, uint32_t pid, int status)
{
	note_exit(w, pid, status);
	dc_roster_event(w->roster); /* a ring made a moment ago */
	for (uint32_t i = 0; i < dc_roster_count(w->roster); i++) {
		struct dc_entry *e = dc_roster_at(w->roster, i);

		if (e->ring->pid != pid || (e->judged && e->exit_known))
			continue;
		e->exit_known = true; /* also of one that said goodbye and was not asked about: captures name it */
		e->exit_status = status;
		if (!e->judged)
			dc_roster_look(w->roster, e, dc_watcher_now_ns());
		else
			dc_ruling_ended(w, e);
	}
}
