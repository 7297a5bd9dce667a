# Sourced by figures.sh: PostgreSQL as a source, and from commit to warehouse.

# The 16 columns that orders have: `columns DEFINITION…` of the table, `values ID` of a row.
order_columns='id bigint PRIMARY KEY, customer_id bigint NOT NULL, status text NOT NULL, email text NOT NULL,
  amount numeric(12,2) NOT NULL, discount numeric(8,4), currency char(3) NOT NULL, quantity integer NOT NULL,
  priority smallint NOT NULL, paid boolean NOT NULL, weight double precision, order_date date NOT NULL,
  created_at timestamp NOT NULL, updated_at timestamptz NOT NULL, token uuid NOT NULL, note text'
# order_values ID SALT: SQL for a row's values; the salt makes another version of it.
order_values() {
  local id="$1::bigint" salt=$2
  cat <<SQL
$id, ($id * 7919) % 1000003, (ARRAY['new', 'paid', 'shipped', 'delivered'])[1 + ($id + $salt) % 4],
  'customer' || ($id * 7919) % 1000003 || '@example.org', (($id * 104729 + $salt * 31) % 10000000) / 100.0,
  CASE WHEN ($id + $salt) % 3 = 0 THEN NULL ELSE (($id + $salt) % 10000) / 10000.0 END, 'EUR', ($id + $salt) % 20, $salt % 5,
  ($id + $salt) % 2 = 0, ($id % 1000) / 8.0, DATE '2024-01-01' + ($id % 700)::int,
  TIMESTAMP '2026-01-01' + $id * INTERVAL '1.000013 second', TIMESTAMPTZ '2026-06-01Z' + ($id + $salt) * INTERVAL '0.101 second',
  md5(($id + $salt)::text)::uuid, CASE WHEN $id % 3 = 0 THEN NULL ELSE 'leave at the door ' || ($id * 7) % 99 END
SQL
}

sql() { psql -XqAt -v ON_ERROR_STOP=1 "$database" "$@" | sed '/^$/d'; }

# CPU seconds of the server's processes that have ended: a walsender or backend ends with its client.
server_cpu() { awk -v hz="$(getconf CLK_TCK)" '{ print ($14 + $15 + $16 + $17) / hz }' "/proc/$server/stat"; }

start_source() {
  start_postgres -c wal_level=logical -c max_replication_slots=40 -c max_wal_senders=20 -c track_commit_timestamp=on "$@"
  database="postgres://postgres@127.0.0.1:$port/postgres"
}

# postgres_topology FOLDER SOURCE_SETTINGS: the tables are learned.
postgres_topology() {
  mkdir -p "$1"
  {
    say "version: 1"
    say "name: $(basename "$1" | tr - _)"
    say "sources:"
    say "  shop: { kind: postgres, url: \"$database?sslmode=disable\", publication: figures, $2 }"
    say "tables:"
    local table
    for table in $tables; do say "  $table: { from: public.$table }"; done
    say "lake: { url: $1/lake, raw: { keep: none } }"
    say "warehouse: { kind: sqlite, path: $1/warehouse.db }"
    say "admin: { listen: \"127.0.0.1:0\" }"
  } > "$1/topology.yaml"
}

# What the log of a lake says that was decoded.
decoded() {
  "$target/dataflow" status "$1/topology.yaml" --json 2> "$place/status.err" \
    | grep -o '"decoded": *[0-9]*' | awk -F: '{ sum += $2 } END { print sum + 0 }'
}

# The rows that a warehouse holds, of one table.
live_rows() {
  "$target/dataflow" status "$1/topology.yaml" --json | grep -o '"rows": *[0-9]*' | head -1 | grep -o '[0-9]*'
}

must_be() {
  [ "$2" = "$3" ] || { say "NOT equal: $1: $2 instead of $3"; exit 1; }
}

# side NAME: keeps what was timed last, and what the server needed meanwhile.
side() {
  row "$1"
  local server_now
  # Its processes are reaped a moment after their clients have gone.
  sleep 0.3
  server_now=$(server_cpu)
  say "  the server meanwhile: $(calculate %.1f "$server_now - $server_before") CPU s"
}

median() { sort -n | awk '{ value[NR] = $1 } END { print value[int((NR + 1) / 2)] }'; }

# verdict WHAT BASELINES OURS: medians of two lists of wall seconds, and the ratio of the rates.
verdict() {
  local base ours
  base=$(tr ' ' '\n' <<< "$2" | grep . | median)
  ours=$(tr ' ' '\n' <<< "$3" | grep . | median)
  say "$1: medians $base s and $ours s, $(calculate %.0f "$events / $base") and $(calculate %.0f "$events / $ours")" \
    "a second; ratio of the rates $(calculate %.2f "$base / $ours")"
}

# A backlog of $events changes in transactions of 1,000: 200 rows come, 600 are updated, 200 go. Each row is updated three
# times and then deleted, the first few transactions apart.
backlog() {
  sql <<SQL
CREATE TABLE orders ($order_columns);
CREATE PUBLICATION figures FOR TABLE orders;
SELECT FROM pg_create_logical_replication_slot('template', 'pgoutput');
CREATE PROCEDURE backlog(transactions bigint) LANGUAGE plpgsql AS \$\$
BEGIN
  FOR n IN 0 .. transactions - 1 LOOP
    INSERT INTO orders SELECT $(order_values i 0) FROM generate_series(n * 200, n * 200 + 199) AS i;
    UPDATE orders SET (id, customer_id, status, email, amount, discount, currency, quantity, priority, paid, weight,
      order_date, created_at, updated_at, token, note) = (SELECT $(order_values id n))
      WHERE id >= (n - 3) * 200 AND id < n * 200;
    DELETE FROM orders WHERE id >= (n - 4) * 200 AND id < (n - 3) * 200;
    COMMIT;
  END LOOP;
END \$\$;
CALL backlog($events / 1000);
SQL
  # 200 updates are missing in each of the first transactions, and the deletes of four.
  local transactions=$((events / 1000))
  events=$((transactions * 1000 - 600 - 400 - 200 - 4 * 200))
  end=$(sql -c 'SELECT pg_current_wal_lsn()')
}

drain() {
  backlog
  say "a backlog of $events changes: $(sql -c "SELECT pg_size_pretty(pg_wal_lsn_diff('$end', restart_lsn)) FROM pg_replication_slots WHERE slot_name = 'template'") of log"
  local round bases="" ours="" folder server_before
  for ((round = 1; round <= rounds; round++)); do
    sql -c "SELECT FROM pg_copy_logical_replication_slot('template', 'base_$round')" \
      -c "SELECT FROM pg_copy_logical_replication_slot('template', 'ours_$round')"
    server_before=$(server_cpu)
    timed base pg_recvlogical -d "$database" -S "base_$round" --start --no-loop --endpos="$end" -f "$place/base.data" \
      -o proto_version=1 -o publication_names=figures
    side "pg_recvlogical"
    bases+=" $wall"
    rm -f "$place/base.data"
    sql -c "SELECT pg_drop_replication_slot('base_$round')"
    folder=$place/drain-$round
    postgres_topology "$folder" "slot: ours_$round, heartbeat: 0s, snapshot: { mode: never }"
    server_before=$(server_cpu)
    timed ours "$target/dataflow" run "$folder/topology.yaml" --role ingest --until-caught-up --quiet
    side "PostgreSQL to lake"
    ours+=" $wall"
    must_be "changes in the lake" "$(decoded "$folder")" "$events"
    sql -c "SELECT pg_drop_replication_slot('ours_$round')"
    [ "$round" = 1 ] || rm -rf "$folder"
  done
  timed load "$target/dataflow" run "$place/drain-1/topology.yaml" --role load --until-caught-up --quiet
  row "afterwards, lake to SQLite"
  must_be "rows in the warehouse" "$(live_rows "$place/drain-1")" "$(sql -c 'SELECT count(*) FROM orders')"
  verdict "stream" "$bases" "$ours"
  sql -c "SELECT pg_drop_replication_slot('template')" -c "DROP PUBLICATION figures" -c "DROP TABLE orders"
}

snapshot() {
  local round table bases="" ours="" folder server_before
  tables="orders_1 orders_2"
  for table in $tables; do
    sql -c "CREATE TABLE $table ($order_columns)" \
      -c "INSERT INTO $table SELECT $(order_values i 1) FROM generate_series(1, $events / 2) AS i"
  done
  sql -c "CREATE PUBLICATION figures FOR TABLE orders_1, orders_2" -c "VACUUM (ANALYZE, FREEZE)" -c "CHECKPOINT"
  for ((round = 1; round <= rounds; round++)); do
    server_before=$(server_cpu)
    timed base bash -c "psql -Xq '$database' -c 'COPY orders_1 TO STDOUT (FORMAT binary)' \
      -c 'COPY orders_2 TO STDOUT (FORMAT binary)' > /dev/null"
    side "psql, binary COPY"
    bases+=" $wall"
    folder=$place/snapshot-$round
    postgres_topology "$folder" "slot: snapshot_$round, heartbeat: 0s"
    server_before=$(server_cpu)
    timed ours "$target/dataflow" run "$folder/topology.yaml" --role ingest --until-caught-up --quiet
    side "rows to lake"
    ours+=" $wall"
    must_be "rows in the lake" "$(decoded "$folder")" "$events"
    sql -c "SELECT pg_drop_replication_slot('snapshot_$round')"
    rm -rf "$folder"
  done
  verdict "snapshot" "$bases" "$ours"
}

postgres() {
  events=${EVENTS:-2000000}
  rounds=${ROUNDS:-5}
  build_process
  start_source
  tables=orders
  drain
  snapshot
}

# One call is 10 changes: 2 rows come, 6 are updated, 2 go. Every row is changed once at most, so that the commit of its
# version at the source and at the warehouse can be compared, row by row.
latency_schema() {
  sql <<SQL
CREATE TABLE orders ($order_columns);
INSERT INTO orders SELECT $(order_values i 0) FROM generate_series(1, $1) AS i;
CREATE PUBLICATION figures FOR TABLE orders;
CREATE SEQUENCE coming START $(($1 + 1));
CREATE SEQUENCE changing;
CREATE SEQUENCE going START $(($1 * 3 / 4 + 1));
CREATE FUNCTION change() RETURNS void LANGUAGE plpgsql AS \$\$
DECLARE one bigint;
BEGIN
  FOR n IN 1 .. 2 LOOP
    one := nextval('coming');
    INSERT INTO orders SELECT $(order_values one 0);
    one := nextval('going');
    DELETE FROM orders WHERE id = one;
  END LOOP;
  FOR n IN 1 .. 6 LOOP
    one := nextval('changing');
    UPDATE orders SET quantity = 77, paid = NOT paid, updated_at = clock_timestamp() WHERE id = one;
  END LOOP;
END \$\$;
SQL
}

latency() {
  rate=${RATE:-5000}
  local seconds=${FOR:-60} folder pid before began
  build_process
  start_source -c synchronous_commit=on -c fsync=on
  tables=orders
  # Room for 6 updates and 2 deletes of 10 changes each, and a quarter more.
  latency_schema $((rate * seconds))
  sql -c "CREATE DATABASE warehouse"
  folder=$place/latency
  postgres_topology "$folder" "slot: latency"
  sed -i "s|^warehouse: .*|warehouse: { kind: postgres, url: \"${database%/*}/warehouse?sslmode=disable\", schema: shop }|" "$folder/topology.yaml"
  say "epoch: { every: ${EPOCH:-1s} }" >> "$folder/topology.yaml"
  "$target/dataflow" run "$folder/topology.yaml" --quiet > "$place/latency.out" 2> "$place/latency.err" &
  pid=$!
  stops+=("kill -9 $pid")
  wait_until "what was there before" "$((rate * seconds))" "SELECT count(*) FROM shop.orders"
  before=$(cpu_of "$pid")
  began=$(date +%s.%N)
  say 'SELECT change();' > "$place/change.sql"
  pgbench -n -f "$place/change.sql" -c 8 -R $((rate / 10)) -T "$seconds" "$database" > "$place/pgbench.out" 2>&1 \
    || { cat "$place/pgbench.out"; exit 1; }
  grep -E '^(tps|latency average|rate limit)' "$place/pgbench.out" | sed 's/^/  pgbench: /'
  local changed
  changed=$(sql -c "SELECT count(*) FROM orders WHERE id > $((rate * seconds)) OR quantity = 77")
  wait_until "the last change" "$changed" "SELECT count(*) FROM shop.orders WHERE id > $((rate * seconds)) OR quantity = 77"
  say "  CPU of the process: $(calculate %.1f "$(cpu_of "$pid") - $before") s in $(calculate %.1f "$(date +%s.%N) - $began") s"
  kill -TERM "$pid"
  wait "$pid" || { tail -5 "$place/latency.err"; exit 1; }
  compare_commits "$changed"
}

in_warehouse() { psql -XqAt -v ON_ERROR_STOP=1 "${database%/*}/warehouse" "$@"; }

# wait_until WHAT VALUE SQL: until the warehouse answers so.
wait_until() {
  local try
  for ((try = 0; try < 1200; try++)); do
    [ "$(in_warehouse -c "$3" 2>/dev/null)" != "$2" ] || return 0
    sleep 0.1
  done
  say "$1 did not come into the warehouse"
  tail -5 "$place/latency.err"
  exit 1
}

compare_commits() {
  sql -c "COPY (SELECT id, pg_xact_commit_timestamp(xmin) FROM orders WHERE pg_xact_commit_timestamp(xmin) > (
      SELECT min(pg_xact_commit_timestamp(xmin)) FROM orders)) TO STDOUT" > "$place/commits"
  in_warehouse -c "CREATE UNLOGGED TABLE commits (id bigint PRIMARY KEY, at timestamptz)" -c "\\copy commits FROM $place/commits" -c "
    WITH rows AS (
      SELECT extract(epoch FROM pg_xact_commit_timestamp(o.xmin) - c.at) AS s FROM shop.orders AS o JOIN commits AS c USING (id))
    SELECT format('commit to visible: %s rows, p50 %s s, p90 %s s, p99 %s s, max %s s', count(*),
      round(percentile_disc(0.5) WITHIN GROUP (ORDER BY s), 3), round(percentile_disc(0.9) WITHIN GROUP (ORDER BY s), 3),
      round(percentile_disc(0.99) WITHIN GROUP (ORDER BY s), 3), round(max(s), 3)) FROM rows"
}
