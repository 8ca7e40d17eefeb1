#!/bin/bash
# SPDX-License-Identifier: MIT
# systemd accepts the unit without a word, and finds it confined (exposure at most 3.5 of 10).
set -eu -o pipefail
command -v systemd-analyze >/dev/null || { echo "systemd-analyze is not installed"; exit 77; }
unit=${DASHCAM_SOURCE:-$(dirname "$0")/..}/tools/dashcam.service.in
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

# verify DIRECTIVE: what systemd says of the unit with this line added
verify() {
	sed -e "s,^ExecStart=.*,ExecStart=/bin/true," -e "/^\[Service\]/a $1" "$unit" >"$dir/dashcam.service"
	systemd-analyze verify --man=no "$dir/dashcam.service" 2>&1 | grep -F dashcam.service || true
}

[[ $(verify 'ProtectSystm=strict') == *ProtectSystm* ]] || { echo "systemd-analyze does not see a planted mistake"; exit 1; }
said=$(verify '# nothing more')
[ -z "$said" ] || { echo "$said"; exit 1; }
systemd-analyze security --offline=true --threshold=35 "$dir/dashcam.service" | tail -n 1
