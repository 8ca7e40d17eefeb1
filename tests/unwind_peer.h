/* SPDX-License-Identifier: MIT */
/*
 * What libunwind makes of the descriptions that persist/stacks/rules.h reads: the independent witness. No product code uses
 * it; here it sees only files that the system trusts.
 */
#pragma once

#include "persist/stacks/place.h"
#include "persist/stacks/row.h"

struct peer;

/* Return: 0; -ENOSYS: built without libunwind; -ENOMEM. */
int peer_new(struct peer **ret_peer);
void peer_free(struct peer *p);
DC_DEFINE_CLEANUP(peer, struct peer *, peer_free)

/* As dc_rules_row() and dc_rules_step(); of descriptions in .eh_frame. */
void peer_row(struct peer *p, const struct dc_place *place, uint64_t pc, struct dc_row *ret_row);
uint8_t peer_step(struct peer *p, const struct dc_place *place, uint64_t pc, struct dc_row_state *state,
		  struct dc_row_stack *stack);
