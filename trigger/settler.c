/* SPDX-License-Identifier: MIT */
#include "trigger/settler.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ipc/cleanup.h"
#include "persist/store.h"
#include "persist/writer.h"
#include "trigger/files.h"
#include "trigger/size.h"

#define QUEUE_MAX 64u
#define LINES_MAX 64u
#define LINE_BYTES 768u

struct work {
	char dir[512];
	char name[256]; /* empty: look at the directory itself */
};

struct dc_settler {
	struct dc_settler_config config;
	pthread_t thread;
	bool started;
	int event_fd;
	pthread_mutex_t lock; /* everything below */
	pthread_cond_t changed;
	bool stopping;
	bool drain;
	uint32_t stack_used;
	uint32_t first, count;
	struct work queue[QUEUE_MAX];
	uint32_t line_first, line_count;
	char lines[LINES_MAX][LINE_BYTES];
};

__attribute__((format(printf, 2, 3))) static void report(struct dc_settler *s, const char *format, ...)
{
	va_list args;

	pthread_mutex_lock(&s->lock);
	if (s->line_count < LINES_MAX) { /* beyond that nobody reads them anyway */
		va_start(args, format);
		vsnprintf(s->lines[(s->line_first + s->line_count++) % LINES_MAX], LINE_BYTES, format, args);
		va_end(args);
		eventfd_write(s->event_fd, 1);
	}
	pthread_mutex_unlock(&s->lock);
}

static uint64_t size_of(int dir_fd, const char *name)
{
	struct stat st;

	return fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 ? (uint64_t)st.st_size : 0;
}

/* Files by the descriptors that address spaces hold, answers about earlier ones from beside the captures. */
static int settle_with_names(struct dc_settler *s, int dir_fd, const char *name, struct dc_settle_result *ret_result)
{
	CLEANUP(close_fd) int names_fd = dc_store_names(dir_fd);
	const struct dc_settle_options options = {.zstd_level = s->config.zstd_level,
						  .resolve = {.open = dc_files_open, .cache_fd = names_fd}};

	return dc_settle(dir_fd, name, &options, ret_result);
}

static void settle(struct dc_settler *s, int dir_fd, const struct work *w)
{
	const uint64_t before = size_of(dir_fd, w->name);
	struct dc_settle_result result = {0};
	int r = settle_with_names(s, dir_fd, w->name, &result);

	if (result.stack_used) {
		pthread_mutex_lock(&s->lock);
		s->stack_used = result.stack_used;
		pthread_mutex_unlock(&s->lock);
	}
	if (r == 0)
		report(s, "capture '%s/%s': settled, %s instead of %s%s%s", w->dir, w->name,
		       dc_size_text(size_of(dir_fd, w->name)).s, dc_size_text(before).s, result.why[0] ? "; stacks: " : "", result.why);
	else if (r < 0 && r != -ENOENT) /* its owner may have moved it by now */
		report(s, "capture '%s/%s': not settled, it stays raw: %s", w->dir, w->name, strerror(-r));
}

static void evict(struct dc_settler *s, int dir_fd, const char *dir)
{
	uint64_t bytes = 0;
	unsigned removed = 0;
	int r = dc_store_evict(dir_fd, s->config.disk_bytes, &removed, &bytes);

	if (removed)
		report(s, "captures in '%s': removed %u, %s, to stay within %s", dir, removed,
		       dc_size_text(bytes).s, dc_size_text(s->config.disk_bytes).s);
	if (r < 0)
		report(s, "captures in '%s': cannot keep them within the budget: %s", dir, strerror(-r));
}

/* Raw captures of a watcher that was before us. */
static void look_through(struct dc_settler *s, int dir_fd, const char *dir)
{
	CLEANUP(free) struct dc_store_entry *entries = NULL;
	unsigned count = 0;

	dc_store_sweep(dir_fd);
	if (!s->config.settle || dc_store_list(dir_fd, &entries, &count) < 0)
		return;
	for (unsigned i = 0; i < count; i++)
		if (!entries[i].settled && !entries[i].damaged)
			dc_settler_add(s, dir, entries[i].name);
}

static void do_work(struct dc_settler *s, const struct work *w)
{
	CLEANUP(close_fd) int dir_fd = open(w->dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (dir_fd < 0)
		return;
	if (!w->name[0])
		look_through(s, dir_fd, w->dir);
	else if (s->config.settle)
		settle(s, dir_fd, w);
	if (s->config.disk_bytes)
		evict(s, dir_fd, w->dir);
	malloc_trim(0); /* settling takes some 40 MiB, and is rare */
}

/* Return: false when there is nothing to do any more. */
static bool next_work(struct dc_settler *s, struct work *ret_work)
{
	bool found;

	pthread_mutex_lock(&s->lock);
	while (s->count == 0 && !s->stopping)
		pthread_cond_wait(&s->changed, &s->lock);
	found = s->count > 0 && (!s->stopping || s->drain);
	if (found) {
		*ret_work = s->queue[s->first];
		s->first = (s->first + 1) % QUEUE_MAX;
		s->count--;
	}
	pthread_mutex_unlock(&s->lock);
	return found;
}

static void *work(void *arg)
{
	const struct sched_param none = {0};
	struct dc_settler *s = arg;
	struct work w;

	pthread_setschedparam(pthread_self(), SCHED_IDLE, &none);
	while (next_work(s, &w))
		do_work(s, &w);
	return NULL;
}

int dc_settler_new(const struct dc_settler_config *config, struct dc_settler **ret_settler)
{
	struct dc_settler *s = calloc(1, sizeof(*s));
	sigset_t all, before;
	int r;

	if (!s)
		return -ENOMEM;
	s->config = *config;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->changed, NULL);
	s->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = s->event_fd < 0 ? -errno : 0;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	if (r == 0)
		r = -pthread_create(&s->thread, NULL, work, s);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	s->started = r == 0;
	if (r < 0) {
		dc_settler_free(s);
		return r;
	}
	pthread_setname_np(s->thread, "dashcam-settle");
	*ret_settler = s;
	return 0;
}

void dc_settler_add(struct dc_settler *s, const char *dir, const char *name)
{
	struct work *w;

	pthread_mutex_lock(&s->lock);
	if (s->count < QUEUE_MAX) {
		w = &s->queue[(s->first + s->count++) % QUEUE_MAX];
		snprintf(w->dir, sizeof(w->dir), "%s", dir);
		snprintf(w->name, sizeof(w->name), "%s", name);
		pthread_cond_signal(&s->changed);
	}
	pthread_mutex_unlock(&s->lock);
}

static void closedir_cleanup(DIR **d)
{
	if (*d)
		closedir(*d);
}

void dc_settler_adopt(struct dc_settler *s, const char *dir, bool per_uid)
{
	CLEANUP(closedir) DIR *d = per_uid ? opendir(dir) : NULL;
	struct dirent *e;

	if (!per_uid)
		dc_settler_add(s, dir, "");
	while (d && (e = readdir(d))) {
		char path[512];

		if (strspn(e->d_name, "0123456789") == strlen(e->d_name) &&
		    snprintf(path, sizeof(path), "%s/%s", dir, e->d_name) < (int)sizeof(path))
			dc_settler_add(s, path, "");
	}
}

int dc_settler_fd(const struct dc_settler *s)
{
	return s->event_fd;
}

int dc_settler_report(struct dc_settler *s, char *ret_line, size_t size)
{
	eventfd_t ignored;
	int r = 0;

	pthread_mutex_lock(&s->lock);
	if (s->line_count) {
		snprintf(ret_line, size, "%s", s->lines[s->line_first]);
		s->line_first = (s->line_first + 1) % LINES_MAX;
		s->line_count--;
		r = 1;
	} else {
		eventfd_read(s->event_fd, &ignored);
	}
	pthread_mutex_unlock(&s->lock);
	return r;
}

uint32_t dc_settler_stack_used(struct dc_settler *s)
{
	uint32_t used;

	pthread_mutex_lock(&s->lock);
	used = s->stack_used;
	pthread_mutex_unlock(&s->lock);
	return used;
}

void dc_settler_finish(struct dc_settler *s, bool drain)
{
	const struct sched_param none = {0};

	if (!s->started)
		return;
	pthread_mutex_lock(&s->lock);
	s->stopping = true;
	s->drain = drain;
	pthread_cond_signal(&s->changed);
	pthread_mutex_unlock(&s->lock);
	if (drain) /* somebody waits now */
		pthread_setschedparam(s->thread, SCHED_OTHER, &none);
	pthread_join(s->thread, NULL);
	s->started = false;
}

void dc_settler_free(struct dc_settler *s)
{
	if (!s)
		return;
	dc_settler_finish(s, false);
	if (s->event_fd >= 0)
		close(s->event_fd);
	pthread_cond_destroy(&s->changed);
	pthread_mutex_destroy(&s->lock);
	free(s);
}
