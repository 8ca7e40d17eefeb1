/* SPDX-License-Identifier: MIT */
/* An instrumented library that test_dlopen loads and unloads. */
#include "recorder/dashcam.h"

__attribute__((visibility("default"))) void plugin_work(int n)
{
	DC_SPAN("plugin", "n", n, "text", "of the plugin");
}
