# Requests to S3 and bytes sent, by the process's own count, at 1, 20 and 200 tables, idle and busy; with Redshift (the
# emulator) also statements and commits, by the emulator's count. Sourced by figures.sh. The store is moto's: requests do
# not depend on how quick a store is, so nothing here says anything about speed.
# DATAFLOW and EMULATOR name other binaries; MINUTES (1) is how long each is measured.

start_store() {
  tests/support/python-install.sh
  store_port=$(free_port)
  .cache/python/bin/python -m moto.server -H 127.0.0.1 -p "$store_port" > "$place/store.log" 2>&1 &
  stops+=("kill $!")
  local try
  for try in $(seq 600); do
    curl -sf -o /dev/null -X PUT "http://127.0.0.1:$store_port/lake" && return
    sleep 0.1
  done
  say "moto does not answer: see $place/store.log"
  exit 1
}

# change N FROM: a row for each of N tables, with the id FROM.
change() {
  awk -v n="$1" -v id="$2" 'BEGIN { for (t = 1; t <= n; t++) printf "{\"op\":\"c\",\"before\":null,\"after\":{\"id\":%d,\"name\":\"row %d of table %d\",\"amount\":%d},\"source\":{\"ts_ms\":%d,\"name\":\"shop\",\"db\":\"shop\",\"schema\":\"public\",\"table\":\"t%d\",\"lsn\":%d}}\n", id, id, t, id * 7, 1780000000000 + id, t, id * n + t }'
}

requests() { curl -s "http://127.0.0.1:$admin/metrics" | grep '^dataflow_store_\(requests\|sent_bytes\)_total' | sort; }

# per_minute WHAT SECONDS BEFORE AFTER: how much more there is of each operation.
per_minute() {
  say "  $1, per minute:"
  awk -v seconds="$2" '
    { name = $1; value = $2; match(name, /operation="[^"]*"/); op = substr(name, RSTART + 11, RLENGTH - 12) }
    name ~ /sent_bytes/ { if (FNR == NR) bytes[op] -= value; else bytes[op] += value; next }
    { if (FNR == NR) count[op] -= value; else count[op] += value }
    END {
      for (op in count) if (count[op]) {
        printf "    %-10s %8.1f", op, count[op] * 60 / seconds
        if (op in bytes) printf " requests %12.0f bytes sent", bytes[op] * 60 / seconds
        print ""
      }
    }' "$3" "$4" | sort
}

# start_emulator: sets cluster (its port) and emulator (its process).
start_emulator() {
  start_postgres
  cluster=$(free_port)
  : > "$place/cluster.out"
  AWS_ACCESS_KEY_ID=x AWS_SECRET_ACCESS_KEY=x "${EMULATOR:-$target/redshift-sim}" --port "$cluster" \
    --postgres "postgres://postgres@127.0.0.1:$port/postgres" --s3-endpoint "http://127.0.0.1:$store_port" > "$place/cluster.out" &
  emulator=$!
  stops+=("kill $emulator")
  until grep -q credentials "$place/cluster.out"; do
    kill -0 "$emulator" || { say "the emulator has ended"; exit 1; }
    sleep 0.1
  done
}

# What the emulator has counted so far, as lines that `per_minute` reads.
statements() {
  [ -n "${emulator:-}" ] || return 0
  local answers
  answers=$(grep -c counted "$place/cluster.out" || true)
  kill -USR1 "$emulator"
  until [ "$(grep -c counted "$place/cluster.out")" -gt "$answers" ]; do sleep 0.1; done
  tail -1 "$place/cluster.out" | awk '{ printf "{operation=\"statements\"} %s\n{operation=\"commits\"} %s\n", $3, $5 }'
}

counts() { requests; statements; }

# costs_topology TABLES
costs_topology() {
  local name
  printf 'version: 1\nname: costs%d\nsources: { shop: { kind: file, path: events.jsonl, follow: true } }\ntables:\n' "$1"
  for name in $(seq "$1"); do printf '  t%d: { from: shop.public.t%d, key: [id] }\n' "$name" "$name"; done
  printf 'lake: { url: "s3://lake/%s-%d", region: eu-west-3, endpoint: "http://127.0.0.1:%d", access_key_id: x, secret_access_key: x }\n' \
    "$kind" "$1" "$store_port"
  case $kind in
    sqlite) printf 'warehouse: { kind: sqlite, path: w.db }\n' ;;
    redshift)
      printf 'warehouse: { kind: redshift, url: "redshift://loader:Secret-1@127.0.0.1:%d/dev?sslmode=disable", schema: w%d, views: bi%d, iam_role: default }\n' \
        "$cluster" "$1" "$1"
      ;;
  esac
  printf 'admin: { listen: "127.0.0.1:%d" }\n' "$admin"
}

# busy SECONDS: a row per second and table. A machine that is busy with other things needs longer than a second for each
# round: what counts is the time that passed.
busy() {
  local begun=$SECONDS
  while [ $((SECONDS - begun)) -lt "$1" ]; do
    id=$((id + 1))
    change "$tables" "$id" >> "$folder/events.jsonl"
    sleep 1
  done
}

# costs TABLES: the requests and statements of so many tables, while nothing happens and while all change.
costs() {
  local tables=$1 id=1 folder=$place/$kind-$1 begun
  mkdir -p "$folder"
  admin=$(free_port)
  costs_topology "$tables" > "$folder/topology.yaml"
  change "$tables" 1 > "$folder/events.jsonl"
  (cd "$folder" && exec "$dataflow" run topology.yaml --quiet) > "$folder/run.log" 2>&1 &
  local process=$!
  stops+=("kill $process")
  say "$tables tables, epochs of a minute, into $kind"
  # The first epoch, and the sweep that follows the start by a minute.
  sleep 150
  counts > "$folder/idle-before"
  begun=$SECONDS
  sleep $((60 * ${MINUTES:-1}))
  counts > "$folder/idle-after"
  per_minute idle $((SECONDS - begun)) "$folder/idle-before" "$folder/idle-after"
  busy 70
  counts > "$folder/busy-before"
  local first=$id
  begun=$SECONDS
  busy $((60 * ${MINUTES:-1}))
  counts > "$folder/busy-after"
  local passed=$((SECONDS - begun)) rows=$(((id - first) * tables))
  per_minute "a row per second and table ($((rows * 60 / passed)) rows a minute)" "$passed" \
    "$folder/busy-before" "$folder/busy-after"
  say "    $(cat "$folder/busy-before" "$folder/busy-after" | awk -v rows="$rows" '
    /sent_bytes/ { n[$1]++; bytes += n[$1] == 1 ? -$2 : $2 } END { printf "%.0f bytes sent per row", bytes / rows }')"
  kill "$process"
  wait "$process" || true
}

# costs_into KIND
costs_into() {
  local kind=$1 dataflow=${DATAFLOW:-$target/dataflow} tables
  clean_place
  [ -n "${DATAFLOW:-}" ] || cargo build --release --bin dataflow
  start_store
  if [ "$kind" = redshift ]; then
    [ -n "${EMULATOR:-}" ] || cargo build --release -p redshift-sim
    start_emulator
  fi
  for tables in 1 20 200; do costs "$tables"; done
}

lake() { costs_into sqlite; }

redshift() { costs_into redshift; }
