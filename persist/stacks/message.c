/* SPDX-License-Identifier: MIT */
#include "persist/stacks/message.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "persist/block.h"

static int write_all(int fd, const void *bytes, size_t size)
{
	const uint8_t *at = bytes;

	while (size) {
		ssize_t n = write(fd, at, size);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0) {
			at += n;
			size -= (size_t)n;
		}
	}
	return 0;
}

int dc_message_send(int fd, uint32_t type, const void *payload, size_t bytes)
{
	static const uint8_t zeros[8];
	const struct dc_message m = {.type = type, .bytes = bytes, .xxh3 = dc_checksum(payload, bytes)};
	int r = write_all(fd, &m, sizeof m);

	if (r == 0)
		r = write_all(fd, payload, bytes);
	return r < 0 ? r : write_all(fd, zeros, -bytes & 7);
}

int dc_message_next(const uint8_t *bytes, size_t size, size_t *at, struct dc_message *ret_message, const uint8_t **ret_payload)
{
	const size_t left = size - *at;

	if (left < sizeof *ret_message)
		return 0;
	memcpy(ret_message, bytes + *at, sizeof *ret_message);
	if (ret_message->bytes > left - sizeof *ret_message)
		return 0;
	*ret_payload = bytes + *at + sizeof *ret_message;
	if (dc_checksum(*ret_payload, ret_message->bytes) != ret_message->xxh3)
		return 0;
	*at += sizeof *ret_message + ((ret_message->bytes + 7) & ~(uint64_t)7);
	*at = *at > size ? size : *at;
	return 1;
}
