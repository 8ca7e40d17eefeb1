/* SPDX-License-Identifier: MIT */
/* The part of `dashcam info` about samples and stacks of one process. */
#pragma once

#include "persist/capture.h"
#include "tools/json.h"

/* Lines for people; nothing where there is nothing to say. Return: 0, -ENOMEM, -errno of reading. */
int info_stacks_text(struct dc_capture *c, unsigned process);
/* Members "samples", "threads" and, where it crashed, "crash". */
int info_stacks_json(struct dc_capture *c, unsigned process, struct json *j);
