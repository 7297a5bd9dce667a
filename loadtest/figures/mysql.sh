# Sourced by figures.sh: MariaDB as a source.

# start_mariadb: sets mariadb to the arguments of its clients, port, and server to the process.
start_mariadb() {
  local daemon data as=root
  daemon=$(PATH=$PATH:/usr/sbin command -v mariadbd) || { say "MariaDB is missing: apt-get install mariadb-server"; exit 1; }
  data=$(mktemp -d)
  [ "$(id -u)" = 0 ] || as=$(id -un)
  mariadb-install-db --no-defaults --user="$as" --datadir="$data/data" --auth-root-authentication-method=normal \
    --skip-test-db > "$place/install.out" 2>&1
  port=$(free_port)
  "$daemon" --no-defaults --user="$as" --datadir="$data/data" --socket="$data/socket" --pid-file="$data/pid" \
    --port="$port" --bind-address=127.0.0.1 --server-id=1 --log-bin=binlog --binlog-format=ROW \
    --binlog-row-metadata=FULL --max-binlog-size=1G --innodb-flush-log-at-trx-commit=0 --sync-binlog=0 \
    --innodb-buffer-pool-size=512M > "$place/mariadb.out" 2>&1 &
  server=$!
  stops+=("rm -rf $data" "kill -9 $server; wait $server")
  mariadb=(--no-defaults --protocol=tcp --host=127.0.0.1 "--port=$port" --user=root)
  local try
  for ((try = 0; try < 600; try++)); do
    if mariadb "${mariadb[@]}" -e 'SELECT 1' > /dev/null 2>&1; then return; fi
    kill -0 "$server" 2>/dev/null || break
    sleep 0.1
  done
  say "MariaDB did not start:"
  tail -20 "$place/mariadb.out"
  exit 1
}

msql() { mariadb "${mariadb[@]}" -BN "$@"; }

# The same orders, and the same changes of them, as those of PostgreSQL.
mysql_values() {
  cat <<SQL
$1, ($1 * 7919) % 1000003, ELT(1 + ($1 + $2) % 4, 'new', 'paid', 'shipped', 'delivered'),
  CONCAT('customer', ($1 * 7919) % 1000003, '@example.org'), (($1 * 104729 + $2 * 31) % 10000000) / 100.0,
  IF(($1 + $2) % 3 = 0, NULL, (($1 + $2) % 10000) / 10000.0), 'EUR', ($1 + $2) % 20, $2 % 5, ($1 + $2) % 2,
  ($1 % 1000) / 8.0, DATE '2024-01-01' + INTERVAL $1 % 700 DAY, TIMESTAMP '2026-01-01 00:00:00' + INTERVAL $1 * 1000013 MICROSECOND,
  TIMESTAMP '2026-06-01 00:00:00' + INTERVAL ($1 + $2) * 101000 MICROSECOND, MD5($1 + $2),
  IF($1 % 3 = 0, NULL, CONCAT('leave at the door ', ($1 * 7) % 99))
SQL
}

mysql_table() {
  msql <<SQL
CREATE DATABASE shop CHARACTER SET utf8mb4;
CREATE TABLE shop.orders (id bigint PRIMARY KEY, customer_id bigint NOT NULL, status varchar(20) NOT NULL,
  email varchar(100) NOT NULL, amount decimal(12,2) NOT NULL, discount decimal(8,4), currency char(3) NOT NULL,
  quantity int NOT NULL, priority smallint NOT NULL, paid boolean NOT NULL, weight double, order_date date NOT NULL,
  created_at datetime(6) NOT NULL, updated_at timestamp(6) NOT NULL DEFAULT '2026-01-01 00:00:00', token char(32) NOT NULL,
  note varchar(100));
SQL
}

mysql_backlog() {
  msql shop <<SQL
DELIMITER //
CREATE PROCEDURE backlog(transactions bigint) BEGIN
  DECLARE n bigint DEFAULT 0;
  WHILE n < transactions DO
    START TRANSACTION;
    INSERT INTO orders SELECT $(mysql_values seq.seq 0)
      FROM (SELECT n * 200 + a.seq AS seq FROM seq_0_to_199 AS a) AS seq;
    UPDATE orders SET status = ELT(1 + (id + n) % 4, 'new', 'paid', 'shipped', 'delivered'), quantity = (id + n) % 20,
      amount = ((id * 104729 + n * 31) % 10000000) / 100.0, paid = NOT paid, priority = n % 5,
      updated_at = TIMESTAMP '2026-06-01 00:00:00' + INTERVAL (id + n) * 101000 MICROSECOND, token = MD5(id + n)
      WHERE id >= (n - 3) * 200 AND id < n * 200;
    DELETE FROM orders WHERE id >= (n - 4) * 200 AND id < (n - 3) * 200;
    COMMIT;
    SET n = n + 1;
  END WHILE;
END //
DELIMITER ;
CALL backlog($events / 1000);
SQL
  events=$((events / 1000 * 1000 - 600 - 400 - 200 - 4 * 200))
}

mysql_topology() {
  mkdir -p "$1"
  cat > "$1/topology.yaml" <<YAML
version: 1
name: figures
sources:
  shop: { kind: mysql, url: "mysql://root@127.0.0.1:$port?ssl-mode=disabled", tables: ["shop.*"], heartbeat: 0s }
tables:
  orders: { from: shop.orders }
lake: { url: $1/lake, raw: { keep: none } }
warehouse: { kind: sqlite, path: $1/warehouse.db }
admin: { listen: "127.0.0.1:0" }
YAML
}

mysql() {
  events=${EVENTS:-2000000}
  rounds=${ROUNDS:-5}
  local round bases="" ours="" folder=$place/drain first position
  build_process
  start_mariadb
  mysql_table
  # The place to begin at is in the lake's log before there are changes; every round begins with a copy of that log.
  mysql_topology "$folder"
  timed first "$target/dataflow" run "$folder/topology.yaml" --role ingest --until-caught-up --quiet
  cp -a "$folder/lake" "$place/lake"
  read -r first position _ < <(msql -e 'SHOW MASTER STATUS')
  mysql_backlog
  say "a backlog of $events changes: $(msql -e 'SHOW BINARY LOGS' | awk '{ sum += $2 } END { printf "%d MiB", sum / 1048576 }') of log"
  for ((round = 1; round <= rounds; round++)); do
    timed base bash -c "mariadb-binlog ${mariadb[*]} --read-from-remote-server -vv --base64-output=decode-rows \
      --start-position=$position --to-last-log $first > /dev/null"
    row "mariadb-binlog"
    bases+=" $wall"
    rm -rf "$folder/lake"
    cp -a "$place/lake" "$folder/lake"
    timed ours "$target/dataflow" run "$folder/topology.yaml" --role ingest --until-caught-up --quiet
    row "MariaDB to lake"
    ours+=" $wall"
    must_be "changes in the lake" "$(decoded "$folder")" "$events"
  done
  timed load "$target/dataflow" run "$folder/topology.yaml" --role load --until-caught-up --quiet
  row "afterwards, lake to SQLite"
  must_be "rows in the warehouse" "$(live_rows "$folder")" "$(msql -e 'SELECT count(*) FROM shop.orders')"
  verdict "binary log" "$bases" "$ours"
}
