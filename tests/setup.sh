# SPDX-License-Identifier: MIT
# Sourced by tests/run and tools/demo: which Debian packages are needed for what, and installing the missing ones.
# This is the only list of packages.

packages_build=(build-essential meson ninja-build pkg-config liburing-dev libzstd-dev libxxhash-dev
	libdw-dev liblzma-dev libiberty-dev libinih-dev libcmocka-dev)
packages_demo=(wrk)
packages_test=(dwz elfutils gdb jq libunwind-dev mandoc redis-tools spin strace wrk)
packages_all=(clang libclang-rt-dev llvm musl-tools gcc-aarch64-linux-gnu g++-aarch64-linux-gnu qemu-user)
packages_long=(debuginfod linux-perf lttng-tools liblttng-ust-dev redis-server redis-tools wrk)

say() { printf '%s\n' "$*"; }
die() { say "$*" >&2; exit 2; }

# packages_missing PACKAGE...: prints those that dpkg does not have; touches no network
packages_missing() {
	local have
	have=" $(dpkg-query -W -f '${db:Status-Status}:${Package}\n' "$@" 2>/dev/null |
		sed -n 's/^installed://p' | tr '\n' ' ')"
	for package; do
		[[ $have == *" $package "* ]] || say "$package"
	done
}

# packages_install PACKAGE...: nothing to do the second time; without rights says what to type and leaves
packages_install() {
	if ! command -v dpkg-query >/dev/null; then
		say "not a Debian: install yourself what these packages hold: $*"
		return
	fi

	local missing root=()
	mapfile -t missing < <(packages_missing "$@")
	[ ${#missing[@]} -gt 0 ] || return 0

	if [ "$(id -u)" != 0 ]; then
		sudo -n true 2>/dev/null ||
			die "packages are missing and this user may not install them; type: sudo apt-get install ${missing[*]}"
		root=(sudo -n)
	fi
	say "installing: ${missing[*]}"
	"${root[@]}" env DEBIAN_FRONTEND=noninteractive bash -c '
		exec </dev/null
		apt-get -qq update && apt-get -qq -y --no-install-recommends install "$@"' apt "${missing[@]}" \
		>"$root_dir/build-packages.log" 2>&1 ||
		{ tail -n 20 "$root_dir/build-packages.log" >&2; die "apt-get failed; type: sudo apt-get install ${missing[*]}"; }
	rm -f "$root_dir/build-packages.log"
}

root_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
