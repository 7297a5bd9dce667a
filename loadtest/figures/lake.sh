# Requests to S3 and bytes sent, by the process's own count, at 1, 20 and 200 tables, idle and busy. Sourced by figures.sh.
# The store is moto's: requests do not depend on how quick a store is, so nothing here says anything about speed.
# DATAFLOW names another binary; MINUTES (1) is how long each is measured.

start_store() {
  tests/support/python-install.sh
  store_port=$(free_port)
  .cache/python/bin/moto_server -H 127.0.0.1 -p "$store_port" > "$place/store.log" 2>&1 &
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
      for (op in count) if (count[op]) printf "    %-8s %8.1f requests %12.0f bytes sent\n", op, count[op] * 60 / seconds, bytes[op] * 60 / seconds
    }' "$3" "$4" | sort
}

lake() {
  clean_place
  local dataflow=${DATAFLOW:-$target/dataflow}
  [ -n "${DATAFLOW:-}" ] || cargo build --release --bin dataflow
  start_store
  local tables name
  for tables in 1 20 200; do
    local folder=$place/lake-$tables
    mkdir -p "$folder"
    admin=$(free_port)
    {
      printf 'version: 1\nname: lake%d\nsources: { shop: { kind: file, path: events.jsonl, follow: true } }\ntables:\n' "$tables"
      for name in $(seq "$tables"); do printf '  t%d: { from: shop.public.t%d, key: [id] }\n' "$name" "$name"; done
      printf 'lake: { url: "s3://lake/figures-%d", region: eu-west-3, endpoint: "http://127.0.0.1:%d", access_key_id: x, secret_access_key: x }\n' \
        "$tables" "$store_port"
      printf 'warehouse: { kind: sqlite, path: w.db }\nadmin: { listen: "127.0.0.1:%d" }\n' "$admin"
    } > "$folder/topology.yaml"
    change "$tables" 1 > "$folder/events.jsonl"
    (cd "$folder" && exec "$dataflow" run topology.yaml --quiet) > "$folder/run.log" 2>&1 &
    local process=$!
    stops+=("kill $process")
    say "$tables tables, epochs of a minute"
    # The first epoch, and the sweep that follows the start by a minute.
    sleep 150
    requests > "$folder/idle-before"
    local begun=$SECONDS
    sleep $((60 * ${MINUTES:-1}))
    requests > "$folder/idle-after"
    per_minute idle $((SECONDS - begun)) "$folder/idle-before" "$folder/idle-after"
    # A machine that is busy with other things needs longer than a second for each round: what counts is the time that passed.
    local id=1
    begun=$SECONDS
    while [ $((SECONDS - begun)) -lt 70 ]; do id=$((id + 1)); change "$tables" "$id" >> "$folder/events.jsonl"; sleep 1; done
    requests > "$folder/busy-before"
    local first=$id
    begun=$SECONDS
    while [ $((SECONDS - begun)) -lt $((60 * ${MINUTES:-1})) ]; do
      id=$((id + 1))
      change "$tables" "$id" >> "$folder/events.jsonl"
      sleep 1
    done
    requests > "$folder/busy-after"
    local passed=$((SECONDS - begun))
    local rows=$(((id - first) * tables))
    per_minute "a row per second and table ($((rows * 60 / passed)) rows a minute)" "$passed" \
      "$folder/busy-before" "$folder/busy-after"
    say "    $(cat "$folder/busy-before" "$folder/busy-after" | awk -v rows="$rows" '
      /sent_bytes/ { n[$1]++; bytes += n[$1] == 1 ? -$2 : $2 } END { printf "%.0f bytes sent per row", bytes / rows }')"
    kill "$process"
    wait "$process" || true
  done
}
