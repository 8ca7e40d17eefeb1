/* SPDX-License-Identifier: MIT */
#include "trigger/threads.h"

#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ipc/cleanup.h"
#include "ipc/now.h"
#include "ipc/registers.h"
#include "ipc/round.h"
#include "trigger/proc.h"

#define SPIN_NS INT64_C(200000) /* a thread that gets a CPU stops within some 10 µs; for one that does not nobody waits */
#define NAP_NS 20000
#define LATE_MAX 64u
#define SPANS_MAX (2 * DC_THREADS_MAX)
#define KEPT_MAX (DC_THREADS_KEPT_BYTES / DC_WRITER_PAYLOAD_MAX)

/* A thread on its way into a sample. */
struct thread {
	uint32_t tid;
	uint32_t own_tid; /* what it calls itself */
	uint32_t cpu;
	struct dc_thread_state state;
};

/* What was copied while it stood. */
struct copy {
	int64_t at_ns;
	uint64_t regs[DC_REGS];
	uint16_t reg_count;
	uint32_t stack_bytes;
	uint8_t *stack; /* DC_THREADS_STACK_BYTES, touched before: a page fault here is time somebody stands */
};

/* A mapping that can hold a stack. */
struct span {
	uint64_t start;
	uint64_t end;
};

/* Payloads of SAMPLES blocks. */
struct dc_threads {
	uint32_t count;
	uint8_t *blocks[KEPT_MAX];
	size_t bytes[KEPT_MAX];
};

struct taking {
	uint32_t pid;
	uint64_t start_time;
	uint32_t process;
	int64_t began_ns;
	int64_t budget_ns;
	struct dc_writer *writer;   /* NULL: */
	struct dc_threads *threads; /* kept in memory */
	int task_fd; /* /proc/PID/task: stays that of the process, whoever has its pid by then */
	bool other_namespace;
	uint32_t span_count;
	struct span *spans; /* SPANS_MAX, by address */
	struct copy copy;
	uint8_t *block; /* being filled, NULL: none */
	size_t block_bytes;
	uint32_t late_count;
	struct thread late[LATE_MAX]; /* seized, asked to stop, and did not yet */
	uint64_t *held_ns; /* of each taken */
	struct dc_threads_totals totals;
	int result;
};

__attribute__((format(printf, 2, 3))) static void say_why(struct taking *t, const char *format, ...)
{
	va_list args;

	if (t->totals.why[0])
		return;
	va_start(args, format);
	vsnprintf(t->totals.why, sizeof(t->totals.why), format, args);
	va_end(args);
}

/* --- what /proc says of a thread that nobody has touched yet --- */

static ssize_t read_file(const struct taking *t, uint32_t tid, const char *file, char *text, size_t size)
{
	CLEANUP(close_fd) int fd = -1;
	char path[40];
	ssize_t n;

	snprintf(path, sizeof(path), "%u/%s", tid, file);
	fd = openat(t->task_fd, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = read(fd, text, size - 1);
	if (n < 0)
		return -errno;
	text[n] = '\0';
	return n;
}

/* "12 (a name) S ...": the name may hold anything, what follows the last parenthesis is plain. */
static int read_stat(const struct taking *t, struct thread *th)
{
	char text[1024], *name, *end;
	ssize_t n = read_file(t, th->tid, "stat", text, sizeof(text));

	if (n < 0)
		return (int)n;
	name = strchr(text, '(');
	end = strrchr(text, ')');
	if (!name || !end || end < name || end[1] == '\0')
		return -EBADMSG;
	*end = '\0';
	snprintf(th->state.comm, sizeof(th->state.comm), "%s", name + 1);
	th->state.state = (uint8_t)end[2];
	th->cpu = UINT32_MAX;
	end += 2;
	for (unsigned field = 3; end && field < 39; field++)
		end = strchr(end + 1, ' ');
	if (end)
		th->cpu = (uint32_t)strtoul(end + 1, NULL, 10);
	return 0;
}

/* "running", "-1 SP PC" (waits, but not in a system call), or the number and six arguments. */
static void read_syscall(const struct taking *t, struct dc_thread_state *s, uint32_t tid)
{
	char text[256];
	int number;

	s->syscall = DC_SYSCALL_UNKNOWN;
	if (read_file(t, tid, "syscall", text, sizeof(text)) <= 0)
		return;
	if (strncmp(text, "running", 7) == 0)
		s->syscall = DC_SYSCALL_NONE;
	else if (sscanf(text, "%d 0x%" SCNx64 " 0x%" SCNx64 " 0x%" SCNx64 " 0x%" SCNx64 " 0x%" SCNx64 " 0x%" SCNx64, &number,
			&s->args[0], &s->args[1], &s->args[2], &s->args[3], &s->args[4], &s->args[5]) == 7)
		s->syscall = number;
	else if (strncmp(text, "-1 ", 3) == 0)
		s->syscall = DC_SYSCALL_NONE;
	if (s->syscall < 0)
		memset(s->args, 0, sizeof(s->args));
}

/* The number behind "@key:" in its status; of several (NSpid) the last, which is its own. */
static uint32_t read_status(const struct taking *t, uint32_t tid, const char *key)
{
	char text[4096], *line, *end;

	if (read_file(t, tid, "status", text, sizeof(text)) <= 0)
		return 0;
	line = strstr(text, key);
	if (!line)
		return 0;
	line += strlen(key);
	end = strchr(line, '\n');
	if (end)
		*end = '\0';
	end = strrchr(line, '\t');
	return (uint32_t)strtoul(end ? end + 1 : line, NULL, 10);
}

static bool can_stop(const struct thread *th)
{
	return th->state.state != 'Z' && th->state.state != 'X';
}

static int look_at(const struct taking *t, struct thread *th)
{
	struct dc_thread_state *s = &th->state;
	int r = read_stat(t, th);

	if (r < 0)
		return r;
	read_syscall(t, s, th->tid);
	if (read_file(t, th->tid, "wchan", s->wchan, sizeof(s->wchan)) <= 0 || strcmp(s->wchan, "0") == 0)
		s->wchan[0] = '\0';
	th->own_tid = t->other_namespace ? read_status(t, th->tid, "\nNSpid:") : th->tid;
	return 0;
}

/* --- samples --- */

static void flush(struct taking *t)
{
	if (t->block && t->writer && t->result == 0)
		t->result = dc_writer_commit(t->writer, DC_BLOCK_SAMPLES, t->process, t->block_bytes);
	else if (t->block && t->threads)
		t->threads->bytes[t->threads->count++] = t->block_bytes;
	t->block = NULL;
	t->block_bytes = 0;
}

static uint8_t *new_block(struct taking *t)
{
	uint8_t *block;

	if (!t->writer)
		return t->threads->count < KEPT_MAX ? t->threads->blocks[t->threads->count] = malloc(DC_WRITER_PAYLOAD_MAX) : NULL;
	block = dc_writer_reserve(t->writer);
	if (!block)
		t->result = dc_writer_error(t->writer) < 0 ? dc_writer_error(t->writer) : -ENOMEM;
	return block;
}

/* The last block is for those of which nothing is copied any more. */
static bool room_left(const struct taking *t)
{
	return t->writer || t->threads->count + 1 < KEPT_MAX;
}

/* Room for @bytes in the block being filled. */
static uint8_t *room_for(struct taking *t, size_t bytes)
{
	uint8_t *at;

	if (t->block_bytes + bytes > DC_WRITER_PAYLOAD_MAX)
		flush(t);
	if (!t->block && t->result == 0)
		t->block = new_block(t);
	if (!t->block)
		return NULL;
	at = t->block + t->block_bytes;
	t->block_bytes += bytes;
	return at;
}

static uint8_t *append(uint8_t *at, const void *bytes, size_t n)
{
	memcpy(at, bytes, n);
	memset(at + n, 0, dc_round8(n) - n);
	return at + dc_round8(n);
}

/* @c: NULL when nothing could be copied. */
static void write_sample(struct taking *t, const struct thread *th, const struct copy *c)
{
	struct dc_sample s = {
		.kind = DC_SAMPLE_THREAD,
		.tid = th->own_tid,
		.cpu = th->cpu,
		.monotonic_ns = c ? c->at_ns : dc_now_ns(),
		.reg_count = c ? c->reg_count : 0,
		.stack_bytes = c ? c->stack_bytes : 0,
		.extra_bytes = sizeof(th->state),
	};
	size_t bytes = sizeof(s) + s.reg_count * sizeof(uint64_t) + dc_round8(s.stack_bytes) + dc_round8(s.extra_bytes);
	uint8_t *at = room_for(t, bytes);

	if (!at)
		return;
	s.bytes = (uint32_t)bytes;
	if (s.stack_bytes == DC_THREADS_STACK_BYTES)
		s.flags |= DC_SAMPLE_STACK_CUT;
	at = append(at, &s, sizeof(s));
	if (c) {
		at = append(at, c->regs, s.reg_count * sizeof(uint64_t));
		at = append(at, c->stack, s.stack_bytes);
	}
	append(at, &th->state, sizeof(th->state));
}

/* --- stopping --- */

#if defined(__x86_64__)
typedef struct user_regs_struct machine_regs;

static void take_regs(const machine_regs *m, uint64_t regs[static DC_REGS])
{
	const uint64_t in_order[DC_REGS] = {m->rax, m->rdx, m->rcx, m->rbx, m->rsi, m->rdi, m->rbp, m->rsp, m->r8,
					    m->r9,  m->r10, m->r11, m->r12, m->r13, m->r14, m->r15, m->rip};

	memcpy(regs, in_order, sizeof(in_order));
}

/* Waits that do nothing until they end, and say EINTR where others ask the kernel to restart them. */
static bool only_waits(uint64_t number)
{
	static const uint16_t calls[] = {SYS_epoll_wait, SYS_epoll_pwait,  441 /* epoll_pwait2 */, SYS_rt_sigtimedwait,
					 SYS_semop,	 SYS_semtimedop,   SYS_accept,		   SYS_accept4,
					 SYS_read,	 SYS_readv,	   SYS_recvfrom,	   SYS_recvmsg,
					 SYS_recvmmsg,	 SYS_sendto,	   SYS_sendmsg,		   SYS_io_getevents,
					 426 /* io_uring_enter */};

	for (unsigned i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
		if (calls[i] == number)
			return true;
	return false;
}

/*
 * It was our request to stop that ended the wait, and the thread would see EINTR. The kernel's own word for "again, unless a
 * signal handler runs" does what is right whatever signals there are or come: if one has a handler, that EINTR is its due.
 */
static void let_wait_again(uint32_t tid, const machine_regs *m)
{
	const int64_t restart_unless_handled = -514; /* ERESTARTNOHAND, which no header shows to programs */

	if ((int64_t)m->rax == -EINTR && (int64_t)m->orig_rax >= 0 && only_waits(m->orig_rax))
		ptrace(PTRACE_POKEUSER, tid, (void *)offsetof(struct user, regs.rax), (void *)restart_unless_handled); // NOLINT
}

/* The system call a thread was in whose /proc/.../syscall we may not read. */
static void take_syscall(const machine_regs *m, struct dc_thread_state *s)
{
	const uint64_t args[6] = {m->rdi, m->rsi, m->rdx, m->r10, m->r8, m->r9};

	if (s->syscall != DC_SYSCALL_UNKNOWN || s->state == 'R')
		return;
	s->syscall = (int64_t)m->orig_rax < 0 ? DC_SYSCALL_NONE : (int32_t)m->orig_rax;
	if (s->syscall >= 0)
		memcpy(s->args, args, sizeof(args));
}
#elif defined(__aarch64__)
typedef struct user_regs_struct machine_regs;

static void take_regs(const machine_regs *m, uint64_t regs[static DC_REGS])
{
	memcpy(regs, m->regs, sizeof(m->regs));
	regs[DC_REG_ARM_SP] = m->sp;
	regs[DC_REG_ARM_PC] = m->pc;
}

/* Which system call it was and its first argument are gone when a thread stops. */
static void let_wait_again(uint32_t tid, const machine_regs *m)
{
	(void)tid;
	(void)m;
}

static void take_syscall(const machine_regs *m, struct dc_thread_state *s)
{
	(void)m;
	(void)s;
}
#endif

/* Return: 0 when it stands; -ESRCH: not yet, or it is gone; -ENOTSUP: a 32-bit program. */
static int get_regs(uint32_t tid, machine_regs *ret_regs)
{
	struct iovec regs = {ret_regs, sizeof(*ret_regs)};

	if (ptrace(PTRACE_GETREGSET, tid, (void *)NT_PRSTATUS, &regs) < 0) // NOLINT
		return -errno;
	return regs.iov_len == sizeof(*ret_regs) ? 0 : -ENOTSUP;
}

/*
 * Asked of ptrace, not of wait(): another thread of ours that waits for its children may be shown the stop instead.
 * Return: as get_regs().
 */
static int wait_stopped(uint32_t tid, machine_regs *ret_regs)
{
	const int64_t until = dc_now_ns() + SPIN_NS;
	int r;

	while ((r = get_regs(tid, ret_regs)) == -ESRCH && dc_now_ns() < until)
		sched_yield();
	return r;
}

/*
 * Its status is for its parent to take. A stop, which of those we trace is told unasked, is none. And nothing is told of a first
 * thread whose others are not all gone, of which we may hold some.
 */
static bool has_ended(const struct taking *t, uint32_t tid)
{
	struct thread now = {.tid = tid};
	siginfo_t end = {0};

	if (waitid(P_PID, tid, &end, WEXITED | WNOHANG | WNOWAIT | __WALL) == 0 && end.si_pid)
		return end.si_code == CLD_EXITED || end.si_code == CLD_KILLED || end.si_code == CLD_DUMPED;
	return read_stat(t, &now) < 0 || !can_stop(&now);
}

/* The signal it was about to receive when it stopped; 0: it stopped because we asked, or with its process. */
static int held_signal(uint32_t tid)
{
	siginfo_t info = {0};

	if (ptrace(PTRACE_GETSIGINFO, tid, NULL, &info) < 0 || info.si_code >> 8 == PTRACE_EVENT_STOP)
		return 0;
	return info.si_signo;
}

/* What lies behind a stack is not of it, and is nobody's business. */
static size_t stack_bytes_at(const struct taking *t, uint64_t sp)
{
	uint32_t first = 0, last = t->span_count;

	while (first < last) {
		uint32_t middle = first + (last - first) / 2;

		if (t->spans[middle].end <= sp)
			first = middle + 1;
		else
			last = middle;
	}
	if (first == t->span_count || t->spans[first].start > sp ||
	    t->spans[first].end - sp > DC_THREADS_STACK_BYTES)
		return DC_THREADS_STACK_BYTES; /* deeper, or mapped since we looked */
	return t->spans[first].end - sp;
}

/* Up to the end of the mapping, or of what is allowed: a copy stops at the first page that cannot be read. */
static uint32_t copy_stack(const struct taking *t, uint32_t tid, uint64_t sp, uint8_t *to)
{
	const size_t bytes = stack_bytes_at(t, sp);
	struct iovec here = {to, bytes};
	struct iovec there = {(void *)(uintptr_t)sp, bytes};
	ssize_t n = process_vm_readv((pid_t)tid, &here, 1, &there, 1, 0);

	return n > 0 ? (uint32_t)n & ~7u : 0;
}

/* Of a thread that stands. @since_ns: when it was not standing yet. */
static void copy_and_let_go(struct taking *t, struct thread *th, const machine_regs *m, int supported, int64_t since_ns)
{
	struct copy *c = &t->copy;

	c->at_ns = dc_now_ns();
	c->reg_count = 0;
	c->stack_bytes = 0;
	if (supported == 0) {
		take_regs(m, c->regs);
		c->reg_count = DC_REGS;
		c->stack_bytes = copy_stack(t, th->tid, c->regs[DC_REG_SP], c->stack);
		take_syscall(m, &th->state);
		let_wait_again(th->tid, m);
	}
	ptrace(PTRACE_DETACH, th->tid, NULL, (void *)(uintptr_t)held_signal(th->tid));
	th->state.stopped_ns = (uint64_t)(dc_now_ns() - since_ns);
	t->held_ns[t->totals.taken++] = th->state.stopped_ns;
	th->state.taken = supported == 0;
	if (supported < 0)
		say_why(t, "thread %u: runs 32-bit code", th->tid);
	write_sample(t, th, c);
}

/* Those that did not stop at once may have meanwhile; each look is short. */
static void take_late(struct taking *t)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < t->late_count; i++) {
		struct thread *th = &t->late[i];
		const int64_t now = dc_now_ns();
		machine_regs m;
		int r = get_regs(th->tid, &m);

		if (r != -ESRCH)
			copy_and_let_go(t, th, &m, r, now);
		else if (has_ended(t, th->tid))
			write_sample(t, th, NULL);
		else
			t->late[kept++] = *th;
	}
	t->late_count = kept;
}

static bool time_left(const struct taking *t)
{
	return t->result == 0 && dc_now_ns() - t->began_ns < t->budget_ns;
}

/* Where all CPUs are busy threads need their turn to stop. Those in D state may need for ever: nobody waits for them. */
static bool some_will_stop(const struct taking *t)
{
	for (uint32_t i = 0; i < t->late_count; i++)
		if (t->late[i].state.state != 'D')
			return true;
	return false;
}

static void wait_late(struct taking *t, uint32_t most)
{
	const struct timespec nap = {.tv_nsec = NAP_NS};

	take_late(t);
	while (t->late_count > most && some_will_stop(t) && time_left(t)) {
		nanosleep(&nap, NULL);
		take_late(t);
	}
}

/* Return: 0, -ESRCH; else it is refused, or there is no point in asking. */
static int seize(struct taking *t, const struct thread *th)
{
	char path[16];
	uint32_t tracer;
	int r;

	if (ptrace(PTRACE_SEIZE, th->tid, NULL, NULL) < 0) {
		r = -errno;
		if (r == -ESRCH)
			return r;
		tracer = read_status(t, th->tid, "\nTracerPid:");
		if (tracer)
			say_why(t, "thread %u is held by another tracer, process %u", th->tid, tracer);
		else if (r == -EPERM)
			say_why(t, "thread %u may not be stopped by us (not dumpable, or kernel.yama.ptrace_scope)", th->tid);
		else
			say_why(t, "thread %u: %s", th->tid, strerror(-r));
		t->totals.refused++;
		return r;
	}
	/* Seized it keeps its number; so if it is of our process now, it is the one. Else the end of our thread frees it. */
	snprintf(path, sizeof(path), "%u", th->tid);
	return faccessat(t->task_fd, path, F_OK, 0) < 0 ? -ESRCH : 0;
}

/* Return: whether its sample is written or will be. */
static bool stop_and_copy(struct taking *t, struct thread *th)
{
	int64_t asked;
	machine_regs m;
	int r;

	if (seize(t, th) < 0)
		return false;
	asked = dc_now_ns();
	if (ptrace(PTRACE_INTERRUPT, th->tid, NULL, NULL) < 0)
		return false;
	r = wait_stopped(th->tid, &m);
	if (r == -ESRCH)
		t->late[t->late_count++] = *th;
	else
		copy_and_let_go(t, th, &m, r, asked);
	return true;
}

static void take_one(struct taking *t, uint32_t tid)
{
	struct thread th = {.tid = tid, .own_tid = tid, .cpu = UINT32_MAX, .state.syscall = DC_SYSCALL_UNKNOWN};

	if (dc_now_ns() - t->began_ns < 2 * t->budget_ns && look_at(t, &th) < 0)
		return; /* it ended */
	t->totals.threads++;
	if (!room_left(t))
		say_why(t, "out of room after %u threads", t->totals.threads - 1);
	else if (!time_left(t))
		say_why(t, "out of time after %u threads", t->totals.threads - 1);
	else if (can_stop(&th) && t->late_count < LATE_MAX && stop_and_copy(t, &th))
		return;
	write_sample(t, &th, NULL);
}

static void end_late(struct taking *t)
{
	wait_late(t, 0);
	for (uint32_t i = 0; i < t->late_count; i++) {
		say_why(t, "thread %u did not stop, its state is %c", t->late[i].tid, t->late[i].state.state);
		write_sample(t, &t->late[i], NULL);
	}
}

/* --- all of them --- */

/* Ids of all threads there are now; those to come are not chased. Return: how many, -errno. */
static int list_threads(struct taking *t, uint32_t *ret_tids)
{
	int fd = openat(t->task_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *e;
	int count = 0;

	if (!d) {
		if (fd >= 0)
			close(fd);
		return -ESRCH;
	}
	while ((e = readdir(d))) {
		uint32_t tid = (uint32_t)strtoul(e->d_name, NULL, 10);

		if (tid && count == (int)DC_THREADS_MAX)
			say_why(t, "more than %u threads", DC_THREADS_MAX);
		else if (tid)
			ret_tids[count++] = tid;
	}
	closedir(d);
	return count;
}

/* Writable mappings; of a process with very many only the first. */
static void list_spans(struct taking *t, uint32_t tid)
{
	char path[64], line[512];
	CLEANUP(fclose) FILE *f = NULL;
	struct span s;
	char rights[5];

	snprintf(path, sizeof(path), "/proc/%u/task/%u/maps", t->pid, tid);
	f = fopen(path, "re");
	while (f && t->span_count < SPANS_MAX && fgets(line, sizeof(line), f))
		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s", &s.start, &s.end, rights) == 3 && rights[1] == 'w')
			t->spans[t->span_count++] = s;
}

static int open_tasks(struct taking *t)
{
	struct dc_proc_stat st;
	char path[32];

	snprintf(path, sizeof(path), "/proc/%u/task", t->pid);
	t->task_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (t->task_fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	if (dc_proc_stat(t->pid, &st) < 0 || st.start_time != t->start_time)
		return -ESRCH;
	t->other_namespace = read_status(t, t->pid, "\nNSpid:") != t->pid;
	return 0;
}

uint32_t dc_threads_count(uint32_t pid)
{
	struct stat st;
	char path[32];

	snprintf(path, sizeof(path), "/proc/%u/task", pid);
	return stat(path, &st) == 0 && st.st_nlink > 2 ? (uint32_t)st.st_nlink - 2 : 0;
}

static int by_value(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void sum_up(struct taking *t)
{
	struct dc_threads_totals *s = &t->totals;

	if (s->taken) {
		qsort(t->held_ns, s->taken, sizeof(*t->held_ns), by_value);
		s->stopped_median_ns = t->held_ns[s->taken / 2];
		s->stopped_max_ns = t->held_ns[s->taken - 1];
	}
	s->took_ns = (uint64_t)(dc_now_ns() - t->began_ns);
}

static int take_all(struct taking *t)
{
	CLEANUP(free) uint32_t *tids = calloc(DC_THREADS_MAX, sizeof(*tids));
	CLEANUP(free) uint64_t *held = calloc(DC_THREADS_MAX, sizeof(*held));
	CLEANUP(free) uint8_t *stack = malloc(DC_THREADS_STACK_BYTES);
	CLEANUP(free) struct span *spans = calloc(SPANS_MAX, sizeof(*spans));
	int count = tids && held && stack && spans ? open_tasks(t) : -ENOMEM;

	if (count == 0)
		count = list_threads(t, tids);
	if (count < 0)
		return count;
	memset(stack, 1, DC_THREADS_STACK_BYTES);
	t->copy.stack = stack;
	t->held_ns = held;
	t->spans = spans;
	if (count)
		list_spans(t, tids[count - 1]); /* the first may have ended, and then shows none */
	for (int i = 0; i < count && t->result == 0; i++) {
		take_one(t, tids[i]);
		wait_late(t, LATE_MAX - 1);
	}
	end_late(t);
	flush(t);
	sum_up(t);
	return t->result;
}

static void *run(void *arg)
{
	struct taking *t = arg;

	t->result = take_all(t);
	if (t->task_fd >= 0)
		close(t->task_fd);
	return NULL;
}

/* The tracer: no signal is handled in it, and its end lets go of whatever it still holds. */
static int run_in_thread(struct taking *t)
{
	pthread_t thread;
	sigset_t all, before;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = -pthread_create(&thread, NULL, run, t);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r == 0)
		pthread_join(thread, NULL);
	return r < 0 ? r : t->result;
}

static int take(struct taking *t, struct dc_threads_totals *ret_totals)
{
	int r = 0;

	t->began_ns = dc_now_ns();
	t->task_fd = -1;
	if (t->pid == (uint32_t)getpid())
		say_why(t, "it is the watcher itself");
	else
		r = run_in_thread(t);
	if (r == 0)
		*ret_totals = t->totals;
	return r;
}

int dc_threads_write(uint32_t pid, uint64_t start_time, uint32_t process, int64_t budget_ns, struct dc_writer *w,
		     struct dc_threads_totals *ret_totals)
{
	struct taking t = {.pid = pid, .start_time = start_time, .process = process, .budget_ns = budget_ns, .writer = w};

	return take(&t, ret_totals);
}

int dc_threads_take(uint32_t pid, uint64_t start_time, int64_t budget_ns, struct dc_threads **ret_threads,
		    struct dc_threads_totals *ret_totals)
{
	CLEANUP(dc_threads) struct dc_threads *threads = calloc(1, sizeof(*threads));
	struct taking t = {.pid = pid, .start_time = start_time, .budget_ns = budget_ns, .threads = threads};
	int r = threads ? take(&t, ret_totals) : -ENOMEM;

	if (r == 0)
		*ret_threads = TAKE(threads);
	return r;
}

int dc_threads_put(const struct dc_threads *threads, uint32_t process, struct dc_writer *w)
{
	int r = 0;

	for (uint32_t i = 0; i < threads->count && r == 0; i++)
		r = dc_writer_block(w, DC_BLOCK_SAMPLES, process, threads->blocks[i], threads->bytes[i]);
	return r;
}

void dc_threads_free(struct dc_threads *threads)
{
	if (!threads)
		return;
	for (uint32_t i = 0; i < KEPT_MAX; i++)
		free(threads->blocks[i]);
	free(threads);
}
