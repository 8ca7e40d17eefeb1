/* SPDX-License-Identifier: MIT */
#include "tools/open.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "tools/command.h"
#include "tools/stores.h"

#define FAULTS_SHOWN 8u

int capture_open(const char *name, struct dc_capture **ret_capture)
{
	char why[160] = "", path[PATH_MAX];
	struct stat st;
	int r = stores_find(NULL, name, path);

	if (r == 0)
		r = dc_capture_open(path, ret_capture, why);
	if (r == 0)
		return EXIT_OK;
	if (r == -ENOENT)
		return failure("'%s': no such file; 'dashcam ls' lists the captures", path);
	if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
		return failure("'%s' is a directory, expected a capture file (.dcap)", path);
	if (r == -EACCES)
		return failure("'%s': permission denied; a capture can be read by its owner and root only",
			       path);
	return failure("'%s': %s", path, *why ? why : strerror(-r));
}

int capture_check(const char *path)
{
	CLEANUP(dc_capture) struct dc_capture *c = NULL;
	int r = capture_open(path, &c);

	return r == EXIT_OK ? capture_status(c, path, 0) : r;
}

int capture_status(struct dc_capture *c, const char *path, int r)
{
	const struct dc_fault *faults;
	unsigned count = dc_capture_faults(c, &faults);

	if (r < 0)
		return failure("'%s': %s", path, strerror(-r));
	for (unsigned i = 0; i < count && i < FAULTS_SHOWN; i++)
		say("'%s': %s", path, faults[i].text);
	if (count > FAULTS_SHOWN)
		say("'%s': %u more faults; what is whole was read", path, count - FAULTS_SHOWN);
	if (count == 0 && !dc_capture_complete(c))
		say("'%s': the end is missing; what is whole was read", path);
	return count > 0 || !dc_capture_complete(c) ? EXIT_DAMAGED : EXIT_OK;
}
