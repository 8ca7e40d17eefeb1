/* SPDX-License-Identifier: MIT */
/* For tests that have one directory for their captures: made before the first of them, with cmocka's signatures. */
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include "tests/capturemaker.h"

static char *dir;
static int dir_fd;

static int dir_make(void **state)
{
	(void)state;
	dir = capture_maker_mkdir();
	dir_fd = open(dir, O_RDONLY | O_DIRECTORY);
	return dir_fd < 0;
}

static int dir_remove(void **state)
{
	(void)state;
	close(dir_fd);
	capture_maker_rmdir(dir);
	return 0;
}
