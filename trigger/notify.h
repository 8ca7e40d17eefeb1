/* SPDX-License-Identifier: MIT */
/* Tells the service manager how we are: the datagrams of sd_notify(3), without its library. */
#pragma once

#include <stdint.h>

/* @state such as "READY=1". Does nothing outside of a service. Return: 0, -errno. */
int dc_notify(const char *state);

/* How often WATCHDOG=1 must come at most apart, halved as the manual advises; 0: nobody waits for it. */
int64_t dc_notify_watchdog_ns(void);
