/* SPDX-License-Identifier: MIT */
/* The parts of bench_hotpath that are compiled apart: the inline form, the peer, and work nobody may see through. */
#pragma once

double hot_pair_ns(long n); /* begin(2 ints) + end, out of line; ns per event */
double hot_pair_inline_ns(long n); /* with -DDC_INLINE */
double hot_stack_ns(long n); /* DC_STACK below ten functions */
int hot_work(int fd, int n);

/* LTTng-UST in snapshot mode; loaded at run time, so that the benchmark builds and runs without it. */
struct hot_peer;
struct hot_peer *hot_peer_open(void); /* NULL: not to be had, see hot_peer_why() */
const char *hot_peer_why(void);
double hot_peer_pair_ns(struct hot_peer *p, long n);
void hot_peer_close(struct hot_peer *p);

/* bench_hotpath_load.c: microseconds that loading libdashcam.so adds to a process, medians of 201 each in turns. */
double hot_load_us(void);
