#!/bin/sh
# Icarus Verilog, Verilator and Yosys, for the tests of `cqat export --format verilog`. Installs what is missing with the system's package
# manager.
set -eu
missing=
command -v iverilog >/dev/null || missing="$missing iverilog"
command -v verilator >/dev/null || missing="$missing verilator"
if command -v verilator >/dev/null && ! verilator --version | grep -q '^Verilator \([5-9]\|[1-9][0-9]\)\.'; then
	echo "error: $(verilator --version) is too old, expected Verilator 5 or later: test benches have delays" >&2
	echo "hint: install a newer one in front of it in PATH" >&2
	exit 1
fi
command -v yosys >/dev/null || missing="$missing yosys"
[ -n "$missing" ] || exit 0
as_root=
[ "$(id -u)" = 0 ] || as_root=sudo
if command -v apt-get >/dev/null; then
	$as_root apt-get update
	# shellcheck disable=SC2086 # one word a package
	$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing
elif command -v dnf >/dev/null; then
	# shellcheck disable=SC2086
	$as_root dnf install -y $missing
elif command -v brew >/dev/null; then
	# shellcheck disable=SC2086
	brew install $(echo "$missing" | sed 's/iverilog/icarus-verilog/')
else
	echo "error: cannot install$missing: no apt-get, dnf or brew" >&2
	echo "hint: install them by hand and run this again" >&2
	exit 1
fi
