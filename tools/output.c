/* SPDX-License-Identifier: MIT */
#include "tools/output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUFFER_BYTES (1u << 18)

/* A pipe or /dev/null cannot be replaced by a file, and needs no whole-or-nothing. */
static bool is_special(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && !S_ISREG(st.st_mode);
}

int output_open(struct output *o, const char *path)
{
	int fd;

	*o = (struct output){.file = stdout};
	if (!path || strcmp(path, "-") == 0)
		return 0;
	if (is_special(path)) {
		o->file = fopen(path, "we");
		o->path = path;
		return o->file ? 0 : -errno;
	}
	if (asprintf(&o->part, "%s.part.%d", path, getpid()) < 0) {
		o->part = NULL;
		return -ENOMEM;
	}
	fd = open(o->part, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	o->file = fd < 0 ? NULL : fdopen(fd, "w");
	if (!o->file) {
		int r = -errno;

		if (fd >= 0) {
			close(fd);
			unlink(o->part);
		}
		free(o->part);
		o->part = NULL;
		return r;
	}
	setvbuf(o->file, NULL, _IOFBF, BUFFER_BYTES);
	o->path = path;
	return 0;
}

int output_commit(struct output *o)
{
	int r;

	if (fflush(o->file) != 0)
		return -errno;
	if (ferror(o->file))
		return -EIO;
	if (!o->part)
		return 0;
	if (fsync(fileno(o->file)) < 0 || rename(o->part, o->path) < 0)
		return -errno;
	free(o->part);
	o->part = NULL;
	r = fclose(o->file);
	o->file = NULL;
	return r == 0 ? 0 : -errno;
}

void output_cleanup(struct output *o)
{
	if (o->part) {
		unlink(o->part);
		free(o->part);
	}
	if (o->file && o->path)
		fclose(o->file);
}
