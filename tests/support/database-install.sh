#!/usr/bin/env bash
# Unpacks database servers that are newer than this Debian's below .cache, beside the system and without touching it:
#
#   database-install.sh postgres-newest   the newest PostgreSQL, with pgvector   .cache/postgres-newest
#   database-install.sh mysql             the newest MySQL                       .cache/mysql, an empty data folder included
#   database-install.sh mariadb           an empty data folder for the system's MariaDB      .cache/mariadb
#
# The packages come from the Debian mirror that the system uses, through lists and a package state of their own, signed by
# Debian's own key. Their programs become scripts that start them by the C library that was unpacked with them. Nothing
# happens when they are there already; remove the folder to get a newer version.
set -euo pipefail
# Where Debian puts servers; only root has it in PATH.
PATH=$PATH:/usr/sbin
component=$1
root=$(cd "$(dirname "$0")/../.." && pwd -P)
mkdir -p "$root/.cache"
cache=$(cd "$root/.cache" && pwd -P)
home=$cache/$component

say() { printf 'deps: %s\n' "$*" >&2; }
there() {
  [ -f "$home/version" ] && { [ "$component" != mariadb ] || [ "$(cat "$home/version")" = "$(mariadbd --version)" ]; }
}
! there || exit 0
if [ "$component" != mariadb ] && ! command -v apt-get >/dev/null; then
  say "$component comes as Debian packages, and there is no apt-get here"
  exit 1
fi
exec 9>"$cache/.installing-$component"
flock 9
! there || exit 0

work=$(mktemp -d "$cache/.new-XXXXXX")
trap 'rm -rf "$work"' EXIT

# The first Debian mirror that the system's own lists name.
mirror() {
  { cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null || true; } \
    | awk '!/^ *#/ && !found && match($0, /https?:\/\/[^ ]+\/debian\/?( |$)/) { found = 1; print substr($0, RSTART, RLENGTH) }' \
    | tr -d ' '
}

# apt with lists, package state and cache of its own. The state is empty: every library comes along.
private_apt() {
  local program=$1
  shift
  "$program" -q -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts="$work/none" \
    -o Dir::Etc::preferences="$work/none/none" -o Dir::Etc::preferencesparts="$work/none" -o Dir::State="$work/state" -o Dir::State::status="$work/status" -o Dir::Cache="$work/apt" \
    -o APT::Sandbox::User="$(id -un)" -o APT::Install-Recommends=false -o APT::Default-Release= \
    -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
    -o Acquire::Check-Valid-Until=false -o Acquire::Retries=3 "$@"
}

# Reads the list of a suite. Its signature is checked; its age is not, for mirrors may lag.
use_suite() {
  local from
  from=$(mirror)
  [ -n "$from" ] || { say "the system's apt lists name no Debian mirror"; return 1; }
  printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' \
    "$from" "$1" > "$work/sources.list"
  mkdir -p "$work/none" "$work/state/lists/partial" "$work/apt/archives/partial"
  : > "$work/status"
  private_apt apt-get update > "$work/log" 2>&1 || { tail -n 5 "$work/log" >&2; return 1; }
}

# Packages with everything that they need, less what only the set-up of a whole system does.
unpack() {
  local names
  names=$(private_apt apt-get install -s "$@" 2> "$work/log" | awk '$1 == "Inst" { print $2 }' \
    | grep -vE '^(perl.*|libperl.*|lib.*-perl|debconf|systemd|libsystemd-shared|sysvinit-utils|adduser|passwd|base-passwd|procps|locales|libc-l10n|ucf)$') \
    || { tail -n 5 "$work/log" >&2; return 1; }
  mkdir -p "$work/debs" "$work/tree"
  # shellcheck disable=SC2086
  (cd "$work/debs" && private_apt apt-get download $names > "$work/log" 2>&1) || { tail -n 5 "$work/log" >&2; return 1; }
  local deb
  for deb in "$work"/debs/*.deb; do
    dpkg -x "$deb" "$work/tree" || return 1
  done
  rm -rf "$work"/tree/usr/share/{doc,man,locale,info,lintian,bug} "$work/tree/var"
}

# Makes programs of a folder scripts that start them by the unpacked loader, under their own names and places, which is
# where they look for their data.
wrap() {
  local folder=$1 loader libraries program
  loader=$(cd "$work/tree" && find usr -name 'ld-linux*.so.*' | head -n 1)
  libraries=$(cd "$work/tree" && dirname "$(find usr/lib -name libc.so.6 | head -n 1)")
  mv "$work/tree/$folder" "$work/tree/$folder.real"
  mkdir "$work/tree/$folder"
  for program in "$work/tree/$folder.real"/*; do
    printf '#!/bin/sh\nexec "%s" --library-path "%s" --argv0 "$0" "%s" "$@"\n' "$home/$loader" "$home/$libraries" \
      "$home/$folder.real/$(basename "$program")" > "$work/tree/$folder/$(basename "$program")"
    chmod 755 "$work/tree/$folder/$(basename "$program")"
  done
}

# Puts the tree in its place.
place() {
  rm -rf "$home"
  mv "$work/tree" "$home"
  chmod 755 "$home"
}

postgres_newest() {
  local major
  { use_suite sid && major=$(newest_major) && unpack "postgresql-$major" "postgresql-$major-pgvector"; } \
    || { say "Debian sid does not have it now; trying stable"; use_suite stable && major=$(newest_major) && unpack "postgresql-$major"; }
  wrap "usr/lib/postgresql/$major/bin"
  ln -s "usr/lib/postgresql/$major/bin" "$work/tree/bin-of-server"
  place
  "$home/bin-of-server/postgres" --version > "$work/version"
}

newest_major() {
  private_apt apt-cache depends postgresql | grep -oP 'Depends: postgresql-\K[0-9]+' | head -n 1 | grep .
}

mysql() {
  use_suite sid
  unpack mysql-server-core mysql-client-core
  wrap usr/sbin
  wrap usr/bin
  place
  "$home/usr/sbin/mysqld" --version > "$work/version"
  # Making a data folder takes seconds: it is made once, and each server starts on a copy.
  "$home/usr/sbin/mysqld" --no-defaults --initialize-insecure --user="$(id -un)" --basedir="$home/usr" \
    --lc-messages-dir="$home/usr/share/mysql" --plugin-dir="$home/usr/lib/mysql/plugin" --secure-file-priv=NULL \
    --innodb-redo-log-capacity=8M --datadir="$home/data" --log-error="$work/initialize" \
    || { tail -n 20 "$work/initialize" >&2; return 1; }
  # Each copy makes a server identity of its own.
  rm -f "$home/data/auto.cnf"
}

mariadb() {
  mariadb-install-db --no-defaults --auth-root-authentication-method=normal --skip-test-db --user="$(id -un)" \
    --datadir="$work/tree/data" --innodb-log-file-size=32M > "$work/initialize" 2>&1 || { tail -n 20 "$work/initialize" >&2; return 1; }
  place
  mariadbd --version > "$work/version"
}

say "making $component in $home"
case "$component" in
  postgres-newest) postgres_newest ;;
  mysql) mysql ;;
  mariadb) mariadb ;;
  *) say "unknown component $component; known are postgres-newest, mysql and mariadb"; exit 2 ;;
esac
# Written last: a folder without it is made anew.
mv "$work/version" "$home/version"
say "$component is there: $(cat "$home/version")"
