/* SPDX-License-Identifier: MIT */
/* A figure of a rule as people read it: "612 ms", "2.1 GiB", "97.5 %". */
#pragma once

#include "persist/incident.h"

struct dc_unit_text {
	char s[96];
};

struct dc_unit_text dc_unit_text(double value, enum dc_unit unit);
/* What made a rule true, "329 of 360 allowed descriptors, 91.4 %"; empty: that it happened is all there is to say. */
struct dc_unit_text dc_cause_value(const struct dc_cause *cause);
/* ... and what it was compared with: "329 of 360 allowed descriptors, 91.4 % against 90 %". */
struct dc_unit_text dc_cause_text(const struct dc_cause *cause);
