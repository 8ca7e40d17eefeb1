/* SPDX-License-Identifier: MIT */
/* What the kernel says of a process is what the process did; of its control group, what that group's files say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "trigger/proc.h"
#include "trigger/vitals.h"

#define ALL UINT32_MAX
#define GROWS ((size_t)64 << 20)
#define OPENS 40
#define STARTS 70 /* more than are looked at in one go */

/* A child that does what it is told, a letter at a time, and says when it is done. */
struct child {
	pid_t pid;
	uint64_t start_time;
	int tell, hear;
	struct dc_vitals_source *source;
};

static void burn(double ms)
{
	struct timespec ts;

	do
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	while ((double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6 < ms);
}

static void *sleeper(void *arg)
{
	pause();
	return arg;
}

static void obey(char letter)
{
	pthread_attr_t small;
	pthread_t thread;

	if (letter == 'c')
		burn(300);
	if (letter == 'm')
		memset(mmap(NULL, GROWS, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 1, GROWS);
	for (int i = 0; letter == 'f' && i < OPENS; i++)
		if (open("/dev/null", O_RDONLY) < 0)
			_exit(2);
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 128 << 10);
	for (int i = 0; letter == 't' && i < STARTS; i++)
		if (pthread_create(&thread, &small, sleeper, NULL))
			_exit(3);
}

static void be_child(int hear, int tell)
{
	char letter;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (read(hear, &letter, 1) == 1) {
		obey(letter);
		if (write(tell, &letter, 1) != 1)
			break;
	}
	_exit(0);
}

static struct child child_start(const char *root)
{
	struct dc_proc_stat st;
	struct child c = {0};
	int to[2], from[2];

	assert_true(pipe(to) == 0 && pipe(from) == 0);
	c.pid = fork();
	if (c.pid == 0)
		be_child(to[0], from[1]);
	assert_true(c.pid > 0);
	close(to[0]);
	close(from[1]);
	c.tell = to[1];
	c.hear = from[0];
	assert_int_equal(dc_proc_stat((uint32_t)c.pid, &st), 0);
	c.start_time = st.start_time;
	c.source = dc_vitals_open((uint32_t)c.pid, c.start_time, root);
	assert_non_null(c.source);
	return c;
}

static void child_end(struct child *c)
{
	kill(c->pid, SIGKILL);
	waitpid(c->pid, NULL, 0);
	dc_vitals_close(c->source);
	close(c->tell);
	close(c->hear);
}

static struct dc_vitals look(struct child *c, uint32_t wants)
{
	struct dc_vitals v;

	assert_int_equal(dc_vitals_read(c->source, wants, 42, &v), 0);
	assert_int_equal(v.at_ns, 42);
	assert_int_equal(v.known & wants & ~(DC_VITALS_CGROUP | DC_VITALS_PSI),
			 wants & 1023u & ~(DC_VITALS_CGROUP | DC_VITALS_PSI));
	return v;
}

static void tell(struct child *c, char letter)
{
	char echo;

	assert_int_equal(write(c->tell, &letter, 1), 1);
	assert_int_equal(read(c->hear, &echo, 1), 1);
}

static void test_what_it_does(void **state)
{
	/* CPU, memory, descriptors and threads go up by what the process used of them, and by nothing else. */
	struct child c = child_start(NULL);
	struct dc_vitals a = look(&c, ALL), b;

	(void)state;
	assert_int_equal(a.threads, 1);
	tell(&c, 'c');
	b = look(&c, ALL);
	assert_true(b.cpu_ns - a.cpu_ns > 250000000 && b.cpu_ns - a.cpu_ns < 1000000000);
	assert_int_equal(b.fds, a.fds);
	tell(&c, 'f');
	assert_int_equal(look(&c, DC_VITALS_FDS).fds, a.fds + OPENS);
	tell(&c, 'm');
	a = look(&c, ALL);
	assert_true(a.rss_bytes >= b.rss_bytes + GROWS - (4u << 20));
	assert_true(a.major_faults >= b.major_faults);
	tell(&c, 't');
	assert_int_equal(look(&c, DC_VITALS_THREADS).threads, 1 + STARTS);
	child_end(&c);
}

static void test_states(void **state)
{
	/* A stopped process is seen as stopped, one that goes on as sleeping; of threads that only sleep none is in D. */
	struct child c = child_start(NULL);
	struct dc_vitals v;
	int status;

	(void)state;
	tell(&c, 't');
	for (int i = 0; i < 5; i++)
		assert_int_equal(look(&c, DC_VITALS_WAITING).d_tid, 0);
	kill(c.pid, SIGSTOP);
	assert_int_equal(waitpid(c.pid, &status, WUNTRACED), c.pid);
	assert_int_equal(look(&c, DC_VITALS_STATE).state, 'T');
	kill(c.pid, SIGCONT);
	assert_int_equal(waitpid(c.pid, &status, WCONTINUED), c.pid);
	tell(&c, 'x');
	v = look(&c, DC_VITALS_STATE);
	assert_true(v.state == 'S' || v.state == 'R');
	child_end(&c);
}

static void test_d_state(void **state)
{
	/* A thread in D is found: the parent of a vfork() child waits in it. */
	struct dc_vitals_source *s;
	struct dc_proc_stat st;
	struct dc_vitals v = {0};
	const pid_t pid = fork();

	(void)state;
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (vfork() == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			for (;;)
				pause();
		}
		_exit(0);
	}
	assert_int_equal(dc_proc_stat((uint32_t)pid, &st), 0);
	s = dc_vitals_open((uint32_t)pid, st.start_time, NULL);
	for (int i = 0; i < 200 && !v.d_tid; i++) {
		usleep(10000);
		assert_int_equal(dc_vitals_read(s, DC_VITALS_STATE | DC_VITALS_WAITING, 1, &v), 0);
	}
	assert_int_equal(v.d_tid, pid);
	assert_int_equal(v.state, 'D');
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	assert_int_equal(dc_vitals_read(s, DC_VITALS_STATE | DC_VITALS_WAITING, 1, &v), -ESRCH);
	dc_vitals_close(s);
}

static void test_gone(void **state)
{
	/* A process that is gone, was never there, or is not the one that was meant is -ESRCH, and stays so. */
	struct child c = child_start(NULL);
	struct dc_vitals_source *other = dc_vitals_open((uint32_t)c.pid, c.start_time + 1, NULL);
	struct dc_vitals_source *nobody = dc_vitals_open(0, 0, NULL);
	struct dc_vitals v;

	(void)state;
	look(&c, ALL);
	assert_int_equal(dc_vitals_read(other, ALL, 1, &v), -ESRCH);
	assert_int_equal(dc_vitals_read(nobody, ALL, 1, &v), -ESRCH);
	kill(c.pid, SIGKILL);
	waitpid(c.pid, NULL, 0);
	assert_int_equal(dc_vitals_read(c.source, ALL, 1, &v), -ESRCH);
	assert_int_equal(dc_vitals_read(c.source, DC_VITALS_CPU, 1, &v), -ESRCH);
	dc_vitals_close(other);
	dc_vitals_close(nobody);
	child_end(&c);
}

static void test_limits(void **state)
{
	/* What a process may have is what it was given. */
	const struct rlimit files = {.rlim_cur = 77, .rlim_max = 100};
	struct child c = child_start(NULL);
	struct dc_vitals v;

	(void)state;
	assert_int_equal(prlimit(c.pid, RLIMIT_NOFILE, &files, NULL), 0);
	v = look(&c, DC_VITALS_LIMITS);
	assert_true(v.known & DC_VITALS_LIMITS);
	assert_int_equal(v.fds_limit, 77);
	child_end(&c);
}

/* --- a fake cgroup file system --- */

static char fake[] = "/tmp/dcvitals.XXXXXX";

static void put(const char *dir, const char *file, const char *text)
{
	char path[PATH_MAX];
	FILE *f;

	for (size_t i = strlen(fake); i <= strlen(dir); i++) {
		snprintf(path, sizeof(path), "%.*s", (int)i, dir);
		if (dir[i] == '/' || dir[i] == '\0')
			assert_true(mkdir(path, 0700) == 0 || errno == EEXIST);
	}
	snprintf(path, sizeof(path), "%s/%s", dir, file);
	f = fopen(path, "we");
	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
}

/* Where a group of ours lies below the fake root; @controller: of v1. Return: false: we are in none. */
static bool dir_of(const char *controller, char dir[static PATH_MAX])
{
	FILE *f = fopen("/proc/self/cgroup", "re");
	char line[1024];
	bool found = false;

	while (f && !found && fgets(line, sizeof(line), f)) {
		char *list = strchr(line, ':') + 1, *path = strchr(list, ':') + 1;

		path[-1] = '\0';
		path[strcspn(path, "\n")] = '\0';
		found = *controller ? strcmp(strtok(list, ","), controller) == 0 : !*list;
		snprintf(dir, PATH_MAX, "%s%s%s%s", fake, *controller ? "/" : "", list, strcmp(path, "/") ? path : "");
	}
	if (f)
		fclose(f);
	return found;
}

static int remove_below(const char *path)
{
	DIR *d = opendir(path);
	struct dirent *e;
	char inner[PATH_MAX];

	while (d && (e = readdir(d))) {
		snprintf(inner, sizeof(inner), "%s/%s", path, e->d_name);
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..") && unlink(inner) < 0)
			remove_below(inner);
	}
	if (d)
		closedir(d);
	return rmdir(path);
}

static int fake_make(void **state)
{
	(void)state;
	strcpy(fake + strlen(fake) - 6, "XXXXXX");
	return mkdtemp(fake) ? 0 : -1;
}

static int fake_remove(void **state)
{
	(void)state;
	return remove_below(fake);
}

static void test_cgroup_v2(void **state)
{
	/* Throttling, OOM and pressure are those of its group; files change in place, and are read anew each time. */
	char dir[PATH_MAX];
	struct dc_vitals v;

	(void)state;
	if (!dir_of("", dir))
		skip();
	put(fake, "cgroup.procs", "");
	put(dir, "cpu.stat", "usage_usec 5\nnr_periods 100\nnr_throttled 7\nthrottled_usec 9\n");
	put(dir, "memory.max", "268435456\n");
	put(dir, "pids.max", "5\n");
	put(dir, "memory.events", "low 0\nhigh 4\nmax 5\noom 2\noom_kill 1\noom_group_kill 0\n");
	put(dir, "cpu.pressure", "some avg10=1.00 avg60=0.00 avg300=0.00 total=11\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1\n");
	put(dir, "memory.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=22\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=2\n");
	put(dir, "io.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=33\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=3\n");
	struct child c = child_start(fake);
	v = look(&c, ALL);
	assert_int_equal(v.known, 1023);
	assert_int_equal(v.rss_limit_bytes, 256 << 20);
	assert_int_equal(v.threads_limit, 5);
	assert_int_equal(v.cgroup_periods, 100);
	assert_int_equal(v.cgroup_throttled, 7);
	assert_int_equal(v.cgroup_oom, 3);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(v.psi_us[i][0], 11 * (i + 1));
		assert_int_equal(v.psi_us[i][1], i + 1);
	}
	put(dir, "cpu.stat", "usage_usec 6\nnr_periods 110\nnr_throttled 17\n");
	v = look(&c, DC_VITALS_CGROUP);
	assert_int_equal(v.cgroup_periods, 110);
	assert_int_equal(v.cgroup_throttled, 17);
	child_end(&c);
}

static void test_cgroup_v1(void **state)
{
	/* Where only v1 has the controllers, throttling and OOM kills are taken from there, and pressure is the host's. */
	char dir[PATH_MAX], memory[PATH_MAX];
	struct dc_vitals v;

	(void)state;
	if (!dir_of("cpu", dir) || !dir_of("memory", memory))
		skip();
	put(dir, "cpu.stat", "nr_periods 40\nnr_throttled 4\nthrottled_time 9\n");
	put(memory, "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 6\n");
	struct child c = child_start(fake);
	v = look(&c, DC_VITALS_CGROUP | DC_VITALS_PSI);
	assert_true(v.known & DC_VITALS_CGROUP);
	assert_int_equal(v.cgroup_periods, 40);
	assert_int_equal(v.cgroup_throttled, 4);
	assert_int_equal(v.cgroup_oom, 6);
	assert_int_equal(!!(v.known & DC_VITALS_PSI), access("/proc/pressure/io", R_OK) == 0);
	child_end(&c);
}

static void test_nothing_there(void **state)
{
	/* What cannot be read is not known, which is not the same as zero; the rest is. */
	struct child c = child_start(fake);
	struct dc_vitals v = look(&c, ALL);

	(void)state;
	assert_int_equal(v.known & DC_VITALS_CGROUP, 0);
	assert_true(v.known & DC_VITALS_CPU);
	child_end(&c);
}

/* Our group of the one hierarchy in which we may make another one; "" where there is none. */
static void group_of_ours(char dir[static PATH_MAX])
{
	char below[PATH_MAX];

	dir[0] = '\0';
	if (dir_of("pids", below))
		snprintf(dir, PATH_MAX, "/sys/fs/cgroup%s/dcvitals.%d", below + strlen(fake), getpid());
	if (!*dir || mkdir(dir, 0700) < 0)
		dir[0] = '\0';
}

static void test_moved(void **state)
{
	/* A process that is moved to another group goes on counting from where it was: nothing happened by that alone. */
	char dir[PATH_MAX], group[PATH_MAX], procs[PATH_MAX + 32], real[PATH_MAX + 32];
	struct dc_vitals v;
	FILE *f;

	(void)state;
	group_of_ours(group);
	if (!*group || !dir_of("", dir))
		skip();
	put(fake, "cgroup.procs", "");
	put(dir, "memory.events", "oom 2\noom_kill 1\n");
	struct child c = child_start(fake);
	assert_int_equal(look(&c, DC_VITALS_CGROUP).cgroup_oom, 3);
	snprintf(procs, sizeof(procs), "%s/cgroup.procs", group);
	f = fopen(procs, "we");
	assert_non_null(f);
	fprintf(f, "%d\n", c.pid);
	assert_int_equal(fclose(f), 0);
	put(dir, "memory.events.new", "oom 1000\noom_kill 500\n");
	snprintf(procs, sizeof(procs), "%s/memory.events.new", dir);
	snprintf(real, sizeof(real), "%s/memory.events", dir);
	assert_int_equal(rename(procs, real), 0); /* seen once its files are opened again, as those of another group are */
	for (int i = 0; i < 20; i++)
		v = look(&c, DC_VITALS_CGROUP);
	assert_int_equal(v.cgroup_oom, 3);
	put(dir, "memory.events", "oom 1000\noom_kill 501\n");
	assert_int_equal(look(&c, DC_VITALS_CGROUP).cgroup_oom, 4);
	child_end(&c);
	rmdir(group);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_it_does),
		cmocka_unit_test(test_states),
		cmocka_unit_test(test_d_state),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_gone),
		cmocka_unit_test_setup_teardown(test_cgroup_v2, fake_make, fake_remove),
		cmocka_unit_test_setup_teardown(test_cgroup_v1, fake_make, fake_remove),
		cmocka_unit_test_setup_teardown(test_nothing_there, fake_make, fake_remove),
		cmocka_unit_test_setup_teardown(test_moved, fake_make, fake_remove),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
