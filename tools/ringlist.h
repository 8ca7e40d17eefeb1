/* SPDX-License-Identifier: MIT */
/*
 * All rings a user may look at: those of the ring directory and of each `dashcam run` below it. For commands
 * that look once; the watcher keeps its own list.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "trigger/ring.h"
#include "trigger/rings.h"

struct listed_ring {
	struct dc_ring *ring;
	bool alive;
	uint32_t watcher; /* pid of the watcher of its directory, 0: none */
};

struct ring_list {
	char dir[DC_RINGS_PATH_BYTES];
	bool dir_exists;
	uint32_t watcher; /* of @dir itself */
	unsigned count;
	struct listed_ring *rings; /* ordered by pid, then by start */
	unsigned refused;          /* rings that could not be opened */
	char why[DC_WHY_BYTES];    /* the last of them */
};

struct ring_filter {
	const char *dir;  /* NULL: the usual one */
	uint64_t pid;     /* 0: all */
	const char *name; /* glob, NULL: all */
	bool dead;        /* also rings whose owner is gone */
};

/* Return: EXIT_OK, or EXIT_FAILED after a line on stderr. No ring at all is no error. */
int ring_list_load(const struct ring_filter *filter, struct ring_list *ret_list);
void ring_list_cleanup(struct ring_list *list);

/* The pid people know: in our pid namespace where it is visible, else as the ring says. */
uint32_t ring_pid(const struct dc_ring *ring);

/* --pid, --name and --dir, the same everywhere; the command's options, struct @of, have a member struct
 * ring_filter rings. */
/* clang-format off: one row of a table should stay one row */
#define RING_MEMBER(of, member) offsetof(struct of, rings.member)
#define RING_OPTION_ROWS(of)                                                                                 \
	{.name = "pid",                                                                                      \
	 .type = OPTION_COUNT,                                                                               \
	 .at = RING_MEMBER(of, pid),                                                                         \
	 .value = "PID",                                                                                     \
	 .help = "this process only",                                                                        \
	 .min = 1,                                                                                           \
	 .max = UINT32_MAX},                                                                                 \
		{.name = "name",                                                                             \
		 .type = OPTION_TEXT,                                                                        \
		 .at = RING_MEMBER(of, name),                                                                \
		 .value = "GLOB",                                                                            \
		 .help = "processes whose name matches, as in 'worker*'"},                                   \
	{                                                                                                    \
		.name = "dir", .type = OPTION_DIR, .at = RING_MEMBER(of, dir), .value = "DIR",               \
		.help = "look for rings in DIR instead of $DASHCAM_DIR, /run/dashcam or "                    \
			"/dev/shm/dashcam-UID"                                                               \
	}
/* clang-format on */
