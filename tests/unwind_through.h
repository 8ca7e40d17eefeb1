/* SPDX-License-Identifier: MIT */
#pragma once

#if defined(__GNUC__)
#pragma GCC visibility push(default)
#endif
int through_no_table(int (*call)(void *), void *arg, int bytes);
int through_debug_frame(int (*call)(void *), void *arg, int bytes);
#if defined(__GNUC__)
#pragma GCC visibility pop
#endif
