/* SPDX-License-Identifier: MIT */
/*
 * Removing arguments from a chunk. The events stay, the arguments chosen become "dropped" (DC_CODE_DROPPED),
 * as if there had been no room for them, and their bytes are gone.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ipc/decode.h"

/*
 * Is argument @index of an event of this site to go? @site is NULL for events that carry their own name
 * (DC_SITE_INLINE): the keys of their arguments are not known.
 */
typedef bool dc_scrub_choice(void *arg, const struct dc_site_info *site, unsigned index);

struct dc_scrubbed {
	size_t bytes;     /* of the chunk now; never more than before */
	uint32_t events;  /* left in it */
	uint64_t removed; /* arguments */
	bool cut; /* a record did not parse: it and what follows are gone too, since nobody knows what is in
		     there */
};

/*
 * dc_chunk_scrub() - in place
 * @chunk: its first byte (the header), @bytes: committed; the bytes that become free are zeroed
 * Return: 0, -EBADMSG when the header is not one.
 */
int dc_chunk_scrub(uint8_t *chunk, size_t bytes, const struct dc_schema *schema, dc_scrub_choice *choose,
		   void *arg, struct dc_scrubbed *ret_scrubbed);
