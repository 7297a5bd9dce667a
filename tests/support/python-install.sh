#!/usr/bin/env bash
# Brings the Python packages of the tests into a virtual environment in .cache/python: independent readers of the lake's
# files (DuckDB, pyarrow) and an emulator of AWS services (moto). Does nothing when they are there already.
set -euo pipefail
packages='duckdb==1.4.2 pyarrow==22.0.0 moto[glue,server]==5.1.17'
root=$(cd "$(dirname "$0")/../.." && pwd -P)
mkdir -p "$root/.cache"
home=$root/.cache/python
there() { [ -f "$home/version" ] && [ "$(cat "$home/version")" = "$packages" ]; }
! there || exit 0
exec 9>"$root/.cache/.installing-python"
flock 9
! there || exit 0

printf 'deps: making python in %s\n' "$home" >&2
rm -rf "$home"
python3 -m venv "$home"
# shellcheck disable=SC2086 # a list
"$home/bin/pip" install --quiet --disable-pip-version-check $packages >&2
# Written last: a folder without it is made anew.
printf '%s\n' "$packages" > "$home/version"
