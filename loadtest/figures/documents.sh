# Peak memory of a process that brings long documents into Redshift (the emulator): COUNTS of 15,995,001 bytes each, in one
# transaction and in one each, ingest and load apart. Sourced by figures.sh.
# DATAFLOW and EMULATOR name other binaries, which hold as many bytes; COUNTS ("25 50 100").

# so_many COUNT FROM: SQL that writes documents, from that number on. Hexadecimal digits: half of it is all that packs.
so_many() {
  say "INSERT INTO documents SELECT d, ('[' || string_agg('\"' || md5(d || '/' || n) || '\"', ',') || ']')::json
    FROM generate_series($2, $2 + $1 - 1) d, generate_series(1, 457000) n GROUP BY d"
}

# documents_topology FOLDER NAME
documents_topology() {
  mkdir -p "$1"
  cat > "$1/topology.yaml" <<YAML
version: 1
name: $2
sources: { shop: { kind: postgres, url: "$database?sslmode=disable", publication: figures, slot: $2 } }
tables: { documents: { from: public.documents } }
lake: { url: "s3://lake/$2", region: eu-west-3, endpoint: "http://127.0.0.1:$store_port", access_key_id: x, secret_access_key: x }
warehouse: { kind: redshift, url: "redshift://loader:Secret-1@127.0.0.1:$cluster/dev?sslmode=disable", schema: $2, views: "", iam_role: default }
admin: { listen: "127.0.0.1:0" }
YAML
}

# drained NAME COUNT: what is in the slot of that topology goes into the lake, then into the warehouse.
drained() {
  local of=$2 role bytes=$(($2 * 15995001))
  for role in ingest load; do
    (cd "$place/$1" && timed "$1-$role" "$dataflow" run topology.yaml --role "$role" --until-caught-up --quiet)
    read -r wall _ _ rss < <(tail -1 "$place/$1-$role.time")
    say "  $1, $of documents, $((bytes >> 20)) MiB: $role held $((rss / 1024)) MiB at most" \
      "($(calculate %.2f "$rss * 1024 / $bytes") times the documents), $wall s"
  done
}

documents() {
  clean_place
  dataflow=${DATAFLOW:-$target/dataflow}
  [ -n "${DATAFLOW:-}" ] || cargo build --release --bin dataflow
  [ -n "${EMULATOR:-}" ] || cargo build --release -p redshift-sim
  start_store
  start_source
  start_emulator
  sql -c "CREATE TABLE documents (id int PRIMARY KEY, doc json); ALTER TABLE documents ALTER doc SET STORAGE EXTERNAL;
    CREATE PUBLICATION figures FOR TABLE documents"
  local count how n name
  for count in ${COUNTS:-25 50 100}; do
    for how in one each; do
      name=${how}_$count
      sql -c "TRUNCATE documents"
      documents_topology "$place/$name" "$name"
      # The slot is made while there is nothing.
      drained "$name" 0 > "$place/$name.begun"
      if [ "$how" = one ]; then
        sql -c "$(so_many "$count" 1)"
      else
        for ((n = 1; n <= count; n++)); do sql -c "$(so_many 1 "$n")"; done
      fi
      drained "$name" "$count"
      sql -c "SELECT pg_drop_replication_slot('$name')" > "$place/dropped"
    done
  done
}
