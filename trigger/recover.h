/* SPDX-License-Identifier: MIT */
/*
 * A capture from a ring whose owner is gone, with no watcher involved: `dashcam recover RING [-o FILE]`. It
 * is the watcher's snapshot, so what it says and how is the same.
 */
#pragma once

#include "trigger/save.h"

/*
 * dc_recover() - save what a ring holds
 * @path: the ring file; it is not removed
 * @output: where to; output->name NULL: a name is made
 *
 * Everything the ring has, up to its last event, which counts as the moment of the incident. Also for a ring
 * that was copied from elsewhere, or from before a reboot: then only its own anchors tell the time.
 * Return: 0, *@ret_save with path, counts and totals (dc_save_free() it); -EBUSY: its owner lives; -errno.
 */
int dc_recover(const char *path, const struct dc_save_output *output, struct dc_save **ret_save,
	       char ret_why[static DC_WHY_BYTES]);
