/* SPDX-License-Identifier: MIT */
/* A figure of a rule as people read it: "612 ms", "2.1 GiB", "97.5 %". */
#pragma once

#include "persist/incident.h"

struct dc_unit_text {
	char s[48];
};

struct dc_unit_text dc_unit_text(double value, enum dc_unit unit);
