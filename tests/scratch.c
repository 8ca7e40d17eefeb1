/* SPDX-License-Identifier: MIT */
#include "tests/scratch.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void make(const char *variable, const char *otherwise, const char *name, char *ret_path)
{
	const char *root = getenv(variable);

	if (snprintf(ret_path, SCRATCH_BYTES, "%s/%s.XXXXXX", root ? root : otherwise, name) >= SCRATCH_BYTES || !mkdtemp(ret_path)) {
		perror(ret_path);
		abort();
	}
}

void scratch_memory(const char *name, char ret_path[static SCRATCH_BYTES])
{
	make("DASHCAM_SCRATCH", "/dev/shm", name, ret_path);
}

void scratch_disk(const char *name, char ret_path[static SCRATCH_BYTES])
{
	make("TMPDIR", "/tmp", name, ret_path);
}

void scratch_remove(const char *path)
{
	char inner[PATH_MAX];
	struct dirent *e;
	DIR *d = opendir(path);

	while (d && (e = readdir(d))) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		snprintf(inner, sizeof inner, "%s/%s", path, e->d_name);
		if (unlink(inner) < 0 && (errno == EISDIR || errno == EPERM))
			scratch_remove(inner);
	}
	if (d)
		closedir(d);
	rmdir(path);
}
