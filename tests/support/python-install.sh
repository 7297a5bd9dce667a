#!/bin/sh
# Brings the Python packages of the tests into a virtual environment in .cache/python: independent readers of the lake's
# files (DuckDB, pyarrow) and an emulator of AWS services (moto). Does nothing when they are there already.
set -eu
packages='duckdb==1.4.2 pyarrow==22.0.0 moto[glue,server]==5.1.17'
root=$(CDPATH= cd -- "$(dirname -- "$0")/../.." && pwd)
home=$root/.cache/python
if [ -f "$home/version" ] && [ "$(cat "$home/version")" = "$packages" ]; then
    exit 0
fi
rm -rf "$home"
python3 -m venv "$home"
# shellcheck disable=SC2086 # a list
"$home/bin/pip" install --quiet --disable-pip-version-check $packages
printf '%s\n' "$packages" > "$home/version"
echo "DuckDB, pyarrow and moto are in $home"
