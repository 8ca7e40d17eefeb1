/* SPDX-License-Identifier: MIT */
#include "trigger/watcher.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <time.h>

#include "persist/store.h"
#include "trigger/death.h"
#include "trigger/handover.h"
#include "trigger/http.h"
#include "trigger/notify.h"
#include "trigger/settler.h"
#include "trigger/watcher_inside.h"

#define LOOK_NS (SECOND_NS / 4)
#define KNOWN_STEP_NS (30 * SECOND_NS)
#define CLOSE_WAIT_NS SECOND_NS /* for the last deaths to be judged */

/* What an event of the loop is about; every other value is a struct dc_entry whose pidfd became readable. */
int64_t dc_watcher_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * SECOND_NS + ts.tv_nsec;
}

void dc_watcher_say(struct dc_watcher *w, const char *format, ...)
{
	char line[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	if (w->config.log)
		w->config.log(w->config.log_arg, line);
}

void dc_watcher_defaults(struct dc_watcher_config *config)
{
	*config = (struct dc_watcher_config){
		.last_ns = 30 * SECOND_NS,
		.grace_ns = 600 * SECOND_NS,
		.budget = {.cooldown_ns = 10 * SECOND_NS, .per_hour = 60},
		.disk_bytes = UINT64_C(4) << 30,
		.on_death = true,
		.sweep = true,
		.threads = true,
		.settle = true,
		.sample_hz = 49,
		.zstd_level = 3,
	};
}

static void watch_end(struct dc_watcher *w, struct dc_entry *e)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = e};

	if (e->pidfd < 0 && dc_death_watch(e->ring->pid, e->ring->header.start_time, &e->pidfd) < 0)
		return; /* not ours to see, or dead: the lock tells */
	if (epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, e->pidfd, &event) < 0)
		close(TAKE_FD(e->pidfd));
}

static void ask_window(struct dc_watcher *w, const struct dc_ring *ring)
{
	const uint64_t probe = UINT64_C(1) << 32;
	uint64_t units = 0, lasts_ns;
	struct dc_clock clock;

	if (w->config.window_ns && dc_ring_clock(ring, &clock) == 0 &&
	    (lasts_ns = dc_clock_duration_ns(&clock, probe)))
		units = (uint64_t)((double)w->config.window_ns / (double)lasts_ns * (double)probe);
	dc_ring_set_window(ring, (uint32_t)getpid(), units);
}

/*
 * What only a living process tells. Its address space when something was mapped; the rest when it is found, once its threads
 * have had time to take names, then seldom.
 */
static void remember(struct dc_entry *e, int64_t now)
{
	const struct dc_ring *ring = e->ring;

	if (e->gone)
		return;
	if (dc_maps_due(ring->maps, now))
		dc_maps_look(ring->maps, ring->pid, ring->header.start_time);
	if (now < e->known_due_ns)
		return;
	dc_known_look(ring->known, ring->pid, ring->header.pid, ring->header.start_time);
	dc_watcher_note_group(e);
	e->known_step_ns = e->known_step_ns ? KNOWN_STEP_NS : SECOND_NS;
	e->known_due_ns = now + e->known_step_ns;
}

static void on_found(void *arg, struct dc_entry *e)
{
	struct dc_watcher *w = arg;

	watch_end(w, e);
	dc_sampling_add(w, e);
	dc_raising_inherit(w, e);
	if (!e->ring->bare)
		dc_sampling_supersede(w, e->ring);
	remember(e, dc_watcher_now_ns());
	ask_window(w, e->ring);
	dc_ruling_found(w, e, dc_watcher_now_ns());
	if (w->config.on_found && !e->ring->bare)
		w->config.on_found(w->config.on_arg, e->ring);
	dc_roster_look(w->roster, e, dc_watcher_now_ns());
}

static void on_forgotten(void *arg, struct dc_entry *e)
{
	dc_ruling_forget(arg, e);
}

static void on_log(void *arg, const char *line)
{
	dc_watcher_say(arg, "%s", line);
}

/* --- the loop --- */

static void take_settled(struct dc_watcher *w)
{
	char line[1024];

	while (dc_settler_report(w->settler, line, sizeof(line)))
		dc_watcher_say(w, "%s", line);
	if (w->sampler && dc_settler_stack_used(w->settler))
		dc_sampler_tune(w->sampler, dc_settler_stack_used(w->settler));
}

static void on_doorbell(struct dc_watcher *w)
{
	char bytes[64];

	/* What it says is a hint at best; that somebody rang is all we take from it. */
	for (unsigned i = 0; i < 64 && recv(w->doorbell_fd, bytes, sizeof(bytes), 0) >= 0; i++)
		w->look_now = true;
}

static void on_signals(struct dc_watcher *w)
{
	struct signalfd_siginfo info;

	while (read(w->signal_fd, &info, sizeof(info)) == sizeof(info)) {
		if (w->config.on_signal && w->config.on_signal(w->config.on_signal_arg, &info))
			continue;
		if (info.ssi_signo == SIGUSR1 &&
		    dc_watcher_save_all(w, DC_REASON_SIGNAL, "SIGUSR1", true) == 0)
			dc_watcher_say(w, "SIGUSR1: no process is recording, nothing to save");
		else if (info.ssi_signo == SIGHUP)
			dc_ruling_reload(w);
		else if (info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT)
			w->stop = true;
	}
}

static bool anybody_alive(const struct dc_watcher *w)
{
	for (uint32_t i = 0; i < dc_roster_count(w->roster); i++)
		if (!dc_roster_at(w->roster, i)->gone)
			return true;
	return false;
}

static void on_timer(struct dc_watcher *w)
{
	const int64_t now = dc_watcher_now_ns();
	const int64_t known_ns = w->config.last_ns ? w->config.last_ns : 30 * SECOND_NS;
	uint64_t ignored;

	if (read(w->timer_fd, &ignored, sizeof(ignored)) < 0)
		return;
	dc_home_look(w);
	dc_watcher_hear_exits(w);
	dc_roster_tick(w->roster, now);
	for (uint32_t i = 0; i < dc_roster_count(w->roster); i++)
		remember(dc_roster_at(w->roster, i), now);
	dc_files_sweep(now);
	dc_sampler_tick(w->sampler);
	dc_raising_tick(w);
	dc_sampling_tick(w);
	dc_watcher_judge_all(w);
	dc_living_look(w, now);
	dc_ruling_look(w, now);
	if (w->metrics)
		dc_http_tick(w->metrics, now);
	dc_roster_expire(w->roster, now, w->config.grace_ns, known_ns, w->config.sweep);
	if (w->config.stop_alone && !anybody_alive(w))
		w->stop = true;
	if (w->watchdog_ns && now - w->watchdog_last_ns >= w->watchdog_ns) {
		dc_notify("WATCHDOG=1");
		w->watchdog_last_ns = now;
	}
}

/* A process ended; nothing is as old as its entry in the loop, which only the timer removes. */
static void on_end(struct dc_watcher *w, struct dc_entry *e)
{
	epoll_ctl(w->epoll_fd, EPOLL_CTL_DEL, e->pidfd, NULL);
	dc_roster_look(w->roster, e, dc_watcher_now_ns());
}

static void handle(struct dc_watcher *w, const struct epoll_event *event)
{
	switch (event->data.u64) {
	case SOURCE_ROSTER:
		dc_roster_event(w->roster);
		break;
	case SOURCE_DOORBELL:
		on_doorbell(w);
		break;
	case SOURCE_CONTROL:
		dc_control_dispatch(w->control);
		break;
	case SOURCE_SIGNAL:
		on_signals(w);
		break;
	case SOURCE_WORKER:
		dc_watcher_take_reports(w);
		break;
	case SOURCE_SETTLER:
		take_settled(w);
		break;
	case SOURCE_SAMPLER:
		dc_sampler_dispatch(w->sampler);
		break;
	case SOURCE_HANDOVER:
		if (w->handover) /* another event of this round may have closed it */
			dc_handover_dispatch(w->handover);
		break;
	case SOURCE_METRICS:
		dc_http_dispatch(w->metrics, dc_watcher_now_ns());
		break;
	case SOURCE_TIMER:
		break; /* last of all: it lets go of entries that other events may name */
	default:
		on_end(w, event->data.ptr);
	}
}

static int step(struct dc_watcher *w)
{
	struct epoll_event events[64];
	bool timer = false;
	int n = epoll_wait(w->epoll_fd, events, 64, dc_roster_unready(w->roster) ? DC_ROSTER_UNREADY_MS : -1);

	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	for (int i = 0; i < n; i++) {
		handle(w, &events[i]);
		timer = timer || events[i].data.u64 == SOURCE_TIMER;
	}
	if (dc_roster_unready(w->roster))
		dc_roster_retry(w->roster);
	if (w->look_now)
		dc_roster_tick(w->roster, dc_watcher_now_ns());
	w->look_now = false;
	if (timer)
		on_timer(w);
	return 0;
}

int dc_watcher_loop(struct dc_watcher *w)
{
	int r = 0;

	dc_notify("READY=1");
	while (!w->stop && r == 0)
		r = step(w);
	dc_notify("STOPPING=1");
	return r;
}

void dc_watcher_stop(struct dc_watcher *w)
{
	w->stop = true;
}

uint32_t dc_watcher_rings(const struct dc_watcher *w)
{
	return dc_roster_count(w->roster);
}

uint64_t dc_watcher_captures(const struct dc_watcher *w)
{
	return w->captures;
}

/* --- open and close --- */

int dc_watcher_listen(struct dc_watcher *w, int fd, enum source source)
{
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = source};

	return epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

static int open_timer(struct dc_watcher *w)
{
	const struct itimerspec every = {.it_interval = {.tv_nsec = LOOK_NS},
					 .it_value = {.tv_nsec = LOOK_NS}};

	w->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (w->timer_fd < 0 || timerfd_settime(w->timer_fd, 0, &every, NULL) < 0)
		return -errno;
	return dc_watcher_listen(w, w->timer_fd, SOURCE_TIMER);
}

static int open_signals(struct dc_watcher *w)
{
	sigset_t set;

	sigemptyset(&set);
	if (w->config.signals)
		set = *w->config.signals;
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGUSR1);
	if (w->config.reload)
		sigaddset(&set, SIGHUP);
	if (pthread_sigmask(SIG_BLOCK, &set, NULL) != 0)
		return -EINVAL;
	w->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return w->signal_fd < 0 ? -errno : dc_watcher_listen(w, w->signal_fd, SOURCE_SIGNAL);
}

static int open_worker(struct dc_watcher *w)
{
	const struct dc_budget_limits deaths = {.per_hour = w->config.budget.per_hour};
	int r = dc_budget_new(&w->config.budget, &w->budget);

	if (r == 0)
		r = dc_budget_new(&deaths, &w->deaths);
	if (r == 0)
		r = dc_worker_new(DC_WORKER_RETRY_NS, &w->worker);
	return r < 0 ? r : dc_watcher_listen(w, dc_worker_fd(w->worker), SOURCE_WORKER);
}

static int open_settler(struct dc_watcher *w)
{
	const struct dc_watcher_config *c = &w->config;
	const struct dc_settler_config settler = {
		.settle = c->settle, .zstd_level = c->zstd_level, .disk_bytes = c->disk_bytes};
	int r = dc_settler_new(&settler, &w->settler);

	if (r < 0)
		return r;
	dc_settler_adopt(w->settler, c->output.dir, c->output.per_uid);
	return dc_watcher_listen(w, dc_settler_fd(w->settler), SOURCE_SETTLER);
}

static int open_sampler(struct dc_watcher *w)
{
	int r = dc_sampling_open(w), fd = r == 0 ? dc_sampler_fd(w->sampler) : -1;

	if (r < 0 || fd < 0)
		return r;
	r = dc_watcher_listen(w, fd, SOURCE_SAMPLER);
	return r == 0 ? dc_sampling_listen(w) : r;
}

/* A place that cannot take captures is told now rather than when one is due. */
static int check_output(const struct dc_watcher *w, char why[static DC_WHY_BYTES])
{
	CLEANUP(close_fd) int fd = -1;
	char long_why[DC_STORE_WHY_BYTES];
	const bool ours = access(w->config.output.dir, F_OK) < 0;
	int r = dc_store_open(geteuid(), w->config.output.dir, &fd, long_why);

	if (r == 0 && ours && w->config.output.per_uid && fchmod(fd, 0711) < 0) /* users pass, to what is theirs */
		r = -errno;
	if (r == 0 && faccessat(fd, ".", W_OK | X_OK, AT_EACCESS) < 0) {
		r = -errno;
		snprintf(long_why, sizeof(long_why), "capture directory '%.90s': cannot write to it: %s",
			 w->config.output.dir, strerror(-r));
	}
	if (r < 0)
		snprintf(why, DC_WHY_BYTES, "%.159s", long_why);
	return r;
}

static int open_roster(struct dc_watcher *w)
{
	static const struct dc_roster_handler handler = {.found = on_found,
							 .trigger = dc_watcher_on_trigger,
							 .overwritten = dc_watcher_on_overwritten,
							 .gone = dc_watcher_on_gone,
							 .forgotten = on_forgotten,
							 .log = on_log};
	int r = dc_roster_new(w->dir_fd, w->config.dir, &handler, w, &w->roster);

	return r < 0 ? r : dc_watcher_listen(w, dc_roster_fd(w->roster), SOURCE_ROSTER);
}

/* Two descriptors per ring; the usual 1,024 would do for some five hundred. */
static void raise_limits(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
}

static int open_all(struct dc_watcher *w, char why[static DC_WHY_BYTES])
{
	int r = dc_home_open(w, why);

	if (r == 0)
		r = check_output(w, why);
	if (r < 0)
		return r;
	snprintf(why, DC_WHY_BYTES, "cannot watch '%.80s'", w->config.dir);
	w->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (w->epoll_fd < 0)
		return -errno;
	r = open_signals(w);
	if (r == 0)
		r = dc_home_listen(w);
	if (r == 0)
		r = open_timer(w);
	if (r == 0)
		r = open_worker(w);
	if (r == 0)
		r = open_settler(w);
	if (r == 0)
		r = open_sampler(w);
	if (r == 0)
		r = dc_ruling_open(w);
	if (r == 0)
		r = open_roster(w);
	if (r < 0) {
		snprintf(why, DC_WHY_BYTES, "cannot watch '%.80s': %s", w->config.dir, strerror(-r));
		return r;
	}
	r = dc_metrics_open(w, why);
	if (r == 0 && w->metrics)
		r = dc_watcher_listen(w, dc_http_fd(w->metrics), SOURCE_METRICS);
	if (r < 0)
		return r;
	dc_death_connector(&w->connector_fd); /* where we may; it is all there is of a process reaped before it was seen */
	dc_roster_scan(w->roster);
	return 0;
}

int dc_watcher_open(const struct dc_watcher_config *config, struct dc_watcher **ret_watcher,
		    char ret_why[static DC_WHY_BYTES])
{
	struct dc_watcher *w = calloc(1, sizeof(*w));
	struct timespec ts;
	int r;

	if (!w) {
		snprintf(ret_why, DC_WHY_BYTES, "no memory");
		return -ENOMEM;
	}
	clock_gettime(CLOCK_REALTIME, &ts);
	w->started_ns = ts.tv_sec * SECOND_NS + ts.tv_nsec;
	w->config = *config;
	w->dir_fd = w->lock_fd = w->epoll_fd = w->doorbell_fd = w->signal_fd = w->timer_fd = w->connector_fd =
		-1;
	w->watchdog_ns = dc_notify_watchdog_ns();
	raise_limits();
	r = open_all(w, ret_why);
	if (r < 0) {
		dc_watcher_close(w, false);
		return r;
	}
	*ret_watcher = w;
	return 0;
}

/* Deaths of the last moment, for a second at most. */
static void judge_last(struct dc_watcher *w)
{
	const int64_t until = dc_watcher_now_ns() + CLOSE_WAIT_NS;

	dc_roster_event(w->roster);
	for (uint32_t i = 0; i < dc_roster_count(w->roster); i++)
		dc_roster_look(w->roster, dc_roster_at(w->roster, i), dc_watcher_now_ns());
	while (dc_watcher_judge_all(w) && dc_watcher_now_ns() < until) {
		poll(NULL, 0, 50);
	}
	for (uint32_t i = 0; i < dc_roster_count(w->roster); i++)
		w->failed += dc_roster_at(w->roster, i)->gone && !dc_roster_at(w->roster, i)->judged;
}

static void say_goodbye(struct dc_watcher *w)
{
	for (uint32_t i = 0; i < dc_roster_count(w->roster); i++)
		dc_ring_set_window(dc_roster_at(w->roster, i)->ring, 0, 0);
}

static void close_if(int fd)
{
	if (fd >= 0)
		close(fd);
}

/* The mirror of open_all(). */
unsigned dc_watcher_close(struct dc_watcher *w, bool drain)
{
	unsigned unsaved;

	if (w->roster && w->worker) {
		judge_last(w);
		dc_ruling_leave(w);
		say_goodbye(w);
		dc_worker_finish(w->worker);
		dc_sampling_close(w); /* captures say how their processes were sampled */
		dc_watcher_take_reports(w);
		dc_settler_finish(w->settler, drain);
		take_settled(w);
	}
	close_if(w->connector_fd);
	dc_http_free(w->metrics);
	dc_living_free(w->living);
	dc_roster_free(w->roster);
	dc_ruling_close(w);
	dc_settler_free(w->settler);
	dc_worker_free(w->worker);
	if (w->handover)
		unlinkat(w->dir_fd, DC_HANDOVER_SOCKET, 0);
	dc_handover_close(w->handover);
	dc_sampler_free(w->sampler);
	dc_budget_free(w->deaths);
	dc_budget_free(w->budget);
	close_if(w->timer_fd);
	if (w->doorbell_fd >= 0) {
		unlinkat(w->dir_fd, DC_RINGS_DOORBELL, 0);
		close(w->doorbell_fd);
	}
	dc_control_free(w->control);
	close_if(w->signal_fd);
	close_if(w->epoll_fd);
	close_if(w->lock_fd);
	close_if(w->dir_fd);
	unsaved = (unsigned)(w->failed + w->unknown_deaths);
	free(w);
	return unsaved;
}
