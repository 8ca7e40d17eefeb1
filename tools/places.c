/* SPDX-License-Identifier: MIT */
#include "tools/places.h"

#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The XDG base directory specification: a relative path is to be ignored. */
static const char *absolute(const char *path)
{
	return path && *path == '/' ? path : NULL;
}

int place_captures(char ret_path[static PLACE_BYTES])
{
	const char *state = absolute(secure_getenv("XDG_STATE_HOME")),
		   *home = absolute(secure_getenv("HOME"));
	struct passwd *user;
	int n;

	if (geteuid() == 0) {
		n = snprintf(ret_path, PLACE_BYTES, "/var/lib/dashcam");
	} else if (state) {
		n = snprintf(ret_path, PLACE_BYTES, "%s/dashcam", state);
	} else {
		user = home ? NULL : getpwuid(geteuid());
		home = home ? home : user ? absolute(user->pw_dir) : NULL;
		if (!home)
			return -ENOENT;
		n = snprintf(ret_path, PLACE_BYTES, "%s/.local/state/dashcam", home);
	}
	return n < (int)PLACE_BYTES ? 0 : -ENAMETOOLONG;
}

void place_existing(const char *path, char ret_path[static PLACE_BYTES])
{
	snprintf(ret_path, PLACE_BYTES, "%s", path);
	while (access(ret_path, F_OK) < 0) {
		char *slash = strrchr(ret_path, '/');

		if (!slash) {
			strcpy(ret_path, ".");
			return;
		}
		slash[slash == ret_path] = '\0';
		if (slash == ret_path)
			return;
	}
}
