/* SPDX-License-Identifier: MIT */
/*
 * How a process died, for a process that is not our child.
 *
 *   wait status      `dashcam run` knows it of its command from waitpid() and asks nobody
 *   pidfd            readable when the process ends: told at once instead of at the next look
 *   PIDFD_GET_INFO   its wait status even after its parent has reaped it (Linux 6.15), if the pidfd is older than that
 *   /proc/PID/stat   field 52 while it is a zombie: the parent is slower than we are
 *   proc connector   the kernel tells of every exit on the host, also of processes that lived too short to get a pidfd;
 *                    needs CAP_NET_ADMIN and the first pid namespace
 *
 * When none of them says, the death is unknown, and stays so: a guess would start captures of orderly exits.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* dc_death_supported() - whether PIDFD_GET_INFO tells wait statuses here; forks once. For tests. */
bool dc_death_supported(void);

/*
 * dc_death_watch() - a descriptor that becomes readable when the process ends
 * Return: 0; -ESRCH when the pid is not, or no longer, the process that started at @start_time; -errno.
 */
int dc_death_watch(uint32_t pid, uint64_t start_time, int *ret_pidfd);

/*
 * dc_death_ask() - how did it die?
 * @pidfd: of dc_death_watch(), already readable
 * Return: 0 and the wait status (as waitpid() gives it); -EAGAIN: not reaped yet, ask again; -ENODATA: nobody knows.
 */
int dc_death_ask(int pidfd, uint32_t pid, uint64_t start_time, int *ret_status);

/* The proc connector: a netlink socket to poll. Return: 0, -EPERM, -errno. */
int dc_death_connector(int *ret_fd);
/* Every exit of a whole process that is waiting in the socket. */
void dc_death_connector_read(int fd, void (*each)(void *arg, uint32_t pid, int status), void *arg);
