/* SPDX-License-Identifier: MIT */
/*
 * Pieces of bytes from a parent to its sandboxed child, in memory that both have mapped and only the parent can write:
 *
 *     parent: fill a slot ── its number and size into a pipe ──► child: looks at the slot until it asks for the next one
 *
 * A slot is filled again only when the child is done with it, which the pipe alone takes care of: it holds DC_FEED_WAITING
 * packets; the child reads one packet when it is done with the piece before. So when a packet gets in, at most that many
 * pieces wait and one is being looked at, and there is one slot more for the piece being filled.
 *
 * What the parent reads in a slot is what it has written there: the child has no mapping that it could write, and none that
 * it could make so.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "ipc/cleanup.h"

#define DC_FEED_WAITING 2u
#define DC_FEED_SLOTS (DC_FEED_WAITING + 2)

struct dc_sandboxed;
struct dc_feed;

/*
 * @slot_bytes: the most that a piece may have; pages of a slot that are never written take no memory. Return: 0,
 * -ENOMEM, -errno.
 */
int dc_feed_new(size_t slot_bytes, struct dc_feed **ret_feed);
void dc_feed_free(struct dc_feed *f);
DC_DEFINE_CLEANUP(dc_feed, struct dc_feed *, dc_feed_free)

/* The parent's side. @in_fd of the sandbox: */
int dc_feed_fd(const struct dc_feed *f);
/* Where the next piece goes. The same one until it is given. */
uint8_t *dc_feed_slot(struct dc_feed *f);
/* Hands it over. 0 bytes: that was all. Return: as dc_sandbox_give(). */
int dc_feed_give(struct dc_feed *f, struct dc_sandboxed *child, size_t bytes);

/*
 * For another child, when the one before is gone: nothing waits any more, and pieces are given from the one on that
 * lies in @slot. Those that nobody had asked for and the one that somebody looked at are as they were. Return: 0,
 * -errno.
 */
int dc_feed_again(struct dc_feed *f, const uint8_t *slot);

/* The child's side: the next piece, which stays until the next call. Return: 1; 0: that was all; -errno. */
int dc_feed_take(struct dc_feed *f, const uint8_t **ret_bytes, size_t *ret_size);
