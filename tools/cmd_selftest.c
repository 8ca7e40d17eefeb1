/* SPDX-License-Identifier: MIT */
/*
 * dashcam selftest: the whole way once, in a child and two directories of its own: record, trigger, capture, settle,
 * read. Each step builds on the one before; the first that fails ends it. No watcher is needed and none is disturbed.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include "persist/writer.h"
#include "ipc/now.h"
#include "tools/checks.h"
#include "tools/commands.h"
#include "tools/open.h"
#include "tools/selftest.h"
#include "tools/text.h"
#include "trigger/save.h"

#define PATIENCE_MS 5000
#define GOOD_NS INT64_C(2000000000)
#define CAPTURE_NAME "selftest.dcap"

struct selftest_options {
	bool json;
};

static const struct option selftest_option_table[] = {
	{.name = "json",
	 .type = OPTION_FLAG,
	 .at = offsetof(struct selftest_options, json),
	 .help = "print JSON"},
	{0},
};

struct selftest {
	struct checks checks;
	char rings[64]; /* directories, removed at the end; "" not made */
	char captures[64];
	pid_t child;
	int done_fd; /* closing it ends the child */
	struct dc_ring *ring;
	struct dc_ring_trigger trigger;
};

/* tmpfs as in life; where there is none, an ordinary directory will do for a test. */
static int make_dirs(struct selftest *t)
{
	enum check_state state = CHECK_OK;

	strcpy(t->rings, "/dev/shm/dashcam-selftest-XXXXXX");
	if (!mkdtemp(t->rings)) {
		state = CHECK_DEGRADED;
		strcpy(t->rings, "/tmp/dashcam-rings-XXXXXX");
		if (!mkdtemp(t->rings))
			*t->rings = '\0';
	}
	strcpy(t->captures, "/tmp/dashcam-selftest-XXXXXX");
	if (!mkdtemp(t->captures))
		*t->captures = '\0';
	if (!*t->rings || !*t->captures) {
		checks_add(&t->checks, "directories", CHECK_FAILED, "there is no place to try anything",
			   "make /dev/shm and /tmp writable", "%s", strerror(errno));
		return -errno;
	}
	if (state != CHECK_OK)
		checks_add(&t->checks, "directories", state, "rings on a disk are slow",
			   "mount a tmpfs on /dev/shm", "/dev/shm cannot be used");
	return 0;
}

static _Noreturn void child_main(const struct selftest *t, int ready_fd, int done_fd)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	_exit(-selftest_record(t->rings, ready_fd, done_fd) & 0xff);
}

static int child_start(struct selftest *t, int *ret_ready_fd)
{
	int ready[2], done[2];

	if (pipe2(ready, O_CLOEXEC) < 0)
		return -errno;
	if (pipe2(done, O_CLOEXEC) < 0) {
		close(ready[0]);
		close(ready[1]);
		return -errno;
	}
	fflush(stdout);
	t->child = fork();
	if (t->child == 0) {
		close(done[1]);
		child_main(t, ready[1], done[0]);
	}
	close(ready[1]);
	close(done[0]);
	t->done_fd = done[1];
	*ret_ready_fd = ready[0];
	return t->child < 0 ? -errno : 0;
}

/* Return: 0 once the child has recorded everything. */
static int child_wait(struct selftest *t, int ready_fd)
{
	struct pollfd p = {.fd = ready_fd, .events = POLLIN};
	char byte;
	int status;

	if (poll(&p, 1, PATIENCE_MS) <= 0)
		return -ETIMEDOUT;
	if (read(ready_fd, &byte, 1) == 1)
		return 0;
	if (waitpid(t->child, &status, 0) == t->child)
		t->child = 0;
	return WIFEXITED(status) && WEXITSTATUS(status) ? -WEXITSTATUS(status) : -ECHILD;
}

static int step_record(struct selftest *t)
{
	CLEANUP(close_fd) int ready_fd = -1;
	int r = child_start(t, &ready_fd);

	if (r == 0)
		r = child_wait(t, ready_fd);
	if (r == 0)
		checks_add(&t->checks, "record", CHECK_OK, NULL, NULL, "%u events by a child, pid %d",
			   SELFTEST_EVENTS, (int)t->child);
	else
		checks_add(&t->checks, "record", CHECK_FAILED, "programs do not record on this host",
			   "see 'dashcam doctor'", "%s", strerror(-r));
	return r;
}

static int open_the_ring(struct selftest *t, char why[static DC_WHY_BYTES])
{
	DIR *dir = opendir(t->rings);
	struct dc_ring_name name;
	struct dirent *entry;
	int r = -ENOENT;

	snprintf(why, DC_WHY_BYTES, "no ring in '%s'", t->rings);
	while (dir && r == -ENOENT && (entry = readdir(dir)))
		if (dc_ring_name_parse(entry->d_name, &name) == 0)
			r = dc_ring_open(dirfd(dir), entry->d_name, &t->ring, why);
	if (dir)
		closedir(dir);
	return r;
}

static int step_find(struct selftest *t)
{
	char why[DC_WHY_BYTES];
	int r = open_the_ring(t, why);

	if (r == 0 && dc_ring_alive(t->ring) != 1) {
		snprintf(why, sizeof(why), "its owner's lock is not held");
		r = -ENOLCK;
	}
	if (r < 0)
		checks_add(&t->checks, "find", CHECK_FAILED, "a watcher cannot find or read rings",
			   "see 'dashcam doctor'", "%s", why);
	else if (!t->ring->verified || t->ring->pid != (uint32_t)t->child)
		checks_add(&t->checks, "find", CHECK_DEGRADED,
			   "rings cannot be proved to belong to their processes",
			   "let the watcher see /proc of the processes (hidepid, pid namespace)",
			   "ring of pid %u, %sverified", t->ring->pid, t->ring->verified ? "" : "not ");
	else
		checks_add(&t->checks, "find", CHECK_OK, NULL, NULL, "ring of pid %u, verified",
			   t->ring->pid);
	return r;
}

static int step_trigger(struct selftest *t)
{
	int r = dc_ring_trigger(t->ring, 1, &t->trigger);

	if (r == 0 && strcmp(t->trigger.text, SELFTEST_REASON) == 0) {
		checks_add(&t->checks, "trigger", CHECK_OK, NULL, NULL, "DC_TRIGGER(\"%s\") seen",
			   t->trigger.text);
		return 0;
	}
	checks_add(&t->checks, "trigger", CHECK_FAILED, "triggers of programs are not seen",
		   "this is a defect of dashcam: please report it with this output", "%s",
		   r < 0 ? strerror(-r) : "the slot holds something else");
	return r < 0 ? r : -EBADMSG;
}

static int save(struct selftest *t, uint64_t *ret_bytes, uint64_t *ret_ns)
{
	CLEANUP(dc_save) struct dc_save *s = NULL;
	struct dc_save_output output = {.dir = t->captures, .name = CAPTURE_NAME};
	struct dc_window window = {.last_ns = 30 * INT64_C(1000000000)};
	struct dc_incident incident;
	int r;

	dc_incident_init(&incident, DC_REASON_API, SELFTEST_REASON);
	r = dc_incident_window(&incident, t->ring, &window);
	if (r == 0)
		r = dc_save_new(&incident, &output, &s);
	if (r == 0)
		r = dc_save_add(s, t->ring);
	if (r == 0)
		r = dc_save_first(s);
	if (r == 0)
		r = dc_save_last(s, false);
	if (r == 0) {
		*ret_bytes = s->written_bytes;
		*ret_ns = s->durable_ns;
	}
	return r;
}

static int step_capture(struct selftest *t)
{
	uint64_t bytes, ns;
	int r = save(t, &bytes, &ns);

	if (r == 0)
		checks_add(&t->checks, "capture", CHECK_OK, NULL, NULL, "%s on disk after %s",
			   text_bytes(bytes).s, text_span((int64_t)ns).s);
	else
		checks_add(&t->checks, "capture", CHECK_FAILED, "nothing can be saved",
			   "make room in /tmp, see 'dashcam doctor'", "%s", strerror(-r));
	return r;
}

static int step_settle(struct selftest *t)
{
	CLEANUP(close_fd) int fd = open(t->captures, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r = fd < 0 ? -errno : dc_settle(fd, CAPTURE_NAME, NULL, NULL);

	if (r == 0)
		checks_add(&t->checks, "settle", CHECK_OK, NULL, NULL, "done");
	else
		checks_add(&t->checks, "settle", CHECK_DEGRADED,
			   "captures stay as large as they were written",
			   "this is a defect of dashcam: please report it with this output", "%s",
			   r < 0 ? strerror(-r) : "it was settled already");
	return 0;
}

struct found {
	uint64_t events;
	bool log, trigger;
	uint64_t opens; /* begins less ends */
};

static int count(struct dc_capture *c, struct found *found)
{
	CLEANUP(dc_cursor) struct dc_cursor *cursor = NULL;
	struct dc_cut cut = {.everything = true};
	struct dc_cursor_event e;
	char text[64];
	int r = dc_cursor_open(c, &cut, &cursor);

	while (r >= 0 && (r = dc_cursor_next(cursor, &e)) > 0) {
		found->events += e.event.kind != DC_KIND_THREAD && e.event.kind != DC_KIND_OPEN;
		found->opens += e.event.kind == DC_KIND_BEGIN;
		found->opens -= e.event.kind == DC_KIND_END;
		found->trigger |= e.event.kind == DC_KIND_TRIGGER;
		if (e.event.kind == DC_KIND_LOG)
			found->log = dc_event_format(&e.event, text, sizeof(text)) > 0 &&
				     strcmp(text, "1000 spans recorded") == 0;
	}
	return r;
}

static int step_read(struct selftest *t)
{
	CLEANUP(dc_capture) struct dc_capture *c = NULL;
	struct found found = {0};
	char path[128], why[160] = "";
	int r;

	snprintf(path, sizeof(path), "%s/" CAPTURE_NAME, t->captures);
	r = dc_capture_open(path, &c, why);
	if (r == 0)
		r = count(c, &found);
	if (r == 0 && found.events == SELFTEST_EVENTS && found.log && found.trigger && found.opens == 1) {
		checks_add(&t->checks, "read", CHECK_OK, NULL, NULL,
			   "all %" PRIu64 " events, one span still open", found.events);
		return 0;
	}
	checks_add(&t->checks, "read", CHECK_FAILED, "captures cannot be trusted",
		   "this is a defect of dashcam: please report it with this output",
		   "%s%s%" PRIu64 " of %u events, %" PRIu64 " spans open, log %s, trigger %s",
		   r < 0 ? strerror(-r) : "", r < 0 ? ": " : "", found.events, SELFTEST_EVENTS, found.opens,
		   found.log ? "there" : "missing", found.trigger ? "there" : "missing");
	return -EBADMSG;
}

static void remove_dir(const char *path)
{
	DIR *dir = *path ? opendir(path) : NULL;
	struct dirent *entry;

	while (dir && (entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			unlinkat(dirfd(dir), entry->d_name, 0);
	if (dir)
		closedir(dir);
	if (*path)
		rmdir(path);
}

static void selftest_cleanup(struct selftest *t)
{
	if (t->done_fd >= 0)
		close(t->done_fd);
	if (t->child > 0)
		waitpid(t->child, NULL, 0);
	if (t->ring)
		dc_ring_unref(t->ring);
	remove_dir(t->rings);
	remove_dir(t->captures);
}

static int selftest_run(const void *options, const struct operands *operands)
{
	static int (*const steps[])(struct selftest *) = {make_dirs,    step_record, step_find, step_trigger,
							  step_capture, step_settle, step_read};
	const struct selftest_options *o = options;
	CLEANUP(selftest) struct selftest t = {.done_fd = -1};
	int64_t start = dc_now_ns(), took;
	int r = 0;

	(void)operands;
	checks_init(&t.checks, o->json);
	for (unsigned i = 0; r == 0 && i < sizeof(steps) / sizeof(steps[0]); i++)
		r = steps[i](&t);
	took = dc_now_ns() - start;
	if (took <= GOOD_NS)
		checks_add(&t.checks, "time", CHECK_OK, NULL, NULL, "%s", text_span(took).s);
	else
		checks_add(&t.checks, "time", CHECK_DEGRADED, "this host is slow or busy",
			   "see 'dashcam doctor'", "%s, expected at most %s", text_span(took).s,
			   text_span(GOOD_NS).s);
	return checks_finish(&t.checks);
}

const struct command cmd_selftest = {
	.name = "selftest",
	.summary = "record, trigger, capture and read once, and say whether it worked",
	.usage = "",
	.about = "Goes the whole way once in a child process and directories of its own, within two seconds: "
		 "record, find the "
		 "ring, trigger, capture, settle, read. "
		 "Each step is Ok, Degraded or Failed, with what to do. "
		 "No watcher is needed, and one that runs is not disturbed.",
	.exit_status = "0 when no step failed, 1 when one did, 64 when the arguments were wrong.",
	.see_also = "doctor",
	.options = selftest_option_table,
	.options_size = sizeof(struct selftest_options),
	.run = selftest_run,
};
