/* SPDX-License-Identifier: MIT */
/*
 * newer_format FILE VERSION COMPAT INCOMPAT: makes a capture say that a newer program wrote it, sums included. For
 * e2e_tools.sh; reading such files from inside is tested in test_capture.c.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "persist/block.h"

int main(int argc, char **argv)
{
	struct {
		struct dc_block_header head;
		struct dc_file_block file;
	} b;
	int fd = argc == 5 ? open(argv[1], O_RDWR | O_CLOEXEC) : -1;

	if (fd < 0 || pread(fd, &b, sizeof(b), 0) != sizeof(b) || b.head.type != DC_BLOCK_FILE ||
	    b.head.stored_bytes != sizeof(b.file)) {
		fprintf(stderr, "usage: newer_format CAPTURE VERSION COMPAT INCOMPAT\n");
		return 1;
	}
	b.file.version = (uint32_t)strtoul(argv[2], NULL, 0);
	b.file.compat = strtoull(argv[3], NULL, 0);
	b.file.incompat = strtoull(argv[4], NULL, 0);
	b.head.payload_xxh3 = dc_checksum(&b.file, sizeof(b.file));
	b.head.header_xxh3 = dc_checksum(&b.head, offsetof(struct dc_block_header, header_xxh3));
	return pwrite(fd, &b, sizeof(b), 0) != sizeof(b) || close(fd) != 0;
}
