/* SPDX-License-Identifier: MIT */
/*
 * Where a command writes: standard output, or a file that appears under its name only when it is whole and on disk.
 *
 *     CLEANUP(output) struct output out = { 0 };
 *     r = output_open(&out, path);               // NULL or "-": standard output
 *     ... out.file ...
 *     r = output_commit(&out);                   // fsync, rename; without it the new file is removed again
 */
#pragma once

#include <stdio.h>

struct output {
	FILE *file;
	const char *path; /* NULL: standard output */
	char *part;       /* its name until then */
};

int output_open(struct output *o, const char *path);
int output_commit(struct output *o);
void output_cleanup(struct output *o);
