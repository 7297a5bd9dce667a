//! Functions and settings: which there are.

use crate::fault::Kind as Counted;
use crate::lex::{Kind, Token, render};
use crate::refusal::Refusal;

use super::{Effect, Plan};

/// Functions of PostgreSQL that Redshift has not:
/// <https://docs.aws.amazon.com/redshift/latest/dg/c_unsupported-postgresql-functions.html>, and those that came to
/// PostgreSQL after version 8.0 and are not in Redshift's own list.
const UNKNOWN: [&str; 40] = [
    "array_agg",
    "array_append",
    "array_length",
    "array_to_string",
    "clock_timestamp",
    "concat_ws",
    "every",
    "format",
    "gen_random_uuid",
    "json_agg",
    "json_build_array",
    "json_build_object",
    "json_each",
    "json_object",
    "json_object_agg",
    "json_populate_record",
    "jsonb_agg",
    "jsonb_array_elements",
    "jsonb_build_array",
    "jsonb_build_object",
    "jsonb_each",
    "jsonb_object_agg",
    "jsonb_set",
    "jsonb_typeof",
    "jsonb_pretty",
    "lastval",
    "make_date",
    "nextval",
    "num_nonnulls",
    "num_nulls",
    "pg_advisory_lock",
    "pg_advisory_unlock",
    "pg_advisory_xact_lock",
    "pg_try_advisory_lock",
    "regexp_matches",
    "setval",
    "string_agg",
    "string_to_array",
    "to_json",
    "to_jsonb",
];

/// Functions that run on the leader node alone:
/// <https://docs.aws.amazon.com/redshift/latest/dg/c_SQL_functions_leader_node_only.html>.
const LEADER_ONLY: [&str; 6] =
    ["generate_series", "age", "current_setting", "has_table_privilege", "pg_get_userbyid", "to_regclass"];

/// Settings that Redshift has: <https://docs.aws.amazon.com/redshift/latest/dg/cm_chap_ConfigurationRef.html>. Those that are
/// PostgreSQL's own too go to it; the others are only remembered.
const OWN_SETTINGS: [&str; 24] = [
    "analyze_threshold_percent",
    "auto_analyze",
    "cast_super_null_on_error",
    "datashare_break_glass_session_var",
    "default_geometry_encoding",
    "describe_field_name_in_uppercase",
    "downcase_delimited_identifier",
    "enable_case_sensitive_identifier",
    "enable_case_sensitive_super_attribute",
    "enable_numeric_rounding",
    "enable_result_cache_for_session",
    "enable_vacuum_boost",
    "error_on_nondeterministic_update",
    "json_parse_dedup_attributes",
    "json_parse_truncate_strings",
    "json_serialization_enable",
    "json_serialization_parse_nested_strings",
    "max_concurrency_scaling_clusters",
    "max_cursor_result_set_size",
    "mv_enable_aqmv_for_session",
    "navigate_super_null_on_error",
    "query_group",
    "use_fips_ssl",
    "wlm_query_slot_count",
];
const SHARED_SETTINGS: [&str; 9] = [
    "datestyle",
    "extra_float_digits",
    "search_path",
    "statement_timeout",
    "timezone",
    "client_encoding",
    "application_name",
    "stored_proc_log_min_messages",
    "idle_in_transaction_session_timeout",
];

/// Refuses a call of what Redshift has not.
pub fn refuse_unknown(rest: &[Token]) -> Result<(), Refusal> {
    let called = rest.get(1).is_some_and(|t| t.is_symbol("("));
    if called && UNKNOWN.contains(&rest[0].value.as_str()) {
        return Err(Refusal::new("42883", format!("function {}() does not exist", rest[0].value))
            .hint("No function matches the given name and argument types. You may need to add explicit type casts."));
    }
    Ok(())
}

/// A function of the leader node does not meet rows of the compute nodes.
pub fn refuse_leader_only(tokens: &[Token]) -> Result<(), Refusal> {
    let leader = tokens.windows(2).any(|pair| pair[0].is_any(&LEADER_ONLY) && pair[1].is_symbol("("));
    let rows = tokens.windows(2).any(|pair| {
        let own = |name: &str| {
            !name.starts_with("pg_") && !name.starts_with("information_schema") && !LEADER_ONLY.contains(&name)
        };
        pair[0].is_any(&["from", "join", "into"]) && pair[1].name().is_some_and(own)
    });
    if leader && rows {
        return Err(Refusal::unsupported(
            "Specified types or functions (one per INFO message) not supported on Redshift tables.",
        ));
    }
    Ok(())
}

/// SET, SHOW and RESET.
pub fn setting(tokens: &[Token]) -> Result<Plan, Refusal> {
    let verb = tokens[0].value.to_uppercase();
    let from = 1 + usize::from(tokens.get(1).is_some_and(|t| t.is_any(&["local", "session"])));
    let local = if from == 2 && tokens[1].is("local") { "LOCAL " } else { "" };
    let words: Vec<&str> = tokens[from..].iter().map(|t| t.value.as_str()).collect();
    let quiet = |sql: String| Ok(Plan::new(Counted::Set, sql, Effect::Quiet));
    match words.as_slice() {
        ["authorization", ..] | ["characteristics", ..] => {
            Err(Refusal::not_emulated(&format!("SET {}", words[0].to_uppercase())))
        }
        ["server_version"] if verb == "SHOW" => quiet("SELECT '8.0.2' AS server_version".into()),
        ["transaction", "isolation", "level"] | ["transaction_isolation"] => {
            quiet("SELECT 'serializable' AS transaction_isolation".into())
        }
        ["transaction", ..] => Err(Refusal::not_emulated("SET TRANSACTION")),
        ["all"] if verb != "SET" => quiet(format!("{verb} ALL")),
        ["time", "zone", ..] => quiet(format!("SET {local}{}", render(&tokens[from..]))),
        [name, rest @ ..] => {
            let dotted = rest.first() == Some(&".");
            if SHARED_SETTINGS.contains(name) {
                check_value(name, words.last().unwrap_or(&""))?;
                return quiet(format!("{verb} {local}{}", render(&tokens[from..])));
            }
            if !OWN_SETTINGS.contains(name) && !dotted {
                return Err(Refusal::new("42704", format!("unrecognized configuration parameter \"{name}\"")));
            }
            let own = if dotted { render(&tokens[from..from + 3]).replace(' ', "") } else { format!("sim.{name}") };
            Ok(own_setting(&verb, local, name, &own, &tokens[from..]))
        }
        [] => Err(Refusal::syntax("end of input")),
    }
}

fn own_setting(verb: &str, local: &str, name: &str, own: &str, tokens: &[Token]) -> Plan {
    let sql = match verb {
        "SET" => {
            let value = tokens.last().map_or("", |t| t.value.as_str());
            let value = if tokens.last().is_some_and(|t| t.is("default")) { "" } else { value };
            format!("SET {local}{own} TO {}", crate::lex::literal(value))
        }
        "SHOW" => format!("SELECT coalesce(nullif(current_setting('{own}', true), ''), 'off') AS {name}"),
        _ => format!("SET {own} TO ''"),
    };
    let plan = Plan::new(Counted::Set, sql, Effect::Quiet);
    match verb {
        "RESET" => plan.tagged("RESET"),
        "SHOW" => plan.tagged("SHOW"),
        _ => plan,
    }
}

/// The range is PostgreSQL 8's: <https://docs.aws.amazon.com/redshift/latest/dg/r_extra_float_digits.html>.
pub fn check_value(name: &str, value: &str) -> Result<(), Refusal> {
    if name == "extra_float_digits" && value.parse::<i32>().is_ok_and(|digits| !(-15..=2).contains(&digits)) {
        return Err(Refusal::new(
            "22023",
            format!("{value} is outside the valid range for parameter \"extra_float_digits\" (-15 .. 2)"),
        ));
    }
    Ok(())
}

/// Whether a statement switches `enable_case_sensitive_identifier`, and to what.
pub fn case_sensitivity(tokens: &[Token]) -> Option<bool> {
    let named = tokens.iter().any(|t| t.kind == Kind::Word && t.value == "enable_case_sensitive_identifier");
    (named && tokens[0].is_any(&["set", "reset"]))
        .then(|| tokens.last().is_some_and(|t| matches!(&*t.value, "true" | "on" | "1")))
}
