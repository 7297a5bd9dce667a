#!/usr/bin/env bash
# Installs what is missing, and says what it does. Usage: deps.sh [build] [test]
#
#   build   what compiling needs: a C and C++ compiler, make, pkg-config, and the headers of OpenSSL and zlib
#   test    what the tests run against: PostgreSQL, MariaDB, a JDK and Maven for Apache Kafka; and in .cache, beside the
#           system: Kafka's jars, the newest PostgreSQL, the newest MySQL, AWS' driver for Redshift, Python packages that
#           read the lake (DuckDB, pyarrow) and an emulator of AWS services (moto)
#
# Safe to repeat: when nothing is missing it prints nothing and touches nothing. A test component that cannot be had is
# skipped loudly; with REQUIRE=all that is a failure. A build component that cannot be had always is.
set -euo pipefail
# Where Debian puts servers; only root has it in PATH.
PATH=$PATH:/usr/sbin
cd "$(dirname "$0")/../.."

say() { printf 'deps: %s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }
have_postgres() { have postgres || compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null; }
have_library() { have pkg-config && pkg-config --exists "$1"; }

# Runs a command as root, if that is possible.
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif have sudo; then
    sudo "$@"
  else
    say "not root, and there is no sudo; run as root: $*"
    return 1
  fi
}

updated=
install() {
  say "installing Debian packages: $*"
  if ! have apt-get; then
    say "there is no apt-get here; install these with the system's own package manager: $*"
    return 1
  fi
  if [ -z "$updated" ]; then
    as_root apt-get update -qq >&2 || say "apt-get update failed; going on with the lists that are there"
    updated=yes
  fi
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

build() {
  if ! have cargo && [ -x "$HOME/.cargo/bin/cargo" ]; then
    say "cargo is in ~/.cargo/bin, which is not in PATH; run: . ~/.cargo/env"
    exit 1
  fi
  if ! have cargo; then
    say "there is no Rust toolchain. Get one from https://rustup.rs ($(grep -oP '^rust-version = "\K[^"]+' Cargo.toml) or newer), then come back."
    exit 1
  fi
  local missing=()
  have gcc || missing+=(gcc libc6-dev)
  have g++ || missing+=(g++)
  have make || missing+=(make)
  have pkg-config || missing+=(pkg-config)
  have_library openssl || missing+=(libssl-dev)
  have_library zlib || missing+=(zlib1g-dev)
  [ ${#missing[@]} = 0 ] || install "${missing[@]}"
}

# A component of the tests could not be had.
missing_component() {
  if [ "${REQUIRE:-}" = all ]; then
    say "FAILED: $1 cannot be had, and REQUIRE=all says that it must"
    exit 1
  fi
  say "SKIPPED: $1 cannot be had; the tests that need it will be skipped and counted"
}

# Runs what downloads, up to three times.
patiently() {
  local try
  for try in 1 2 3; do
    "$@" && return 0
    say "$* failed (try $try of 3)"
  done
  return 1
}

have_venv() { have python3 && python3 -c 'import venv, ensurepip' 2>/dev/null; }
have_mariadb() { have mariadbd && have mariadb-install-db && have mariadb-binlog; }

test_components() {
  # Certificates of the tests' own authorities.
  have openssl || install openssl || true
  have_postgres || install postgresql || true
  have_postgres || missing_component PostgreSQL
  local java=()
  have java || java+=(default-jdk-headless)
  have mvn || java+=(maven)
  [ ${#java[@]} = 0 ] || install "${java[@]}" || true
  { have java && have mvn && patiently tests/support/kafka-install.sh; } || missing_component "Apache Kafka"
  # Its client brings mariadb-binlog. None of these starts a service.
  have_mariadb || install mariadb-server-core mariadb-client-core mariadb-client || true
  { have_mariadb && tests/support/database-install.sh mariadb; } || missing_component MariaDB
  patiently tests/support/database-install.sh mysql || missing_component MySQL
  patiently tests/support/database-install.sh postgres-newest || missing_component "the newest PostgreSQL"
  have_venv || install python3-venv || true
  { have_venv && patiently tests/support/redshift-client-install.sh; } || missing_component "AWS' driver for Redshift"
  { have_venv && patiently tests/support/python-install.sh; } || missing_component "Python's packages (DuckDB, pyarrow, moto)"
}

for part in "$@"; do
  case "$part" in
    build) build ;;
    test) test_components ;;
    *) say "unknown part $part; known are build and test"; exit 2 ;;
  esac
done
