//! The statements as they stand.

use super::*;
use crate::contract::{Column, Type};

fn statements(dialect: Dialect, mode: DeleteMode, needs: Needs) -> String {
    let columns = vec![Column::new("id", Type::BigInt), Column::new("a b", Type::TEXT)];
    let schema = TableSchema { columns, key: vec!["id".into()] };
    let merge = Merge {
        dialect,
        schema: &schema,
        mode,
        range: None,
        target: "\"s\".\"t\"".into(),
        stage: "stage".into(),
        tombstones: "tombs".into(),
        topology: "top",
        table: "t",
        into_stage: |data_type, value| match data_type {
            Type::BigInt => format!("CAST({value} AS bigint)"),
            _ => format!("CAST({value} AS text)"),
        },
        into_target: |_, value| value.to_owned(),
        documents_beside: false,
    };
    merge.statements(needs, None, true).join(";\n")
}

const ALL: Needs = Needs { partial: true, moves: true, gone: true, marked: true };

#[test]
fn hard_in_full() {
    insta::assert_snapshot!(statements(Dialect::Postgres, DeleteMode::Hard, ALL), @r#"
    INSERT INTO tombs (topology, table_name, key, kind, seq) SELECT 'top', 't', _df_key, 'refused', _seq FROM stage WHERE _df_op = 'x' ON CONFLICT DO NOTHING;
    UPDATE stage AS s SET _df_state = 1 FROM "s"."t" AS t WHERE t."id" = s."id" AND t._seq >= s._seq AND s._df_op <> 'x';
    UPDATE stage AS s SET _df_state = 1 FROM tombs AS m WHERE m.topology = 'top' AND m.table_name = 't' AND m.kind = 'deleted' AND m.key = s._df_key AND m.seq >= s._seq AND s._df_op <> 'x';
    UPDATE stage AS s SET _df_base_0 = s."id", _df_base_key = NULL FROM "s"."t" AS t WHERE s._df_state <> 1 AND s._df_unchanged IS NOT NULL AND (s."id" <> s._df_base_0) AND t."id" = s."id" AND t._seq >= s._df_arrived;
    UPDATE stage AS s SET _df_unchanged = CASE WHEN _df_op IN ('d', 'm') THEN '11' END WHERE s._df_state <> 1 AND s._df_unchanged IS NOT NULL AND EXISTS (SELECT 1 FROM "s"."t" AS b, tombs AS m WHERE b."id" = s._df_base_0 AND (b._seq < s._df_base_seq OR (b."id" = s."id")) AND m.topology = 'top' AND m.table_name = 't' AND m.kind = 'refused' AND m.key = s._df_base_key AND m.seq > b._seq AND m.seq < s._df_base_seq);
    UPDATE stage AS s SET _df_state = 0, "a b" = CASE WHEN substr(s._df_unchanged, 2, 1) = '1' THEN CAST(b."a b" AS text) ELSE s."a b" END FROM "s"."t" AS b WHERE s._df_state <> 1 AND s._df_unchanged IS NOT NULL AND b."id" = s._df_base_0 AND (b._seq < s._df_base_seq OR (b."id" = s."id"));
    DELETE FROM "s"."t" AS t USING stage AS s WHERE t."id" = s."id" AND ((s._df_state = 0 AND s._df_op IN ('d', 'm')) OR (s._df_state = 2 AND (s."id" <> s._df_base_0)));
    INSERT INTO "s"."t" AS t ("id", "a b", _seq, _synced_at) SELECT s."id", s."a b", s._seq, now() FROM stage AS s WHERE s._df_state = 0 AND s._df_op IN ('r', 'c', 'u') ON CONFLICT ("id") DO UPDATE SET "a b" = excluded."a b", _seq = excluded._seq, _synced_at = excluded._synced_at WHERE t._seq < excluded._seq;
    DELETE FROM tombs WHERE topology = 'top' AND table_name = 't' AND EXISTS (SELECT 1 FROM stage AS s WHERE s._df_key = tombs.key AND s._df_state = 0 AND s._df_op IN ('r', 'c', 'u') AND s._seq > tombs.seq);
    INSERT INTO tombs (topology, table_name, key, kind, seq) SELECT 'top', 't', _df_key, 'deleted', _seq FROM stage AS s WHERE ((s._df_state = 0 AND s._df_op IN ('d', 'm')) OR (s._df_state = 2 AND (s."id" <> s._df_base_0))) OR s._df_state = 3 ON CONFLICT DO NOTHING
    "#);
}

#[test]
fn only_what_is_needed() {
    let needs = Needs { partial: false, moves: false, gone: true, marked: false };
    insta::assert_snapshot!(statements(Dialect::Sqlite, DeleteMode::Hard, needs), @r#"
    UPDATE stage AS s SET _df_state = 1 FROM "s"."t" AS t WHERE t."id" = s."id" AND t._seq >= s._seq AND s._df_op <> 'x';
    DELETE FROM "s"."t" WHERE rowid IN (SELECT t.rowid FROM stage AS s JOIN "s"."t" AS t ON t."id" = s."id" WHERE ((s._df_state = 0 AND s._df_op IN ('d', 'm')) OR (s._df_state = 2 AND (s."id" <> s._df_base_0))));
    INSERT INTO "s"."t" AS t ("id", "a b", _seq, _synced_at) SELECT s."id", s."a b", s._seq, strftime('%Y-%m-%dT%H:%M:%fZ', 'now') FROM stage AS s WHERE s._df_state = 0 AND s._df_op IN ('r', 'c', 'u') ON CONFLICT ("id") DO UPDATE SET "a b" = excluded."a b", _seq = excluded._seq, _synced_at = excluded._synced_at WHERE t._seq < excluded._seq
    "#);
}

#[test]
fn soft_rows_stay() {
    let needs = Needs { partial: true, moves: true, gone: true, marked: false };
    insta::assert_snapshot!(statements(Dialect::Postgres, DeleteMode::Soft, needs), @r#"
    UPDATE stage AS s SET _df_state = 1 FROM "s"."t" AS t WHERE t."id" = s."id" AND t._seq >= s._seq AND s._df_op <> 'x';
    UPDATE stage AS s SET _df_base_0 = s."id", _df_base_key = NULL FROM "s"."t" AS t WHERE s._df_state <> 1 AND s._df_unchanged IS NOT NULL AND (s."id" <> s._df_base_0) AND t."id" = s."id" AND t._seq >= s._df_arrived AND t._deleted IS NOT TRUE;
    UPDATE stage AS s SET _df_base_0 = s."id", _df_base_key = NULL FROM "s"."t" AS t WHERE s._df_state <> 1 AND s._df_unchanged IS NOT NULL AND (s."id" <> s._df_base_0) AND t."id" = s."id" AND s._df_op IN ('d', 'm') AND NOT EXISTS (SELECT 1 FROM "s"."t" AS b WHERE b."id" = s._df_base_0 AND (b._seq < s._df_base_seq OR (b."id" = s."id")) AND (b._deleted IS NOT TRUE OR (s._df_op IN ('d', 'm') AND b."id" = s."id")));
    UPDATE stage AS s SET _df_state = 0, "a b" = CASE WHEN substr(s._df_unchanged, 2, 1) = '1' OR b._deleted IS TRUE THEN CAST(b."a b" AS text) ELSE s."a b" END FROM "s"."t" AS b WHERE s._df_state <> 1 AND s._df_unchanged IS NOT NULL AND b."id" = s._df_base_0 AND (b._seq < s._df_base_seq OR (b."id" = s."id")) AND (b._deleted IS NOT TRUE OR (s._df_op IN ('d', 'm') AND b."id" = s."id"));
    UPDATE "s"."t" AS t SET _deleted = true, _seq = s._seq, _synced_at = now() FROM stage AS s WHERE t."id" = s."id" AND (s._df_state = 2 AND (s."id" <> s._df_base_0));
    INSERT INTO "s"."t" AS t ("id", "a b", _seq, _synced_at, _deleted) SELECT s."id", s."a b", s._seq, now(), s._df_op IN ('d', 'm') FROM stage AS s WHERE s._df_state = 0 AND s._df_op IN ('r', 'c', 'u', 'd', 'm') ON CONFLICT ("id") DO UPDATE SET "a b" = excluded."a b", _seq = excluded._seq, _synced_at = excluded._synced_at, _deleted = excluded._deleted WHERE t._seq < excluded._seq
    "#);
}

#[test]
fn history_ends_versions() {
    let needs = Needs { partial: false, moves: false, gone: true, marked: false };
    insta::assert_snapshot!(statements(Dialect::Sqlite, DeleteMode::History, needs), @r#"
    UPDATE stage AS s SET _df_state = 1 FROM "s"."t" AS t WHERE t."id" = s."id" AND ((t._seq = s._seq AND s._df_op IN ('r', 'c', 'u')) OR (t._end_seq = s._seq AND s._df_op IN ('d', 'm')));
    INSERT INTO "s"."t" ("id", "a b", _seq, _synced_at, _valid_from, _current) SELECT s."id", s."a b", s._seq, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), s._df_time, true FROM stage AS s WHERE s._df_state = 0 AND s._df_op IN ('r', 'c', 'u') ON CONFLICT DO NOTHING;
    WITH k AS (SELECT "id" FROM stage WHERE _df_op <> 'x' GROUP BY "id"), e AS (SELECT v."id", v._seq AS seq_at, v._valid_from AS time_at, 1 AS version FROM "s"."t" AS v JOIN k ON v."id" = k."id" UNION ALL SELECT v."id", v._end_seq, v._valid_to, 0 FROM "s"."t" AS v JOIN k ON v."id" = k."id" WHERE v._end_seq IS NOT NULL UNION ALL SELECT s."id", s._seq, s._df_time, 0 FROM stage AS s WHERE ((s._df_state = 0 AND s._df_op IN ('d', 'm')) OR (s._df_state = 2 AND (s."id" <> s._df_base_0)))), n AS (SELECT "id", seq_at, version, lead(seq_at) OVER (PARTITION BY "id" ORDER BY seq_at, version) AS next_seq, lead(time_at) OVER (PARTITION BY "id" ORDER BY seq_at, version) AS next_time FROM e) UPDATE "s"."t" AS t SET _end_seq = n.next_seq, _valid_to = n.next_time, _current = false FROM n WHERE t."id" = n."id" AND t._seq = n.seq_at AND n.version = 1 AND n.next_seq IS NOT NULL AND (t._end_seq IS NULL OR t._end_seq > n.next_seq)
    "#);
}
