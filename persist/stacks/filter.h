/* SPDX-License-Identifier: MIT */
/*
 * The seccomp filter of the sandbox (sandbox.h): what a process may still ask of the kernel when it is to do nothing but
 * read files, use memory and write to one descriptor. Anything else kills it.
 *
 * Written out by hand: some fifty numbers and ten checks of arguments for two architectures, which are easier to review
 * here than a library and what it makes of them; and libseccomp would be one more thing to install.
 */
#pragma once

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define DC_FILTER_SANITIZED 1 /* a sanitizer has much memory, and says what it finds */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define DC_FILTER_SANITIZED 1
#endif
#endif

/*
 * dc_filter_enter() - from now on, for this thread and for good
 * Files are opened for reading only; mappings are private and never executable; no sockets, processes, signals to others.
 * @out_fd: the one descriptor to write to, which cannot be closed any more, so that no other takes its number.
 * Return: 0; -errno of prctl(), after which nothing must be done that needed the filter.
 */
int dc_filter_enter(int out_fd);
