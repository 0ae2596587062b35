#!/bin/sh
# Kill a run again and again (SIGKILL) at random moments, every second time while it writes a file, and resume it: every run must
# end with the bits of one that nothing disturbed.
# Usage: kill-resume.sh [KILLS [SEED]]    100 kills by default; the test suite does the same with fewer
set -eu

cd "$(dirname "$0")/.."
export CQAT_KILLS="${1:-100}" CQAT_KILL_SEED="${2:-1}" XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-/tmp}"
exec cargo test --locked --test losses killed_at_any_moment -- --nocapture
