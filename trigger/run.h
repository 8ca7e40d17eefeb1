/* SPDX-License-Identifier: MIT */
/*
 * `dashcam run`: the watcher around one command, with nothing to configure and nothing left behind.
 *
 * The command gets a private ring directory, <dir>/run.<our pid>/ (0700), by DASHCAM_DIR, so that no other watcher
 * looks after it and the end of it is the end of all its rings. Signals go on to the command, its exit status comes
 * back. `dashcam attach` is the same around processes that run already. What a run leaves when it is killed itself is
 * swept by the next one, unless it holds evidence that nobody has saved yet.
 */
#pragma once

#include <stdbool.h>

#include "trigger/watcher.h"

struct dc_run_config {
	struct dc_watcher_config watcher; /* .dir: the directory to make the private one in */
	char *const *argv;                /* the command, NULL-terminated; found by PATH */
	const char *window; /* for DASHCAM_WINDOW and DASHCAM_MEMORY of the command; NULL: as they are */
	const char *memory;
	bool on_exit; /* save also when the command ends by itself */
};

#define DC_RUN_NOT_FOUND 127 /* exit statuses of a command that cannot be run, as shells give them */
#define DC_RUN_NOT_STARTED 126

/*
 * dc_run() - run the command under a watcher
 * *@ret_status is a wait status. A command that cannot be run is said so to config->watcher.log, and its status is the one
 * that shells give then. Return: 0; -errno of the watcher, and @ret_why is one line for people.
 */
int dc_run(const struct dc_run_config *config, int *ret_status, char ret_why[static DC_WHY_BYTES]);

/*
 * dc_run_end() - end as the command ended: shells see the same status, and the same signal
 * Returns the exit status when it was an orderly one; after a signal it does not return.
 */
int dc_run_end(int status);

struct dc_attach_config {
	struct dc_watcher_config watcher; /* .dir: the directory to make the private one in */
	const uint32_t *pids;
	uint32_t count;
	bool on_exit; /* save also when they have all ended by themselves */
};

/*
 * dc_attach() - watch and sample processes that run already and have no ring, until they end or SIGTERM, SIGINT
 * They keep no trace of it. Return: 0; -ESRCH, -EPERM of a process; an error of the watcher. @ret_why is one line for people.
 */
int dc_attach(const struct dc_attach_config *config, char ret_why[static DC_WHY_BYTES]);

/* dc_run_sweep() - remove private directories of runs that are gone, and hold no evidence younger than @grace_ns. */
void dc_run_sweep(const char *dir, int64_t grace_ns);
