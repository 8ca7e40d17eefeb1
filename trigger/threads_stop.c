/* SPDX-License-Identifier: MIT */
#include "trigger/threads_inside.h"

#include <elf.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ipc/now.h"

#define SPIN_NS INT64_C(200000) /* a thread that gets a CPU stops within some 10 µs; for one that does not nobody waits */
#define NAP_NS 20000

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
	return dc_thread_stat(t, &now) < 0 || !dc_thread_can_stop(&now);
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
		dc_taking_why(t, "thread %u: runs 32-bit code", th->tid);
	dc_taking_sample(t, th, c);
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
			dc_taking_sample(t, th, NULL);
		else
			t->late[kept++] = *th;
	}
	t->late_count = kept;
}

/* Where all CPUs are busy threads need their turn to stop. Those in D state may need for ever: nobody waits for them. */
static bool some_will_stop(const struct taking *t)
{
	for (uint32_t i = 0; i < t->late_count; i++)
		if (t->late[i].state.state != 'D')
			return true;
	return false;
}

void dc_taking_wait(struct taking *t, uint32_t most)
{
	const struct timespec nap = {.tv_nsec = NAP_NS};

	take_late(t);
	while (t->late_count > most && some_will_stop(t) && dc_taking_time_left(t)) {
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
		tracer = dc_thread_status(t, th->tid, "\nTracerPid:");
		if (tracer)
			dc_taking_why(t, "thread %u is held by another tracer, process %u", th->tid, tracer);
		else if (r == -EPERM)
			dc_taking_why(t, "thread %u may not be stopped by us (not dumpable, or kernel.yama.ptrace_scope)", th->tid);
		else
			dc_taking_why(t, "thread %u: %s", th->tid, strerror(-r));
		t->totals.refused++;
		return r;
	}
	/* Seized it keeps its number; so if it is of our process now, it is the one. Else the end of our thread frees it. */
	snprintf(path, sizeof(path), "%u", th->tid);
	return faccessat(t->task_fd, path, F_OK, 0) < 0 ? -ESRCH : 0;
}

bool dc_taking_stop(struct taking *t, struct thread *th)
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

void dc_taking_end(struct taking *t)
{
	dc_taking_wait(t, 0);
	for (uint32_t i = 0; i < t->late_count; i++) {
		dc_taking_why(t, "thread %u did not stop, its state is %c", t->late[i].tid, t->late[i].state.state);
		dc_taking_sample(t, &t->late[i], NULL);
	}
}
