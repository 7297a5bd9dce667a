#!/usr/bin/env bash
# The README's figures that need the whole process. Each prints its baseline, ours, and what they make of each other.
#
#   loadtest/figures.sh kafka     Kafka into the lake, raw off and on, beside a consumer that drops the messages
#   loadtest/figures.sh postgres  a slot's backlog and the rows of tables into the lake, beside pg_recvlogical and psql
#   loadtest/figures.sh mysql     a backlog of MariaDB's binary log into the lake, beside mariadb-binlog
#   loadtest/figures.sh lake      requests to S3 and bytes sent at 1, 20 and 200 tables, idle and busy (a quarter of an hour)
#   loadtest/figures.sh redshift  the same with Redshift, and the statements and commits that its emulator counts
#   loadtest/figures.sh latency   from commit in PostgreSQL to commit in a PostgreSQL warehouse, row by row
#   loadtest/figures.sh memory    peak memory while EVENTS events of 20 tables are drained, at default settings
#   loadtest/figures.sh documents peak memory while 25, 50 and 100 documents of 16 MB go into Redshift (its emulator)
#   loadtest/figures.sh build     the release build from nothing, in a target folder of its own
#
# EVENTS (kafka, postgres, mysql: 2000000, memory: 10000000), ROUNDS (postgres, mysql: 5), RATE (latency: 5000 changes a
# second), FOR (latency: 60 seconds), PARTITIONS (4), SCHEMA_BLOCK=1 (every message carries its schema block), WAREHOUSE
# (memory: sqlite or postgres). Works below data/figures and removes what it made; KEEP=1 leaves it there.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}/release
place=$PWD/data/figures
say() { printf '%s\n' "$*"; }

# What was started last stops first.
stops=()
clean_up() {
  local at
  for ((at = ${#stops[@]} - 1; at >= 0; at--)); do eval "${stops[at]}" >/dev/null 2>&1 || true; done
  if [ -z "${KEEP:-}" ]; then rm -rf "$place"; fi
}
trap clean_up EXIT
trap 'exit 130' INT TERM

prepare() {
  clean_place
  cargo build --release -p dataflow -p loadtest --features loadtest/kafka
}

# For what needs no generator.
build_process() {
  clean_place
  cargo build --release --bin dataflow
}

clean_place() {
  [ -x /usr/bin/time ] || { say "GNU time is missing: apt-get install time"; exit 1; }
  rm -rf "$place"
  mkdir -p "$place"
}

free_port() {
  local port
  while port=$((20000 + RANDOM % 20000)); (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
  printf '%s' "$port"
}

# timed NAME COMMAND…: runs it and sets wall, cpu (seconds) and rss (KiB). Its output goes to $place/NAME.out and .err.
timed() {
  local name=$1
  shift
  if ! /usr/bin/time -o "$place/$name.time" -f '%e %U %S %M' "$@" > "$place/$name.out" 2> "$place/$name.err"; then
    say "$name failed:"
    tail -20 "$place/$name.err"
    exit 1
  fi
  local user system
  read -r wall user system rss < <(tail -1 "$place/$name.time")
  cpu=$(awk "BEGIN { print $user + $system }")
}

calculate() { awk "BEGIN { printf \"$1\", $2 }"; }

# row NAME: the line of what was timed last.
row() {
  say "$(printf '%-24s %8.1f s %10.0f events/s %8.1f CPU s %8.0f MiB peak' \
    "$1" "$wall" "$(calculate %.0f "$events / $wall")" "$cpu" "$(calculate %.0f "$rss / 1024")")"
}

start_kafka() {
  tests/support/kafka-install.sh
  local port controller
  port=$(free_port)
  controller=$(free_port)
  brokers=127.0.0.1:$port
  mkdir -p "$place/kafka"
  cat > "$place/kafka/server.properties" <<SETTINGS
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://$brokers,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://$brokers
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
controller.quorum.bootstrap.servers=127.0.0.1:$controller
log.dirs=$place/kafka/data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
SETTINGS
  printf 'rootLogger.level=WARN\n' > "$place/kafka/log4j2.properties"
  local java=(java -Xmx1g "-Dlog4j2.configurationFile=$place/kafka/log4j2.properties" -cp "$PWD/.cache/kafka/lib/*")
  "${java[@]}" kafka.tools.StorageTool format --standalone -t ZmlndXJlcy1jbHVzdGVyMA \
    -c "$place/kafka/server.properties" > "$place/kafka/format.out" 2>&1
  "${java[@]}" kafka.Kafka "$place/kafka/server.properties" > "$place/kafka/out" 2>&1 &
  stops+=("kill -9 $!; wait $!")
  broker=$!
  local try
  for ((try = 0; try < 600; try++)); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then return; fi
    kill -0 "$broker" 2>/dev/null || break
    sleep 0.1
  done
  say "Kafka did not start:"
  tail -20 "$place/kafka/out"
  exit 1
}

# CPU seconds that a process has used so far.
cpu_of() { awk -v hz="$(getconf CLK_TCK)" '{ print ($14 + $15) / hz }' "/proc/$1/stat"; }

# start_postgres OPTIONS…: sets port, and server to the process.
start_postgres() {
  local bin as=()
  bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1)
  bin=${bin:-$(dirname "$(command -v initdb)")}
  local data
  data=$(mktemp -d)
  if [ "$(id -u)" = 0 ]; then
    as=(runuser -u postgres --)
    chown postgres "$data"
  fi
  "${as[@]}" "$bin/initdb" -D "$data/data" -A trust -U postgres --no-sync -E UTF8 --locale=C > "$place/initdb.out"
  port=$(free_port)
  "${as[@]}" "$bin/pg_ctl" -D "$data/data" -l "$data/log" -w -o "-p $port -c listen_addresses=127.0.0.1 \
    -c unix_socket_directories= -c synchronous_commit=off -c max_connections=100 -c shared_buffers=256MB \
    -c max_wal_size=4GB $*" start > "$place/pg_ctl.out"
  server=$(head -1 "$data/data/postmaster.pid")
  stops+=("rm -rf $data" "cd /; ${as[*]} $bin/pg_ctl -D $data/data -m immediate stop; cd - ")
}

# topology FILE SOURCE RAW WAREHOUSE TABLES: epochs and limits are the defaults. The tables are contracts of their own, as
# events without schema blocks do not say what a time or a decimal is.
topology() {
  mkdir -p "$(dirname "$1")"
  {
    say "version: 1"
    say "name: figures"
    say "sources:"
    say "  shop: $2"
    "$target/loadtest" tables --tables "$5" --contracts "$(dirname "$1")"
    say "lake: { url: $(dirname "$1")/lake, raw: { keep: $3 } }"
    say "warehouse: $4"
    say "admin: { listen: \"127.0.0.1:0\" }"
  } > "$1"
}

# Generated = applied + superseded + filtered + quarantined, and the rows of every table.
prove() {
  "$target/dataflow" status "$1" --json 2> "$place/status.err" | "$target/loadtest" check "$place/summary.json" > "$place/proof" \
    || { cat "$place/proof"; say "NOT everything is accounted for"; exit 1; }
  tail -1 "$place/proof"
}

generate=()
[ -z "${SCHEMA_BLOCK:-}" ] || generate+=(--schema-block)

kafka() {
  events=${EVENTS:-2000000}
  prepare
  start_kafka
  timed generate "$target/loadtest" shop --kafka "$brokers" --partitions "${PARTITIONS:-4}" --events "$events" \
    --summary "$place/summary.json" "${generate[@]}"
  row "loadtest, producing"
  # Once for the page cache.
  timed warm "$target/loadtest" drop --kafka "$brokers"
  local before dropped_wall dropped_cpu
  before=$(cpu_of "$broker")
  timed drop "$target/loadtest" drop --kafka "$brokers"
  cat "$place/drop.out"
  row "dropping consumer"
  say "  the broker meanwhile: $(calculate %.1f "$(cpu_of "$broker") - $before") CPU s"
  dropped_wall=$wall dropped_cpu=$cpu
  local raw
  for raw in none plain; do
    local file=$place/$raw/topology.yaml
    topology "$file" "{ kind: kafka, brokers: \"$brokers\", topics: [\"shop.public.*\"], group: figures-$raw }" "$raw" \
      "{ kind: sqlite, path: $place/$raw/warehouse.db }" 5
    before=$(cpu_of "$broker")
    timed "ingest-$raw" "$target/dataflow" run "$file" --role ingest --until-caught-up --quiet
    row "Kafka to lake, raw $raw"
    say "  the broker meanwhile: $(calculate %.1f "$(cpu_of "$broker") - $before") CPU s;" \
      "speed of the dropping consumer's: $(calculate %.2f "$dropped_wall / $wall")," \
      "CPU seconds: $(calculate %.1f "$cpu / $dropped_cpu") times its; $(calculate %.2f "$cpu / $wall") cores;" \
      "lake $(du -sm "$place/$raw/lake" | cut -f1) MiB"
  done
  timed load "$target/dataflow" run "$place/none/topology.yaml" --role load --until-caught-up --quiet
  row "afterwards, lake to SQLite"
  prove "$place/none/topology.yaml"
}

memory() {
  events=${EVENTS:-10000000}
  prepare
  timed generate "$target/loadtest" shop --out "$place/events" --tables 20 --events "$events" --simulated-clock \
    --summary "$place/summary.json" "${generate[@]}"
  row "loadtest, writing files"
  say "  $(du -sm "$place/events" | cut -f1) MiB"
  warehouse="{ kind: sqlite, path: $place/run/warehouse.db }"
  if [ "${WAREHOUSE:-sqlite}" != sqlite ]; then
    start_postgres
    warehouse="{ kind: postgres, url: \"postgres://postgres@127.0.0.1:$port/postgres\", schema: shop }"
  fi
  topology "$place/run/topology.yaml" "{ kind: file, path: $place/events }" none "$warehouse" 20
  timed run "$target/dataflow" run "$place/run/topology.yaml" --until-caught-up --quiet
  row "files to ${WAREHOUSE:-sqlite}"
  prove "$place/run/topology.yaml"
  say "peak memory $(calculate %.0f "$rss / 1024") MiB (below 512 wanted)"
}

build() {
  local folder
  folder=$(mktemp -d)
  stops+=("rm -rf $folder")
  place=$folder/figures
  mkdir -p "$place"
  timed build cargo build --release --bin dataflow --target-dir "$folder/target"
  say "cargo build --release: $wall s, $cpu CPU s, on $(nproc) cores"
}

# shellcheck source=loadtest/figures/postgres.sh
. loadtest/figures/postgres.sh
# shellcheck source=loadtest/figures/mysql.sh
. loadtest/figures/mysql.sh
# shellcheck source=loadtest/figures/lake.sh
. loadtest/figures/lake.sh
# shellcheck source=loadtest/figures/documents.sh
. loadtest/figures/documents.sh

case "${1:-}" in
  kafka | postgres | mysql | lake | redshift | latency | memory | documents | build) "$1" ;;
  *) sed -n '2,17p' "$0" | sed 's/^# \{0,1\}//'; exit 2 ;;
esac
