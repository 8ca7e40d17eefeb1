/* SPDX-License-Identifier: MIT */
/*
 * A function between two of the test's, for which there is a frame description only where the build wants it: .eh_frame
 * without a search table, or .debug_frame and nothing else. Its frame has a size known at run time, and saves registers.
 */
#include <string.h>

#include "unwind_through.h"

int THROUGH(int (*call)(void *), void *arg, int bytes)
{
	char room[bytes];

	memset(room, bytes, sizeof room);
	__asm__ volatile("" : : "r"(room) : "memory");
	int r = call(arg);
	__asm__ volatile("" : : "r"(room) : "memory");
	return r + room[0] - (char)bytes + (arg == (void *)room);
}
