/* SPDX-License-Identifier: MIT */
/*
 * Ownership by scope: CLEANUP(close_fd) int fd = -1; ... *ret_fd = TAKE_FD(fd);
 */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define CLEANUP(function) __attribute__((cleanup(function##_cleanup)))

/* Hands over what a CLEANUP variable owns: the variable is left empty, so the scope's end does nothing. */
#define TAKE(p)                                                                                                        \
	__extension__({                                                                                                \
		typeof(p) taken_ = (p);                                                                                \
		(p) = NULL;                                                                                            \
		taken_;                                                                                                \
	})
#define TAKE_FD(fd)                                                                                                    \
	__extension__({                                                                                                \
		int taken_ = (fd);                                                                                     \
		(fd) = -1;                                                                                             \
		taken_;                                                                                                \
	})

/* DC_DEFINE_CLEANUP(dc_capture, struct dc_capture *, dc_capture_close) makes CLEANUP(dc_capture) possible. */
#define DC_DEFINE_CLEANUP(name, type, function)                                                                        \
	static inline void name##_cleanup(type *p)                                                                     \
	{                                                                                                              \
		if (*p)                                                                                                \
			function(*p);                                                                                  \
	}

static inline void free_cleanup(void *p)
{
	free(*(void **)p);
}

static inline void close_fd_cleanup(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline void fclose_cleanup(FILE **f)
{
	if (*f)
		fclose(*f);
}
