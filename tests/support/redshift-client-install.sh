#!/usr/bin/env bash
# Installs AWS' own driver and SDK for Python (redshift_connector, boto3) from PyPI into .cache/redshift-client: the check
# that the emulator of Redshift is not shaped by our client alone. Nothing happens when they are there; remove the folder to
# get them anew.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd -P)
mkdir -p "$root/.cache"
home=$root/.cache/redshift-client
[ ! -f "$home/version" ] || exit 0
exec 9>"$root/.cache/.installing-redshift-client"
flock 9
[ ! -f "$home/version" ] || exit 0

printf 'deps: making redshift-client in %s\n' "$home" >&2
rm -rf "$home"
python3 -m venv "$home"
"$home/bin/pip" install --quiet --disable-pip-version-check 'redshift_connector==2.2.*' >&2
# Written last: a folder without it is made anew.
"$home/bin/pip" list --disable-pip-version-check 2>/dev/null | grep -E '^(redshift_connector|boto3) ' > "$home/version.new"
mv "$home/version.new" "$home/version"
