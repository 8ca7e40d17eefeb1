/* SPDX-License-Identifier: MIT */
#include "trigger/vitals.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "ipc/cleanup.h"
#include "trigger/cgroup.h"
#include "trigger/proc.h"

#define STAT_BYTES 1024u
#define LIMITS_BYTES 2048u
#define DIRENTS_BYTES 4096u
#define FDS_MAX (1u << 16) /* counted one by one; where the kernel tells their number there is no bound */
#define TASKS_A_LOOK 32u
#define LITTLE (DC_VITALS_STATE | DC_VITALS_MEMORY | DC_VITALS_THREADS | DC_VITALS_FDS | DC_VITALS_LIMITS)
#define LIMITS_LOOKS 16u /* then they are read again */
#define CGROUP_LOOKS 8u /* then it is asked again which group it is in */

/* Of a control group. */
struct counts {
	uint64_t periods, throttled, oom, psi_us[3][2];
};
#define COUNTS (sizeof(struct counts) / sizeof(uint64_t))

/*
 * A descriptor in /proc/PID is of that very process: when it is gone, and its pid another's, reading it is ESRCH. So the start
 * time is compared once, after the first is open.
 */
struct dc_vitals_source {
	uint32_t pid;
	uint64_t start_time;
	const char *cgroup_root;
	bool gone;
	int proc_fd;
	int stat_fd;
	int leader_fd; /* stat of its first thread */
	int fds_fd;  /* -1: not opened, or not allowed */
	int task_fd; /* a directory that is read on from where the last look ended */
	uint32_t d_tid;
	struct dc_cgroup *cgroup;
	uint32_t cgroup_looks;
	uint32_t limits_looks;
	bool limits_known;
	uint64_t rss_limit_bytes;
	uint32_t fds_limit, threads_limit;
	bool cgroup_new; /* its counts are to go on from those of the group before */
	struct counts told, ahead; /* by the last look; and by how much that is more than the group's own */
};

/* Fields of /proc/PID/stat, by their numbers in proc(5). */
struct stat_fields {
	char state;              /* 3 */
	uint64_t major_faults;   /* 12 */
	uint64_t cpu_ticks;      /* 14 + 15 */
	uint32_t threads;        /* 20 */
	uint64_t start_time;     /* 22 */
	uint64_t resident_pages; /* 24 */
};

struct dc_vitals_source *dc_vitals_open(uint32_t pid, uint64_t start_time, const char *cgroup_root)
{
	struct dc_vitals_source *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->pid = pid;
	s->start_time = start_time;
	s->cgroup_root = cgroup_root ? cgroup_root : "/sys/fs/cgroup";
	s->gone = pid == 0; /* not to be seen from here */
	s->proc_fd = s->stat_fd = s->leader_fd = s->fds_fd = s->task_fd = -1;
	return s;
}

void dc_vitals_close(struct dc_vitals_source *s)
{
	if (!s)
		return;
	dc_cgroup_close(s->cgroup);
	close_fd_cleanup(&s->task_fd);
	close_fd_cleanup(&s->fds_fd);
	close_fd_cleanup(&s->leader_fd);
	close_fd_cleanup(&s->stat_fd);
	close_fd_cleanup(&s->proc_fd);
	free(s);
}

/* The name in field 2 may hold spaces and parentheses; everything after the last ')' is plain. */
static int parse_stat(char *text, struct stat_fields *ret)
{
	char *at = strrchr(text, ')'), *save = NULL;
	struct stat_fields f = {0};
	unsigned field = 3;

	if (!at)
		return -EBADMSG;
	for (char *word = strtok_r(at + 1, " \n", &save); word && field <= 24; word = strtok_r(NULL, " \n", &save), field++) {
		const uint64_t number = strtoull(word, NULL, 10);

		switch (field) {
		case 3:
			f.state = word[0];
			break;
		case 12:
			f.major_faults = number;
			break;
		case 14:
		case 15:
			f.cpu_ticks += number;
			break;
		case 20:
			f.threads = (uint32_t)number;
			break;
		case 22:
			f.start_time = number;
			break;
		case 24:
			f.resident_pages = number;
			break;
		}
	}
	if (field <= 24)
		return -EBADMSG;
	*ret = f;
	return 0;
}

static int read_stat(int fd, struct stat_fields *ret)
{
	char text[STAT_BYTES];
	const ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

	if (n < 0)
		return -errno;
	text[n] = '\0';
	return parse_stat(text, ret);
}

static int open_process(struct dc_vitals_source *s)
{
	struct stat_fields f;
	char path[32];

	snprintf(path, sizeof(path), "/proc/%u", s->pid);
	s->proc_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->proc_fd >= 0)
		s->stat_fd = openat(s->proc_fd, "stat", O_RDONLY | O_CLOEXEC);
	if (s->stat_fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	return read_stat(s->stat_fd, &f) == 0 && f.start_time == s->start_time ? 0 : -ESRCH;
}

/*
 * The CPU clock of a process counts ns, /proc/PID/stat only ticks of 10 ms. It is asked by pid: that it was this process's
 * shows when its stat can still be read afterwards.
 */
static void take_cpu(const struct dc_vitals_source *s, struct dc_vitals *v)
{
	struct timespec ts;
	clockid_t clock;

	if (clock_getcpuclockid((pid_t)s->pid, &clock) == 0 && clock_gettime(clock, &ts) == 0)
		v->cpu_ns = (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* What the stat of its first thread says as well as its own. */
static void take_little(const struct stat_fields *f, struct dc_vitals *v)
{
	v->state = f->state;
	v->rss_bytes = f->resident_pages * (uint64_t)sysconf(_SC_PAGESIZE);
	v->threads = f->threads;
	v->known |= DC_VITALS_STATE | DC_VITALS_MEMORY | DC_VITALS_THREADS;
}

static void take_stat(const struct stat_fields *f, struct dc_vitals *v)
{
	if (!v->cpu_ns)
		v->cpu_ns = f->cpu_ticks * (1000000000u / (uint64_t)sysconf(_SC_CLK_TCK));
	take_little(f, v);
	v->major_faults = f->major_faults;
	v->known |= DC_VITALS_CPU | DC_VITALS_FAULTS;
}

/* Numbers in a directory of /proc, as far as @each wants them. Return: 1 stopped by @each, 0 at the end, -errno. */
static int each_number(int fd, bool (*each)(void *arg, uint32_t number), void *arg)
{
	char bytes[DIRENTS_BYTES] __attribute__((aligned(__alignof__(struct dirent64))));
	ssize_t n;

	while ((n = getdents64(fd, bytes, sizeof(bytes))) > 0) {
		for (ssize_t at = 0; at < n;) {
			const struct dirent64 *d = (const void *)(bytes + at);

			if (d->d_name[0] != '.' && !each(arg, (uint32_t)strtoul(d->d_name, NULL, 10))) {
				lseek(fd, d->d_off, SEEK_SET);
				return 1;
			}
			at += d->d_reclen;
		}
	}
	return n < 0 ? -errno : 0;
}

static bool count_one(void *arg, uint32_t number)
{
	(void)number;
	return ++*(uint32_t *)arg < FDS_MAX;
}

/* Since Linux 6.2 the size of the directory is their number. */
static void take_fds(struct dc_vitals_source *s, struct dc_vitals *v)
{
	struct stat st;

	if (s->fds_fd < 0)
		s->fds_fd = openat(s->proc_fd, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->fds_fd < 0)
		return;
	if (fstat(s->fds_fd, &st) == 0 && st.st_size > 0) {
		v->fds = (uint32_t)st.st_size;
	} else {
		lseek(s->fds_fd, 0, SEEK_SET);
		if (each_number(s->fds_fd, count_one, &v->fds) < 0)
			return;
	}
	v->known |= DC_VITALS_FDS;
}

static bool in_d_state(const struct dc_vitals_source *s, uint32_t tid)
{
	struct stat_fields f;
	char path[32];

	snprintf(path, sizeof(path), "%u/stat", tid);
	CLEANUP(close_fd) int fd = openat(s->task_fd, path, O_RDONLY | O_CLOEXEC);
	return fd >= 0 && read_stat(fd, &f) == 0 && f.state == 'D';
}

struct search {
	struct dc_vitals_source *s;
	uint32_t left;
};

static bool look_at_task(void *arg, uint32_t tid)
{
	struct search *search = arg;

	if (in_d_state(search->s, tid))
		search->s->d_tid = tid;
	return !search->s->d_tid && --search->left > 0;
}

/*
 * One in D is stayed with until it is out of it. Until one is found each look goes on where the last one ended: a process of
 * a thousand threads must not cost what a thousand processes do.
 */
static void take_waiting(struct dc_vitals_source *s, struct dc_vitals *v)
{
	struct search search = {.s = s, .left = TASKS_A_LOOK};

	if (s->task_fd < 0)
		s->task_fd = openat(s->proc_fd, "task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->task_fd < 0)
		return;
	if (s->d_tid && !in_d_state(s, s->d_tid))
		s->d_tid = 0;
	if (!s->d_tid && each_number(s->task_fd, look_at_task, &search) == 0)
		lseek(s->task_fd, 0, SEEK_SET); /* all were seen */
	v->d_tid = s->d_tid;
	v->known |= DC_VITALS_WAITING;
}

/* A process that moves to another group must not look as if all that ever happened there happened now. */
static void follow_cgroup(struct dc_vitals_source *s)
{
	const bool first = s->cgroup_looks == 0;

	if (s->cgroup_looks++ % CGROUP_LOOKS == 0 && s->cgroup && dc_cgroup_moved(s->cgroup, s->proc_fd))
		dc_cgroup_close(TAKE(s->cgroup));
	if (!s->cgroup)
		s->cgroup_new = dc_cgroup_open(s->proc_fd, s->cgroup_root, &s->cgroup) == 0 && !first;
}

static void join_counts(struct dc_vitals_source *s, struct counts *c)
{
	uint64_t *now = (uint64_t *)c, *told = (uint64_t *)&s->told, *ahead = (uint64_t *)&s->ahead;

	for (unsigned i = 0; i < COUNTS; i++) {
		if (s->cgroup_new)
			ahead[i] = told[i] - now[i];
		told[i] = now[i] += ahead[i];
	}
	s->cgroup_new = false;
}

static void take_cgroup(struct dc_vitals_source *s, uint32_t wants, struct dc_vitals *v)
{
	struct counts c = {0};
	uint32_t known = 0;

	follow_cgroup(s);
	if (!s->cgroup)
		return;
	if (wants & DC_VITALS_CGROUP) {
		known |= dc_cgroup_throttling(s->cgroup, &c.periods, &c.throttled) == 0 ? DC_VITALS_CGROUP : 0;
		known |= dc_cgroup_oom(s->cgroup, &c.oom) == 0 ? DC_VITALS_CGROUP : 0;
	}
	if (wants & DC_VITALS_PSI && dc_cgroup_pressure(s->cgroup, c.psi_us) == 0)
		known |= DC_VITALS_PSI;
	join_counts(s, &c);
	v->cgroup_periods = c.periods;
	v->cgroup_throttled = c.throttled;
	v->cgroup_oom = c.oom;
	memcpy(v->psi_us, c.psi_us, sizeof(v->psi_us));
	v->known |= known;
}

/* "Max open files            1024                 1048576              files"; "unlimited" is 0, no bound. */
static uint32_t soft_limit(const char *text, const char *name)
{
	const char *line = strstr(text, name);
	const uint64_t n = line ? strtoull(line + strlen(name), NULL, 10) : 0;

	return n < UINT32_MAX ? (uint32_t)n : 0;
}

static int read_limits(struct dc_vitals_source *s)
{
	char text[LIMITS_BYTES];
	uint64_t pids = 0;
	int r;

	follow_cgroup(s);
	r = (int)dc_proc_read(s->pid, "limits", text, sizeof(text));
	if (r < 0)
		return r;
	s->fds_limit = soft_limit(text, "Max open files");
	s->threads_limit = soft_limit(text, "Max processes");
	s->rss_limit_bytes = 0;
	if (s->cgroup)
		dc_cgroup_limits(s->cgroup, &s->rss_limit_bytes, &pids);
	if (pids && pids < UINT32_MAX && (!s->threads_limit || pids < s->threads_limit))
		s->threads_limit = (uint32_t)pids;
	return 0;
}

/* They hardly ever change, and cost more to ask for than all the rest; not for all processes in the same second. */
static void take_limits(struct dc_vitals_source *s, struct dc_vitals *v)
{
	if (s->limits_looks == 0 || (s->limits_looks + s->pid) % LIMITS_LOOKS == 0)
		s->limits_known = read_limits(s) == 0;
	s->limits_looks++;
	if (!s->limits_known)
		return;
	v->fds_limit = s->fds_limit;
	v->threads_limit = s->threads_limit;
	v->rss_limit_bytes = s->rss_limit_bytes;
	v->known |= DC_VITALS_LIMITS;
}

/* What rules that ship ask of every process: its own stat sums up all threads, which would cost several times as much. */
static int read_leader(struct dc_vitals_source *s, struct stat_fields *ret)
{
	char path[32];

	snprintf(path, sizeof(path), "task/%u/stat", s->pid);
	if (s->leader_fd < 0)
		s->leader_fd = openat(s->proc_fd, path, O_RDONLY | O_CLOEXEC);
	return s->leader_fd < 0 ? -ESRCH : read_stat(s->leader_fd, ret);
}

static int take_process(struct dc_vitals_source *s, uint32_t wants, struct dc_vitals *v)
{
	const bool little = !(wants & ~LITTLE);
	struct stat_fields f;
	int r = s->stat_fd < 0 ? open_process(s) : 0;

	if (wants & DC_VITALS_CPU)
		take_cpu(s, v);
	if (r == 0)
		r = little ? read_leader(s, &f) : read_stat(s->stat_fd, &f);
	if (r == 0)
		little ? take_little(&f, v) : take_stat(&f, v);
	return r;
}

int dc_vitals_read(struct dc_vitals_source *s, uint32_t wants, int64_t now_ns, struct dc_vitals *ret_vitals)
{
	struct dc_vitals v = {.at_ns = now_ns};

	if (s->gone)
		return -ESRCH;
	if (take_process(s, wants, &v) < 0) {
		s->gone = true;
		return -ESRCH;
	}
	if (wants & DC_VITALS_FDS)
		take_fds(s, &v);
	if (wants & DC_VITALS_LIMITS)
		take_limits(s, &v);
	if (wants & DC_VITALS_WAITING)
		take_waiting(s, &v);
	if (wants & (DC_VITALS_CGROUP | DC_VITALS_PSI))
		take_cgroup(s, wants, &v);
	*ret_vitals = v;
	return 0;
}
