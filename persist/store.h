/* SPDX-License-Identifier: MIT */
/*
 * The directory that captures are kept in: where it is, whether it may be trusted, what is in it, what has to go.
 *
 *   /var/lib/dashcam/<uid>/          watcher of the host (root), one directory for each user, owned by that user, 0700
 *   $XDG_STATE_HOME/dashcam/         watcher of one user; ~/.local/state/dashcam/ without XDG_STATE_HOME
 *   whatever --out says
 *
 *   2026-11-21T03-00-38.123Z-shop-checkout-failed.dcap         a capture: time (UTC), process, reason
 *   2026-11-21T03-00-38.123Z-shop-checkout-failed.dcap.keep    its owner wants it kept; empty
 *   2026-11-21T03-00-38.123Z-shop-checkout-failed.dcap.part    being written, locked by its writer
 *
 * Names sort by time. The keep mark is a file beside the capture, not an attribute of it, because settling replaces the
 * capture, and because user attributes are missing on tmpfs before Linux 6.6, on NFS, and in most archives; a
 * mark without its capture means nothing and is swept.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "persist/incident.h"

#define DC_STORE_WHY_BYTES 320u
#define DC_STORE_NAME_BYTES 128u

/*
 * dc_store_open() - open the directory for captures of processes of @uid, making it where it is missing
 * @path: where, NULL: the place above that fits the caller
 * @ret_fd: the directory
 *
 * A directory is refused where others could plant, read or take away captures: writable by its group or by everybody,
 * or owned by somebody who is neither root, the caller nor @uid; so is a symbolic link in its last component. Its
 * parents are the caller's business when @path is given.
 *
 * Return: 0; -EPERM: refused; -ENOTDIR, -EACCES, -ENOSPC, -EROFS ... @ret_why gets one line for people.
 */
int dc_store_open(uint32_t uid, const char *path, int *ret_fd, char ret_why[static DC_STORE_WHY_BYTES]);

/*
 * dc_store_name() - a name that nothing in @dir_fd has yet
 * @process, @reason: any bytes; what does not belong into a file name becomes '-', long ones are cut
 * Return: 0, -EEXIST when a hundred names of this millisecond are taken.
 */
int dc_store_name(int dir_fd, int64_t realtime_ns, const char *process, const char *reason,
		  char ret_name[static DC_STORE_NAME_BYTES]);

struct dc_store_entry {
	char name[256];
	int64_t at_ns; /* of the trigger; of the file's last change when damaged */
	uint64_t bytes; /* on disk */
	uint32_t severity;
	uint32_t uid; /* owner of the file */
	enum dc_reason reason;
	char rule[64];
	char text[256];
	enum dc_unit unit; /* of the two: DC_UNIT_NONE: no rule came true, or none with a value */
	double value;
	double threshold;
	bool settled;
	bool damaged; /* its bytes do not say what it is about */
	bool unreadable; /* they could not be read now (I/O error, too many open files); damaged, too, but never evicted */
	bool newer;      /* only a newer version knows what they say; unreadable, too */
	bool kept;
};

/*
 * dc_store_list() - all captures of a directory, oldest first
 * Reads the first blocks of each. @ret_entries is malloc'ed. Return: 0, -errno of the directory, -ENOMEM.
 */
int dc_store_list(int dir_fd, struct dc_store_entry **ret_entries, unsigned *ret_count);

/* Marks it, or takes the mark away. Return: 0, -ENOENT: no such capture, -errno. */
int dc_store_keep(int dir_fd, const char *name, bool keep);

/* Removes a capture with its mark. Return: 0, -ENOENT, -errno. */
int dc_store_remove(int dir_fd, const char *name);

/*
 * dc_store_victims() - what would have to go to bring @entries down to @budget_bytes
 * Lowest severity first, and of those the oldest. Kept ones stay, and so does the newest of each rule (of each reason
 * where no rule asked); the sum may then remain above the budget.
 * @entries: as dc_store_list() gives them; @ret_victim: @count flags. Return: the bytes that would be freed.
 */
uint64_t dc_store_victims(const struct dc_store_entry *entries, unsigned count, uint64_t budget_bytes,
			  bool *ret_victim);

/* Lists, chooses, removes. Return: 0 and the number and bytes removed, the first -errno (and goes on). */
int dc_store_evict(int dir_fd, uint64_t budget_bytes, unsigned *ret_removed, uint64_t *ret_bytes);

/* Removes .part files whose writers are gone, and marks whose captures are. Return: how many, -errno. */
int dc_store_sweep(int dir_fd);

/*
 * dc_store_names() - the directory of answers about addresses (persist/stacks/cache.h) beside captures: ".names", 0700
 * Return: fd; -errno, -ENOTDIR or -ELOOP where something else has the name.
 */
int dc_store_names(int dir_fd);
