/* SPDX-License-Identifier: MIT */
/* Why a rule came true, as JSON: the same members wherever an incident is printed. */
#pragma once

#include "persist/incident.h"
#include "tools/json.h"

/* Members of the object at hand; none where no rule came true. */
void json_cause(struct json *j, const struct dc_cause *c);
