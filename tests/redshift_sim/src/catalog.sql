-- What the emulator puts into its database: types, functions and views that Redshift has and PostgreSQL lacks, in
-- pg_catalog, where Redshift has them; and in schema sim what it must remember.
SET allow_system_table_mods = on;
CREATE SCHEMA sim;
CREATE TABLE sim.attributes (relid oid PRIMARY KEY, attributes jsonb NOT NULL);
CREATE TABLE sim.late_views (schema text, name text, sql text NOT NULL, PRIMARY KEY (schema, name));
CREATE TABLE sim.names (short text PRIMARY KEY, long text NOT NULL);
-- The columns of a query, where they can be told.
CREATE FUNCTION sim.columns_of(q text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE found text;
BEGIN
  EXECUTE 'CREATE TEMP VIEW sim_columns AS ' || q;
  SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum) INTO found
    FROM pg_attribute WHERE attrelid = 'pg_temp.sim_columns'::regclass AND attnum > 0;
  DROP VIEW pg_temp.sim_columns;
  RETURN found;
EXCEPTION WHEN OTHERS THEN RETURN NULL;
END $$;
-- What stands in pg_class for a late-binding view is never read. A view is replaced by one with the same columns only, and
-- keeps what was granted: https://docs.aws.amazon.com/redshift/latest/dg/r_CREATE_VIEW.html. Whether a comment outlives
-- CREATE OR REPLACE is written nowhere: here it does not.
CREATE PROCEDURE sim.make_late_view(s text, n text, short text, q text, replaces boolean) LANGUAGE plpgsql AS $$
DECLARE old text;
BEGIN
  SELECT v.sql INTO old FROM sim.late_views v WHERE v.schema = s AND v.name = n;
  IF replaces AND FOUND AND sim.columns_of(old) <> sim.columns_of(q) THEN
    RAISE EXCEPTION 'cannot change the columns of view "%"', n USING ERRCODE = '42P16';
  END IF;
  EXECUTE format('CREATE %s VIEW %I.%I AS SELECT NULL::text AS late', CASE WHEN replaces THEN 'OR REPLACE' ELSE '' END, s, short);
  EXECUTE format('COMMENT ON VIEW %I.%I IS NULL', s, short);
  INSERT INTO sim.late_views VALUES (s, n, q) ON CONFLICT (schema, name) DO UPDATE SET sql = excluded.sql;
END $$;
CREATE PROCEDURE sim.drop_late_view(s text, n text, short text) LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('DROP VIEW IF EXISTS %I.%I', s, short);
  DELETE FROM sim.late_views WHERE schema = s AND name = n;
END $$;
-- r_ALTER_TABLE.html: RENAME TO takes views, too; what was granted and said of one stays.
CREATE PROCEDURE sim.rename_late_view(s text, n text, short text, renamed text, short_renamed text) LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('ALTER VIEW %I.%I RENAME TO %I', s, short, short_renamed);
  UPDATE sim.late_views SET name = renamed WHERE schema = s AND name = n;
END $$;
CREATE TABLE sim.load_errors (
    at timestamp NOT NULL, transaction_id bigint, session_id bigint, query_id bigint, file_name text, line_number bigint,
    column_name text, column_type text, column_length text, error_code int, error_message text);

CREATE DOMAIN pg_catalog.super AS jsonb;
CREATE DOMAIN pg_catalog.varbyte AS bytea;

-- r_Character_types.html, r_Examples_with_character_types.html: trailing blanks do not count where VARCHARs are compared,
-- joined, sorted, grouped or made distinct, as PostgreSQL does it for CHAR; OCTET_LENGTH and LEN count them (r_OCTET_LENGTH.html).
-- What functions return is text here, and compared to the letter.
CREATE FUNCTION sim.eq(varchar, varchar) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'bpchareq';
CREATE FUNCTION sim.ne(varchar, varchar) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'bpcharne';
CREATE FUNCTION sim.lt(varchar, varchar) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'bpcharlt';
CREATE FUNCTION sim.le(varchar, varchar) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'bpcharle';
CREATE FUNCTION sim.gt(varchar, varchar) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'bpchargt';
CREATE FUNCTION sim.ge(varchar, varchar) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'bpcharge';
CREATE FUNCTION sim.compare(varchar, varchar) RETURNS int LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'bpcharcmp';
CREATE FUNCTION sim.hash(varchar) RETURNS int LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'hashbpchar';
CREATE OPERATOR pg_catalog.= (FUNCTION = sim.eq, LEFTARG = varchar, RIGHTARG = varchar, COMMUTATOR = OPERATOR(pg_catalog.=),
  NEGATOR = OPERATOR(pg_catalog.<>), RESTRICT = eqsel, JOIN = eqjoinsel, HASHES, MERGES);
CREATE OPERATOR pg_catalog.<> (FUNCTION = sim.ne, LEFTARG = varchar, RIGHTARG = varchar, COMMUTATOR = OPERATOR(pg_catalog.<>),
  NEGATOR = OPERATOR(pg_catalog.=), RESTRICT = neqsel, JOIN = neqjoinsel);
CREATE OPERATOR pg_catalog.< (FUNCTION = sim.lt, LEFTARG = varchar, RIGHTARG = varchar, RESTRICT = scalarltsel, JOIN = scalarltjoinsel);
CREATE OPERATOR pg_catalog.<= (FUNCTION = sim.le, LEFTARG = varchar, RIGHTARG = varchar, RESTRICT = scalarlesel, JOIN = scalarlejoinsel);
CREATE OPERATOR pg_catalog.> (FUNCTION = sim.gt, LEFTARG = varchar, RIGHTARG = varchar, RESTRICT = scalargtsel, JOIN = scalargtjoinsel);
CREATE OPERATOR pg_catalog.>= (FUNCTION = sim.ge, LEFTARG = varchar, RIGHTARG = varchar, RESTRICT = scalargesel, JOIN = scalargejoinsel);
CREATE OPERATOR CLASS sim.blanks_do_not_count DEFAULT FOR TYPE varchar USING btree AS OPERATOR 1 pg_catalog.<, OPERATOR 2 pg_catalog.<=,
  OPERATOR 3 pg_catalog.=, OPERATOR 4 pg_catalog.>=, OPERATOR 5 pg_catalog.>, FUNCTION 1 sim.compare(varchar, varchar);
CREATE OPERATOR CLASS sim.blanks_do_not_count DEFAULT FOR TYPE varchar USING hash AS OPERATOR 1 pg_catalog.=, FUNCTION 1 sim.hash(varchar);

-- r_VERSION.html
CREATE OR REPLACE FUNCTION pg_catalog.version() RETURNS text LANGUAGE sql STABLE AS
$$ SELECT 'PostgreSQL 8.0.2 on i686-pc-linux-gnu, compiled by GCC gcc (GCC) 3.4.2 20041017 (Red Hat 3.4.2-6.fc3), Redshift 1.0.100000 (emulated by redshift-sim)' $$;
-- r_GETDATE.html, r_SYSDATE.html: both in the session's time zone; one is the statement's time, the other the transaction's.
CREATE FUNCTION pg_catalog.getdate() RETURNS timestamp LANGUAGE sql VOLATILE AS
$$ SELECT date_trunc('second', statement_timestamp()::timestamp) $$;
CREATE FUNCTION pg_catalog.sysdate() RETURNS timestamp LANGUAGE sql STABLE AS $$ SELECT now()::timestamp $$;
CREATE FUNCTION pg_catalog.nvl2(anyelement, anyelement, anyelement) RETURNS anyelement LANGUAGE sql IMMUTABLE AS
$$ SELECT CASE WHEN $1 IS NOT NULL THEN $2 ELSE $3 END $$;
-- https://docs.aws.amazon.com/redshift/latest/dg/r_HAS_ASSUMEROLE_PRIVILEGE.html
CREATE FUNCTION pg_catalog.has_assumerole_privilege(text, text) RETURNS boolean LANGUAGE sql STABLE AS $$ SELECT true $$;
CREATE FUNCTION pg_catalog.len(text) RETURNS int LANGUAGE sql IMMUTABLE STRICT AS $$ SELECT length($1) $$;
-- As compact as Redshift writes a document.
CREATE FUNCTION sim.compact(jsonb) RETURNS text LANGUAGE sql IMMUTABLE STRICT AS
$$ SELECT regexp_replace($1::text, '("([^"\\]|\\.)*")| ', '\1', 'g') $$;
-- Whether one name stands twice in an object.
CREATE FUNCTION sim.repeats_a_name(document json) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT AS $$
  WITH RECURSIVE part(j) AS (
    SELECT document UNION ALL SELECT inner_part.value FROM part, LATERAL (
      SELECT value FROM json_each(CASE json_typeof(j) WHEN 'object' THEN j ELSE '{}' END)
      UNION ALL SELECT value FROM json_array_elements(CASE json_typeof(j) WHEN 'array' THEN j ELSE '[]' END)) AS inner_part)
  SELECT EXISTS (SELECT FROM part WHERE json_typeof(j) = 'object' AND (SELECT count(*) > count(DISTINCT key) FROM json_each(j)))
$$;
-- JSON_PARSE.html, JSON_SERIALIZE.html, IS_VALID_JSON.html, JSON_EXTRACT_PATH_TEXT.html; limitations-super.html: a thousand
-- levels. That numbers load which no float8 comes near to, or of thousands of digits, is written nowhere: they do not.
CREATE FUNCTION pg_catalog.json_parse(text) RETURNS super LANGUAGE plpgsql STABLE STRICT AS $$
DECLARE
  parsed jsonb := $1::jsonb;
  bare text := regexp_replace($1, '"([^"\\]|\\.)*"', '', 'g');
  depth int := 0;
  bracket text;
  number text;
BEGIN
  -- super-configurations.html: with json_parse_dedup_attributes the last stays, as in a jsonb.
  IF lower(coalesce(current_setting('sim.json_parse_dedup_attributes', true), '')) NOT IN ('on', 'true', '1')
      AND sim.repeats_a_name($1::json) THEN
    RAISE EXCEPTION 'Invalid JSON: duplicate attribute names in the same object';
  END IF;
  IF octet_length($1) > 16000000 THEN RAISE EXCEPTION 'SUPER of % bytes; it holds 16000000', octet_length($1); END IF;
  -- r_enable_large_strings_opt_in.html: this cluster has not opted in.
  IF octet_length($1) > 65535 AND EXISTS (SELECT FROM regexp_matches($1, '"(?:[^"\\]|\\.)*"', 'g') AS m
      WHERE octet_length(m[1]) > 65535 AND octet_length(m[1]::jsonb #>> '{}') > 65535) THEN
    RAISE EXCEPTION 'String value exceeds the max size of 65535 bytes';
  END IF;
  FOREACH bracket IN ARRAY string_to_array(regexp_replace(bare, '[^][{}]', '', 'g'), NULL) LOOP
    depth := depth + CASE WHEN bracket IN ('[', '{') THEN 1 ELSE -1 END;
    IF depth > 1000 THEN RAISE EXCEPTION 'Maximum nesting depth of SUPER exceeded'; END IF;
  END LOOP;
  FOR number IN SELECT m[1] FROM regexp_matches(bare, '-?[0-9]+(?:[.][0-9]+)?(?:[eE][-+]?[0-9]+)?', 'g') AS m LOOP
    IF length(number) > 1024 THEN RAISE EXCEPTION 'Numeric overflow'; END IF;
    PERFORM number::float8;
  END LOOP;
  RETURN parsed::super;
END $$;
-- Never null, and never longer than a VARCHAR; r_json_size.html: the length that it has or would have, as compact as it can be.
CREATE FUNCTION pg_catalog.json_size(super) RETURNS int LANGUAGE sql IMMUTABLE AS
$$ SELECT octet_length(sim.compact(coalesce($1::jsonb, 'null'))) $$;
CREATE FUNCTION pg_catalog.json_serialize(super) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  IF octet_length($1::jsonb::text) > 65535 AND pg_catalog.json_size($1) > 65535 THEN
    RAISE EXCEPTION 'Invalid input' USING DETAIL = 'String value exceeds the max size of 65535 bytes';
  END IF;
  RETURN coalesce($1::jsonb::text, 'null');
END $$;
CREATE FUNCTION pg_catalog.is_valid_json(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE STRICT AS
$$ BEGIN RETURN jsonb_typeof($1::jsonb) IN ('object', 'array'); EXCEPTION WHEN others THEN RETURN false; END $$;
CREATE FUNCTION pg_catalog.json_extract_path_text(text, VARIADIC text[]) RETURNS text LANGUAGE sql IMMUTABLE AS
$$ SELECT $1::jsonb #>> $2 $$;
CREATE FUNCTION pg_catalog.can_json_parse(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE STRICT AS
$$ BEGIN PERFORM $1::jsonb; RETURN true; EXCEPTION WHEN others THEN RETURN false; END $$;
-- r_FROM_VARBYTE.html: a VARCHAR, which has 65,535 bytes (r_Character_types.html).
CREATE FUNCTION pg_catalog.from_varbyte(varbyte, text) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT AS $$
DECLARE made text := CASE lower($2) WHEN 'hex' THEN encode($1::bytea, 'hex') ELSE convert_from($1::bytea, 'UTF8') END;
BEGIN
  IF octet_length(made) > 65535 THEN RAISE EXCEPTION 'Value too long for character type' USING ERRCODE = '22001'; END IF;
  RETURN made;
END $$;
-- r_json_typeof.html
CREATE FUNCTION pg_catalog.json_typeof(super) RETURNS text LANGUAGE sql IMMUTABLE STRICT AS $$ SELECT jsonb_typeof($1::jsonb) $$;
-- r_is_object.html, r_is_array.html, r_is_varchar.html
CREATE FUNCTION pg_catalog.is_object(super) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT AS $$ SELECT jsonb_typeof($1::jsonb) = 'object' $$;
CREATE FUNCTION pg_catalog.is_array(super) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT AS $$ SELECT jsonb_typeof($1::jsonb) = 'array' $$;
CREATE FUNCTION pg_catalog.is_varchar(super) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT AS $$ SELECT jsonb_typeof($1::jsonb) = 'string' $$;
-- SHA2.html, FUNC_SHA1.html
CREATE FUNCTION pg_catalog.sha2(text, int) RETURNS text LANGUAGE sql IMMUTABLE STRICT AS
$$ SELECT CASE $2 WHEN 224 THEN encode(sha224(convert_to($1, 'UTF8')), 'hex') WHEN 384 THEN encode(sha384(convert_to($1, 'UTF8')), 'hex')
   WHEN 512 THEN encode(sha512(convert_to($1, 'UTF8')), 'hex') ELSE encode(sha256(convert_to($1, 'UTF8')), 'hex') END $$;
-- r_DATEADD_function.html, r_DATEDIFF_function.html: the second counts the boundaries that are crossed.
CREATE FUNCTION pg_catalog.dateadd(part text, n numeric, t timestamp) RETURNS timestamp LANGUAGE sql IMMUTABLE STRICT AS
$$ SELECT t + CASE part WHEN 'quarter' THEN n * 3 * interval '1 month' ELSE n * ('1 ' || part)::interval END $$;
CREATE FUNCTION pg_catalog.datediff(part text, a timestamp, b timestamp) RETURNS bigint LANGUAGE sql IMMUTABLE STRICT AS
$$ SELECT CASE rtrim(part, 's')
   WHEN 'year' THEN date_part('year', b) - date_part('year', a)
   WHEN 'month' THEN 12 * (date_part('year', b) - date_part('year', a)) + date_part('month', b) - date_part('month', a)
   WHEN 'quarter' THEN 4 * (date_part('year', b) - date_part('year', a)) + date_part('quarter', b) - date_part('quarter', a)
   ELSE date_part('epoch', date_trunc(rtrim(part, 's'), b) - date_trunc(rtrim(part, 's'), a))
        / date_part('epoch', ('1 ' || part)::interval) END::bigint $$;
CREATE FUNCTION pg_catalog.convert_timezone(target text, t timestamp) RETURNS timestamp LANGUAGE sql IMMUTABLE STRICT AS
$$ SELECT t AT TIME ZONE 'utc' AT TIME ZONE target $$;
-- PG_LAST_COPY_COUNT.html, PG_LAST_COPY_ID.html: of this session; -1 is what a session without a COPY gets as its id.
CREATE FUNCTION pg_catalog.pg_last_copy_count() RETURNS int LANGUAGE sql STABLE AS
$$ SELECT coalesce(nullif(current_setting('sim.last_copy_count', true), ''), '0')::int $$;
CREATE FUNCTION pg_catalog.pg_last_copy_id() RETURNS int LANGUAGE sql STABLE AS
$$ SELECT coalesce(nullif(current_setting('sim.last_copy_id', true), ''), '-1')::int $$;

-- The name of a type as Redshift writes it.
CREATE FUNCTION sim.type_name(type oid, typmod int) RETURNS text LANGUAGE sql STABLE AS
$$ SELECT CASE type WHEN 'super'::regtype THEN 'super' WHEN 'jsonb'::regtype THEN 'super' WHEN 'varbyte'::regtype THEN 'binary varying'
   WHEN 'text'::regtype THEN 'character varying(65535)' ELSE format_type(type, typmod) END $$;

-- Lengths are in bytes: r_Character_types.html. CHAR holds single-byte characters only.
CREATE FUNCTION sim.guard(rel oid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE col record; old text; wanted text; rule text;
BEGIN
  FOR col IN SELECT attnum, attname, atttypid, atttypmod - 4 AS n FROM pg_attribute
             WHERE attrelid = rel AND attnum > 0 AND NOT attisdropped AND atttypmod > 4 AND atttypid IN ('varchar'::regtype, 'bpchar'::regtype) LOOP
    wanted := format('sim_bytes_%s_%s', col.attnum, col.n);
    CONTINUE WHEN EXISTS (SELECT FROM pg_constraint WHERE conrelid = rel AND conname = wanted);
    rule := format('octet_length(%I) <= %s', col.attname, col.n);
    IF col.atttypid = 'bpchar'::regtype THEN
      rule := format('octet_length(rtrim(%I::text)) <= length(rtrim(%I::text))', col.attname, col.attname);
    END IF;
    -- In one statement: the event trigger comes here again for it, and must find nothing left to do.
    SELECT string_agg(format('DROP CONSTRAINT %I, ', conname), '') INTO old FROM pg_constraint
      WHERE conrelid = rel AND starts_with(conname, format('sim_bytes_%s_', col.attnum));
    EXECUTE format('ALTER TABLE %s %s ADD CONSTRAINT %I CHECK (%s)', rel::regclass, coalesce(old, ''), wanted, rule);
  END LOOP;
  -- r_Numeric_types201.html: a DECIMAL of 19 digits is kept in 8 bytes.
  FOR col IN SELECT attnum, attname, (atttypmod - 4) & 2047 AS n FROM pg_attribute
             WHERE attrelid = rel AND attnum > 0 AND NOT attisdropped AND atttypid = 'numeric'::regtype AND (atttypmod - 4) >> 16 = 19 LOOP
    wanted := format('sim_digits_%s', col.attnum);
    CONTINUE WHEN EXISTS (SELECT FROM pg_constraint WHERE conrelid = rel AND conname = wanted);
    EXECUTE format('ALTER TABLE %s ADD CONSTRAINT %I CHECK (abs(%I) * power(10::numeric, %s) <= 9223372036854775807)', rel::regclass, wanted, col.attname, col.n);
  END LOOP;
END $$;

-- The translation leaves a note in a comment of the statement; what LIKE copies comes from the table that it names.
CREATE FUNCTION sim.after_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$
DECLARE command record; note jsonb := nullif(split_part(split_part(current_query(), '/*sim:', 2), '*/', 1), '')::jsonb; source oid;
BEGIN
  FOR command IN SELECT * FROM pg_event_trigger_ddl_commands() WHERE object_type = 'table' AND schema_name IS DISTINCT FROM 'sim' LOOP
    PERFORM sim.guard(command.objid);
    IF note IS NOT NULL AND command.command_tag = 'CREATE TABLE' THEN
      source := to_regclass(note->>'like');
      INSERT INTO sim.attributes VALUES (command.objid, coalesce((SELECT attributes FROM sim.attributes WHERE relid = source), '{}') || note)
        ON CONFLICT (relid) DO NOTHING;
    END IF;
    IF note ? 'add' AND command.command_tag = 'ALTER TABLE' THEN
      INSERT INTO sim.attributes VALUES (command.objid, jsonb_build_object('encode', note->'add'))
        ON CONFLICT (relid) DO UPDATE SET attributes = attributes.attributes
          || jsonb_build_object('encode', coalesce(attributes.attributes->'encode', '{}') || (note->'add'));
    END IF;
  END LOOP;
END $$;

-- ALTER TABLE … ALTER DISTKEY, SORTKEY, DISTSTYLE, ENCODE: r_ALTER_TABLE.html
CREATE PROCEDURE sim.set_attributes(rel regclass, note jsonb) LANGUAGE sql AS $$
  INSERT INTO sim.attributes VALUES (rel, note) ON CONFLICT (relid) DO UPDATE SET attributes = attributes.attributes || note
     || jsonb_build_object('encode', coalesce(attributes.attributes->'encode', '{}') || coalesce(note->'encode', '{}'));
$$;

-- ALTER TABLE … ALTER COLUMN … TYPE VARCHAR(n), with its restrictions: r_ALTER_TABLE.html
CREATE PROCEDURE sim.widen(rel regclass, col text, n int) LANGUAGE plpgsql AS $$
DECLARE a pg_attribute; longest int; encoding text;
BEGIN
  SELECT * INTO a FROM pg_attribute WHERE attrelid = rel AND NOT attisdropped
    AND coalesce((SELECT long FROM sim.names WHERE short = attname), attname) = col;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'column "%" of relation "%" does not exist', col, rel USING ERRCODE = '42703';
  END IF;
  IF a.atttypid <> 'varchar'::regtype THEN
    RAISE EXCEPTION 'cannot alter type of column "%": only the size of a VARCHAR column can be altered', col USING ERRCODE = '0A000';
  END IF;
  IF a.atttypmod - 4 = n THEN
    RAISE EXCEPTION 'target column size should be different' USING ERRCODE = '0A000';
  END IF;
  IF a.atthasdef THEN
    RAISE EXCEPTION 'cannot alter type of column "%" with a default value', col USING ERRCODE = '0A000';
  END IF;
  IF EXISTS (SELECT FROM pg_constraint WHERE conrelid = rel AND starts_with(conname, 'sim_key') AND a.attnum = ANY (conkey)) THEN
    RAISE EXCEPTION 'cannot alter type of column "%" with a PRIMARY KEY, UNIQUE or FOREIGN KEY constraint', col USING ERRCODE = '0A000';
  END IF;
  SELECT attributes->'encode'->>col INTO encoding FROM sim.attributes WHERE relid = rel;
  IF encoding IN ('bytedict', 'runlength', 'text255', 'text32k') THEN
    RAISE EXCEPTION 'cannot alter type of column "%" with encoding %', col, upper(encoding) USING ERRCODE = '0A000';
  END IF;
  EXECUTE format('SELECT max(octet_length(%I)) FROM %s', a.attname, rel) INTO longest;
  IF longest > n THEN
    RAISE EXCEPTION 'cannot alter column "%" to VARCHAR(%): it holds values of % bytes', col, n, longest USING ERRCODE = '22001';
  END IF;
  EXECUTE format('ALTER TABLE %s ALTER COLUMN %I TYPE varchar(%s)', rel, a.attname, n);
END $$;

CREATE FUNCTION sim.count(rel oid) RETURNS bigint LANGUAGE plpgsql STABLE AS
$$ DECLARE n bigint; BEGIN EXECUTE format('SELECT count(*) FROM %s', rel::regclass) INTO n; RETURN n; END $$;

CREATE VIEW sim.columns AS
SELECT n.nspname::varchar AS schema_name, coalesce(nt.long, c.relname)::varchar AS table_name, c.relkind, c.oid AS relid,
  coalesce(nc.long, a.attname)::varchar AS column_name,
  row_number() OVER (PARTITION BY c.oid ORDER BY a.attnum)::int AS ordinal_position, a.atttypid, a.atttypmod, a.attnotnull, a.attnum,
  sim.type_name(a.atttypid, a.atttypmod)::varchar AS type,
  CASE WHEN a.attidentity <> '' THEN '"identity"(' || c.oid || ', ' || a.attnum - 1 || ', ''1,1''::text)' ELSE pg_get_expr(d.adbin, d.adrelid) END::varchar AS column_default,
  coalesce(t.attributes->'encode'->>coalesce(nc.long, a.attname), 'none')::varchar AS encoding,
  coalesce(t.attributes->>'distkey' = coalesce(nc.long, a.attname), false) AS distkey,
  coalesce((SELECT k.n::int FROM jsonb_array_elements_text(t.attributes->'sortkey') WITH ORDINALITY k (name, n) WHERE k.name = coalesce(nc.long, a.attname)), 0) AS sortkey
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum LEFT JOIN sim.attributes t ON t.relid = c.oid
  LEFT JOIN sim.names nt ON nt.short = c.relname LEFT JOIN sim.names nc ON nc.short = a.attname
WHERE c.relkind IN ('r', 'v') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'sim', 'pg_toast')
  -- PG_GET_LATE_BINDING_VIEW_COLS.html: columns of late-binding views stand in no catalog.
  AND NOT EXISTS (SELECT FROM sim.late_views v WHERE v.schema = n.nspname AND v.name = coalesce(nt.long, c.relname));

CREATE VIEW sim.information_tables AS
SELECT table_catalog::varchar AS table_catalog, table_schema::varchar AS table_schema, coalesce(long, table_name)::varchar AS table_name,
  table_type::varchar AS table_type FROM information_schema.tables LEFT JOIN sim.names ON short = table_name;
CREATE VIEW sim.pg_tables AS
SELECT schemaname, coalesce(long, tablename)::varchar AS tablename, tableowner FROM pg_tables LEFT JOIN sim.names ON short = tablename;
CREATE VIEW sim.information_columns AS
SELECT current_database()::varchar AS table_catalog, schema_name AS table_schema, table_name, column_name, ordinal_position, column_default,
  CASE WHEN attnotnull THEN 'NO' ELSE 'YES' END::varchar AS is_nullable, split_part(regexp_replace(type, '\([0-9,]+\)', ''), '(', 1)::varchar AS data_type,
  CASE WHEN atttypid IN ('varchar'::regtype, 'bpchar'::regtype) AND atttypmod > 4 THEN atttypmod - 4 WHEN atttypid = 'text'::regtype THEN 65535
    WHEN atttypid = 'varbyte'::regtype THEN coalesce((SELECT split_part(conname, '_', 3)::int FROM pg_constraint
      WHERE conrelid = relid AND conkey = ARRAY[attnum] AND starts_with(conname, 'sim_binary_')), 64000) END AS character_maximum_length,
  information_schema._pg_numeric_precision(atttypid, atttypmod)::int AS numeric_precision,
  information_schema._pg_numeric_scale(atttypid, atttypmod)::int AS numeric_scale,
  information_schema._pg_datetime_precision(atttypid, atttypmod)::int AS datetime_precision, schema_name AS udt_schema
FROM sim.columns;

-- r_PG_TABLE_DEF.html: only what is in the search path.
CREATE VIEW pg_catalog.pg_table_def AS
SELECT schema_name AS schemaname, table_name AS tablename, column_name AS "column", type, encoding, distkey, sortkey, attnotnull AS "notnull"
FROM sim.columns WHERE relkind = 'r' AND schema_name::name = ANY (current_schemas(true));
CREATE VIEW pg_catalog.svv_columns AS SELECT *, NULL::varchar AS remarks FROM sim.information_columns;
CREATE VIEW pg_catalog.svv_redshift_columns AS
SELECT current_database()::varchar AS database_name, schema_name, table_name, column_name, ordinal_position, type AS data_type, column_default,
  CASE WHEN attnotnull THEN 'NO' ELSE 'YES' END::varchar AS is_nullable, encoding, distkey, sortkey, NULL::varchar AS column_acl, NULL::varchar AS remarks
FROM sim.columns;
CREATE VIEW pg_catalog.svv_all_columns AS
SELECT table_catalog AS database_name, table_schema AS schema_name, table_name, column_name, ordinal_position, column_default, is_nullable, data_type,
  character_maximum_length, numeric_precision, numeric_scale, NULL::varchar AS remarks FROM sim.information_columns;
CREATE VIEW sim.tables AS
SELECT current_database()::varchar AS database_name, n.nspname::varchar AS schema_name, coalesce(long, c.relname)::varchar AS table_name,
  CASE c.relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END::varchar AS table_type FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN sim.names ON short = c.relname WHERE c.relkind IN ('r', 'v') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'sim', 'pg_toast');
CREATE VIEW pg_catalog.svv_relation_privileges AS
SELECT n.nspname::varchar AS namespace_name, coalesce(long, c.relname)::varchar AS relation_name, a.privilege_type::varchar AS privilege_type,
  a.grantee::int AS identity_id, coalesce(r.rolname, 'public')::varchar AS identity_name,
  CASE WHEN a.grantee = 0 THEN 'public' WHEN r.rolcanlogin THEN 'user' ELSE 'group' END::varchar AS identity_type, a.is_grantable AS admin_option
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace CROSS JOIN LATERAL aclexplode(c.relacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
  LEFT JOIN sim.names ON short = c.relname WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'sim', 'pg_toast');
CREATE VIEW pg_catalog.svv_redshift_tables AS SELECT *, NULL::varchar AS table_acl, NULL::varchar AS remarks FROM sim.tables;
CREATE VIEW pg_catalog.svv_all_tables AS SELECT *, NULL::varchar AS table_acl, NULL::varchar AS remarks FROM sim.tables;
CREATE VIEW pg_catalog.svv_tables AS
SELECT database_name AS table_catalog, schema_name AS table_schema, table_name, CASE table_type WHEN 'TABLE' THEN 'BASE TABLE' ELSE 'VIEW' END::varchar AS table_type,
  NULL::varchar AS remarks FROM sim.tables;
CREATE VIEW pg_catalog.svv_redshift_schemas AS
SELECT current_database()::varchar AS database_name, nspname::varchar AS schema_name, nspowner::int AS schema_owner, 'local'::varchar AS schema_type,
  NULL::varchar AS schema_acl, NULL::varchar AS schema_option FROM pg_namespace WHERE nspname NOT IN ('sim', 'pg_toast');
CREATE VIEW pg_catalog.svv_all_schemas AS SELECT *, NULL::varchar AS source_database FROM pg_catalog.svv_redshift_schemas;
CREATE VIEW pg_catalog.svv_external_schemas AS
SELECT 0 AS esoid, 0::smallint AS eskind, ''::varchar AS schemaname, 0 AS esowner, ''::varchar AS databasename, ''::varchar AS esoptions WHERE false;
CREATE VIEW pg_catalog.svv_external_tables AS
SELECT ''::varchar AS redshift_database_name, ''::varchar AS schemaname, ''::varchar AS tablename, ''::varchar AS tabletype, ''::varchar AS location WHERE false;
-- r_SVV_TABLE_INFO.html: tables without rows are not shown.
CREATE VIEW pg_catalog.svv_table_info AS
SELECT current_database()::varchar AS database, n.nspname::varchar AS schema, c.oid AS table_id, coalesce(long, c.relname)::varchar AS "table",
  CASE WHEN t.attributes->'encode' IS NULL THEN 'N' ELSE 'Y' END::varchar AS encoded,
  CASE WHEN t.attributes ? 'distkey' THEN 'KEY(' || (t.attributes->>'distkey') || ')' ELSE upper(coalesce(t.attributes->>'diststyle', 'AUTO(ALL)')) END::varchar AS diststyle,
  coalesce(t.attributes->'sortkey'->>0, 'AUTO(SORTKEY)')::varchar AS sortkey1, coalesce(jsonb_array_length(t.attributes->'sortkey'), 0)::int AS sortkey_num,
  (pg_relation_size(c.oid) / 1048576 + 1)::bigint AS size, 0::numeric(8, 2) AS unsorted, 0::numeric(5, 2) AS stats_off, sim.count(c.oid)::numeric(38, 0) AS tbl_rows,
  sim.count(c.oid)::numeric(38, 0) AS estimated_visible_rows, 0::numeric(12, 2) AS vacuum_sort_benefit, NULL::text AS risk_event
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN sim.attributes t ON t.relid = c.oid LEFT JOIN sim.names ON short = c.relname
WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'sim') AND sim.count(c.oid) > 0;
-- SYS_LOAD_ERROR_DETAIL.html, r_STL_LOAD_ERRORS.html: CHAR columns keep their padding.
CREATE VIEW pg_catalog.sys_load_error_detail AS
SELECT 100 AS user_id, query_id, transaction_id, session_id, current_database()::char(128) AS database_name, 0::bigint AS table_id, at AS start_time,
  0::bigint AS line_offset, file_name::char(256) AS file_name, line_number, column_name::char(127) AS column_name, column_type::char(10) AS column_type, column_length::char(10) AS column_length,
  0 AS position, error_code, error_message::char(512) AS error_message FROM sim.load_errors;
CREATE VIEW pg_catalog.stl_load_errors AS
SELECT 100 AS userid, 0 AS slice, 0 AS tbl, at AS starttime, session_id AS session, query_id AS query, file_name::char(256) AS filename, line_number, column_name::char(127) AS colname,
  column_type::char(10) AS type, column_length::char(10) AS col_length, 0 AS position, ''::char(1024) AS raw_line, ''::char(1024) AS raw_field_value, error_code AS err_code, error_message::char(100) AS err_reason
FROM sim.load_errors;
CREATE TABLE sim.isolation (level text NOT NULL, collation_name text NOT NULL);
-- r_DB_COLLATION.html. Only the name: comparisons regard the case all the same.
CREATE FUNCTION pg_catalog.db_collation() RETURNS varchar LANGUAGE sql STABLE AS $$ SELECT collation_name FROM sim.isolation $$;
CREATE VIEW pg_catalog.stv_db_isolation_level AS
SELECT current_database()::char(128) AS db_name, (SELECT level FROM sim.isolation)::char(20) AS isolation_level;

-- Last: it would read the notes of this text.
CREATE EVENT TRIGGER sim_after_ddl ON ddl_command_end WHEN TAG IN ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'ALTER TABLE')
  EXECUTE FUNCTION sim.after_ddl();
