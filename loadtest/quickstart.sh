#!/usr/bin/env bash
# Half a minute of a shop on embedded parts: builds, runs topologies/quickstart.yaml beside a generator, and proves at the
# end that every generated row is accounted for. Called by `make quickstart`; KEEP=1 lets it run on until Ctrl-C.
set -euo pipefail
cd "$(dirname "$0")/.."

# Row events a second, and for how long. What runs on must not fill a disk: an hour at a tenth of the rate.
if [ -n "${KEEP:-}" ]; then rate=${RATE:-200} seconds=3600; else rate=${RATE:-2000} seconds=20; fi
topology=topologies/quickstart.yaml
place=data/quickstart
profile=${PROFILE:-quick}
target=${CARGO_TARGET_DIR:-target}/${profile/%dev/debug}
page=http://127.0.0.1:9464/
: "${MASK_KEY:=quickstart-only-not-a-secret-0123456789abcdef}"
export MASK_KEY

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

say "Building (embedded connectors only; the first time takes some minutes)"
cargo build --profile "$profile" --no-default-features -p dataflow -p loadtest --bin dataflow --bin loadtest
dataflow=$target/dataflow
loadtest=$target/loadtest

# Everything below is this script's own: a fresh place, and children that end with it.
rm -rf "$place"
mkdir -p "$place/events"
children=()
stop() {
  local child
  for child in "${children[@]+"${children[@]}"}"; do
    kill -TERM "$child" 2>/dev/null || true
  done
  for child in "${children[@]+"${children[@]}"}"; do
    wait "$child" 2>/dev/null || true
  done
}
trap stop EXIT
trap 'exit 130' INT TERM

say "A shop of $rate changes a second, for $seconds s. Status page: $page"
RUST_LOG=${RUST_LOG:-warn} "$dataflow" run "$topology" &
running=$!
children+=("$running")
"$loadtest" shop --out "$place/events" --rate "$rate" --seconds "$seconds" --add-column-after "$((rate * 10))" \
  --seed 42 --schema-block --bad-rows 0.1% --summary "$place/summary.json" 2> "$place/generator.log" &
generator=$!
children+=("$generator")

alive() { kill -0 "$1" 2>/dev/null; }
while alive "$generator"; do
  if ! alive "$running"; then
    code=0
    wait "$running" || code=$?
    say "dataflow stopped early, with exit code $code"
    exit 1
  fi
  sleep 0.2
done
wait "$generator" || { cat "$place/generator.log"; exit 1; }

# Every row must come out within a few epochs; `check` says what is still missing.
settled=no
for _ in $(seq 60); do
  if "$dataflow" status "$topology" --json 2>/dev/null | "$loadtest" check "$place/summary.json" > "$place/proof" 2>&1; then
    settled=yes
    break
  fi
  alive "$running" || break
  sleep 0.5
done

kill -TERM "$running" 2>/dev/null || true
wait "$running" || { code=$?; say "dataflow did not stop cleanly: exit code $code"; exit 1; }
children=()

say "dataflow status $topology"
"$dataflow" status "$topology"
say "What was generated, and what became of it"
cat "$place/proof"
if [ "$settled" != yes ]; then
  say "NOT everything is accounted for; see above"
  exit 1
fi

say "Try"
cat <<TRY
  sqlite3 -header -column $place/warehouse.db "select region, count(*) orders, sum(amount) amount from orders group by region"
  sqlite3 -header -column $place/warehouse.db "select coupon, count(*) orders from orders group by coupon order by 2 desc limit 5"
  sqlite3 -header -column $place/warehouse.db "select email, phone, country from customers limit 5"      # masked
  sqlite3 -header -column $place/warehouse.db "select * from freshness"
  $dataflow quarantine list $topology
  KEEP=1 make quickstart      # runs on; the status page stays at $page
TRY
