/* SPDX-License-Identifier: MIT */
/*
 * System calls without libc: no errno is touched, no cancellation point is passed, nothing is interposed, so
 * they may be used in signal handlers, between fork and exec, and before libc has run its constructors.
 * Return: >= 0, or -errno.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>

#if defined(__x86_64__)
static inline long dc_sys6(long n, long a, long b, long c, long d, long e, long f)
{
	long ret;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
}
#elif defined(__aarch64__)
static inline long dc_sys6(long n, long a, long b, long c, long d, long e, long f)
{
	register long x8 __asm__("x8") = n;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	register long x5 __asm__("x5") = f;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
	return x0;
}
#endif

/* Between two looks at what another thread is about to finish. */
static inline void dc_pause(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#else
	__asm__ volatile("yield");
#endif
}

#define DC_SYS_PICK_(a, b, c, d, e, f, g, N, ...) N
#define DC_SYS0_(n) dc_sys6(n, 0, 0, 0, 0, 0, 0)
#define DC_SYS1_(n, a) dc_sys6(n, (long)(a), 0, 0, 0, 0, 0)
#define DC_SYS2_(n, a, b) dc_sys6(n, (long)(a), (long)(b), 0, 0, 0, 0)
#define DC_SYS3_(n, a, b, c) dc_sys6(n, (long)(a), (long)(b), (long)(c), 0, 0, 0)
#define DC_SYS4_(n, a, b, c, d) dc_sys6(n, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)
#define DC_SYS5_(n, a, b, c, d, e) dc_sys6(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), 0)
#define DC_SYS6_(n, a, b, c, d, e, f) dc_sys6(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
/* dc_sys(SYS_openat, dirfd, path, flags, mode): the call by its number */
#define dc_sys(...)                                                                                            \
	DC_SYS_PICK_(__VA_ARGS__, DC_SYS6_, DC_SYS5_, DC_SYS4_, DC_SYS3_, DC_SYS2_, DC_SYS1_, DC_SYS0_, ~)(__VA_ARGS__)

#define DC_MAP_FAILED(p) ((uintptr_t)(p) > (uintptr_t) - 4096)

static inline void *dc_sys_mmap(void *at, size_t bytes, int prot, int flags, int fd, uint64_t offset)
{
	return (void *)dc_sys(SYS_mmap, at, bytes, prot, flags, fd, offset);
}
