#!/bin/sh
# SPDX-License-Identifier: MIT
# syscall_names.sh CC...: [number] = "name" of every system call that <sys/syscall.h> knows
echo '#include <sys/syscall.h>' | "$@" -dM -E - | sed -n 's/^#define SYS_\([a-z0-9_]*\) .*/[SYS_\1] = "\1",/p' | sort
