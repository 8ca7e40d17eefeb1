/* SPDX-License-Identifier: MIT */
#include "persist/stacks/filter.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#endif

#define CODE_MAX 256u
#define X32_BIT 0x40000000u

struct filter {
	unsigned short count;
	struct sock_filter code[CODE_MAX];
};

/* (argument & mask) == value */
struct check {
	unsigned argument;
	uint32_t mask; /* low half: little-endian */
	uint32_t value;
};

static void emit(struct filter *f, uint16_t code, uint8_t yes, uint8_t no, uint32_t k)
{
	assert(f->count < CODE_MAX);
	f->code[f->count++] = (struct sock_filter){code, yes, no, k};
}

static void load(struct filter *f, size_t offset)
{
	emit(f, BPF_LD | BPF_W | BPF_ABS, 0, 0, (uint32_t)offset);
}

static void answer(struct filter *f, uint32_t action)
{
	emit(f, BPF_RET | BPF_K, 0, 0, action);
}

static void begin(struct filter *f)
{
	load(f, offsetof(struct seccomp_data, arch));
	emit(f, BPF_JMP | BPF_JEQ | BPF_K, 1, 0, ARCH);
	answer(f, SECCOMP_RET_KILL_PROCESS);
	load(f, offsetof(struct seccomp_data, nr));
	emit(f, BPF_JMP | BPF_JGE | BPF_K, 0, 1, X32_BIT);
	answer(f, SECCOMP_RET_KILL_PROCESS);
}

static void on(struct filter *f, uint32_t number, uint32_t action)
{
	emit(f, BPF_JMP | BPF_JEQ | BPF_K, 0, 1, number);
	answer(f, action);
}

/* Allowed when all @checks hold; death when not. */
static void allow_if(struct filter *f, uint32_t number, const struct check *checks, unsigned count)
{
	emit(f, BPF_JMP | BPF_JEQ | BPF_K, 0, (uint8_t)(3 * count + 2), number);
	for (unsigned i = 0; i < count; i++) {
		load(f, offsetof(struct seccomp_data, args) + 8 * checks[i].argument);
		emit(f, BPF_ALU | BPF_AND | BPF_K, 0, 0, checks[i].mask);
		emit(f, BPF_JMP | BPF_JEQ | BPF_K, 0, (uint8_t)(3 * (count - 1 - i) + 1), checks[i].value);
	}
	answer(f, SECCOMP_RET_ALLOW);
	answer(f, SECCOMP_RET_KILL_PROCESS);
}

/* @action when argument @argument, an int, is one of @values; else @otherwise. */
static void on_values(struct filter *f, uint32_t number, unsigned argument, const int *values, unsigned count,
		      uint32_t action, uint32_t otherwise)
{
	emit(f, BPF_JMP | BPF_JEQ | BPF_K, 0, (uint8_t)(count + 3), number);
	load(f, offsetof(struct seccomp_data, args) + 8 * argument);
	for (unsigned i = 0; i < count; i++)
		emit(f, BPF_JMP | BPF_JEQ | BPF_K, (uint8_t)(count - i), 0, (uint32_t)values[i]);
	answer(f, otherwise);
	answer(f, action);
}

/* Reading, memory, time, and what libc asks of itself. */
static const uint32_t harmless[] = {
	SYS_read,	  SYS_pread64,	     SYS_readv,		 SYS_preadv,	  SYS_lseek,
	SYS_fstat,	  SYS_newfstatat,    SYS_statx,		 SYS_getdents64,  SYS_readlinkat,
	SYS_faccessat,	  SYS_faccessat2,    SYS_fadvise64,	 SYS_getcwd,	  SYS_dup,
	SYS_munmap,	  SYS_mremap,	     SYS_brk,		 SYS_madvise,	  SYS_futex,
	SYS_exit,	  SYS_exit_group,    SYS_rt_sigreturn,	 SYS_sigaltstack, SYS_rt_sigaction,
	SYS_rt_sigprocmask, SYS_clock_gettime, SYS_clock_getres, SYS_gettimeofday, SYS_getrandom,
	SYS_sched_yield,  SYS_sched_getaffinity, SYS_sysinfo,	 SYS_uname,	  SYS_getpid,
	SYS_gettid,	  SYS_getppid,	     SYS_getuid,	 SYS_geteuid,	  SYS_getgid,
	SYS_getegid,	  SYS_restart_syscall, SYS_mincore,	 SYS_setitimer,
#if defined(__x86_64__)
	SYS_stat,	  SYS_lstat,	     SYS_access,	 SYS_readlink,	  SYS_time,
#endif
};

/* Not to be had, but no reason to die: callers do without. */
static const uint32_t refused[] = {SYS_ioctl, SYS_prlimit64, SYS_openat2, SYS_rseq, SYS_membarrier};

static void reading(struct filter *f)
{
	const uint32_t changes = O_ACCMODE | O_CREAT | O_TRUNC | (O_TMPFILE & ~O_DIRECTORY);
	const int questions[] = {F_GETFD, F_GETFL, F_DUPFD_CLOEXEC};

	allow_if(f, SYS_openat, &(struct check){2, changes, O_RDONLY}, 1);
#if defined(__x86_64__)
	allow_if(f, SYS_open, &(struct check){1, changes, O_RDONLY}, 1);
#endif
	on_values(f, SYS_fcntl, 1, questions, 3, SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO | EINVAL);
}

static void memory(struct filter *f)
{
	const struct check private_data[] = {{2, PROT_EXEC, 0}, {3, MAP_TYPE, MAP_PRIVATE}};

	allow_if(f, SYS_mmap, private_data, 2);
	allow_if(f, SYS_mprotect, private_data, 1);
}

static void writing(struct filter *f, int out_fd)
{
	const int out[] = {out_fd, STDERR_FILENO};
#ifdef DC_FILTER_SANITIZED
	const unsigned count = 2; /* what a sanitizer finds it says */
#else
	const unsigned count = 1;
#endif

	on_values(f, SYS_write, 0, out, count, SECCOMP_RET_ALLOW, SECCOMP_RET_KILL_PROCESS);
	on_values(f, SYS_writev, 0, out, count, SECCOMP_RET_ALLOW, SECCOMP_RET_KILL_PROCESS);
	on_values(f, SYS_close, 0, out, 1, SECCOMP_RET_ERRNO | EBADF, SECCOMP_RET_ALLOW);
}

int dc_filter_enter(int out_fd)
{
	const int self = getpid();
	struct filter f = {0};

	begin(&f);
	for (size_t i = 0; i < sizeof harmless / sizeof harmless[0]; i++)
		on(&f, harmless[i], SECCOMP_RET_ALLOW);
	for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
		on(&f, refused[i], SECCOMP_RET_ERRNO | EPERM);
	reading(&f);
	memory(&f);
	writing(&f, out_fd);
	/* abort() raises its signal; nobody else is to get one. */
	on_values(&f, SYS_tgkill, 0, &self, 1, SECCOMP_RET_ALLOW, SECCOMP_RET_KILL_PROCESS);
	answer(&f, SECCOMP_RET_KILL_PROCESS);

	const struct sock_fprog program = {.len = f.count, .filter = f.code};
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	/* The oldest way: seccomp() itself may be refused by the filter that a service runs in. */
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) < 0 ? -errno : 0;
}
