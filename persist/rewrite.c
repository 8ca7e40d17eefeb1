/* SPDX-License-Identifier: MIT */
#include "persist/rewrite.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int dc_rewrite_open(int dir_fd, const char *name, struct dc_capture **ret_capture)
{
	char path[512], why[160];

	snprintf(path, sizeof path, "/proc/self/fd/%d/%s", dir_fd, name);
	return dc_capture_open(path, ret_capture, why);
}

int dc_rewrite_file_block(struct dc_capture *c, struct dc_file_block *ret_file)
{
	const uint8_t *payload;

	for (uint32_t i = 0; i < c->block_count; i++) {
		if (c->blocks[i].type != DC_BLOCK_FILE || c->blocks[i].plain_bytes < sizeof *ret_file ||
		    dc_capture_payload(c, &c->blocks[i], &payload) < 0)
			continue;
		memcpy(ret_file, payload, sizeof *ret_file);
		return 0;
	}
	return -ENODATA;
}

int dc_rewrite_owner(const struct dc_capture *c, struct dc_writer *w)
{
	struct stat st;

	if (fstat(c->fd, &st) < 0)
		return -errno;
	if (st.st_uid == geteuid() && st.st_gid == getegid())
		return 0;
	return dc_writer_owner(w, st.st_uid, st.st_gid);
}

int dc_rewrite_still_there(const struct dc_capture *c, int dir_fd, const char *name)
{
	struct stat opened, named;

	if (fstat(c->fd, &opened) < 0 || fstatat(dir_fd, name, &named, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	return opened.st_dev == named.st_dev && opened.st_ino == named.st_ino ? 0 : -ESTALE;
}
