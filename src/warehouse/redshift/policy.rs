//! What COPY's role and the loader's user must be allowed to do, for `dataflow plan`. What the loader itself does in the
//! lake's bucket stands in the lake's own policy.

use serde_json::{Value, json};

use crate::config::{Lake, RedshiftWarehouse};
use crate::warehouse::names::{literal, quote};

/// What it is, and the text to hand to whoever may grant it.
pub fn needs(config: &RedshiftWarehouse, lake: &Lake) -> Vec<(String, String)> {
    let policy = serde_json::to_string_pretty(&copy_policy(lake)).unwrap_or_default();
    vec![
        (format!("policy of COPY's role ({})", config.iam_role), policy),
        ("grants of the loader's user".to_owned(), grants(config)),
    ]
}

/// COPY reads what is staged, and nothing else.
fn copy_policy(lake: &Lake) -> Value {
    let rest = lake.url.strip_prefix("s3://").unwrap_or(&lake.url);
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let prefix = prefix.trim_matches('/');
    let staged = if prefix.is_empty() { "_stage/*".to_owned() } else { format!("{prefix}/_stage/*") };
    let mut statements = vec![
        json!({"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": format!("arn:aws:s3:::{bucket}/{staged}")}),
        json!({
            "Effect": "Allow",
            "Action": ["s3:ListBucket"],
            "Resource": format!("arn:aws:s3:::{bucket}"),
            "Condition": {"StringLike": {"s3:prefix": [staged]}},
        }),
    ];
    if let Some(sse) = &lake.sse {
        let key = if sse.kms_key.starts_with("arn:") {
            sse.kms_key.clone()
        } else {
            format!("arn:aws:kms:*:*:key/{}", sse.kms_key)
        };
        statements.push(json!({"Effect": "Allow", "Action": ["kms:Decrypt"], "Resource": key}));
    }
    json!({"Version": "2012-10-17", "Statement": statements})
}

fn grants(config: &RedshiftWarehouse) -> String {
    let user = config.url.split_once("://").map_or("", |(_, rest)| rest).split([':', '@']).next().unwrap_or("");
    let (schema, user) = (quote(&config.schema), quote(if user.is_empty() { "loader" } else { user }));
    let role = match config.iam_role.as_str() {
        "default" => "default".to_owned(),
        role => literal(role),
    };
    format!(
        "CREATE SCHEMA IF NOT EXISTS {schema} AUTHORIZATION {user};\n\
         GRANT USAGE, CREATE ON SCHEMA {schema} TO {user};\n\
         GRANT ASSUMEROLE ON {role} TO {user} FOR COPY;"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_gets_more_than_a_load_needs() {
        let lake = Lake { url: "s3://acme/sales/".into(), ..Lake::default() };
        let copy = copy_policy(&lake);
        assert_eq!(copy["Statement"][0]["Resource"], "arn:aws:s3:::acme/sales/_stage/*");
        assert_eq!(copy["Statement"][0]["Action"], json!(["s3:GetObject"]));
        let config = RedshiftWarehouse {
            url: "redshift://etl:s3cret@h/d".into(),
            schema: "shop".into(),
            iam_role: "default".into(),
            root_certificate: None,
        };
        let grants = grants(&config);
        assert!(grants.contains("GRANT USAGE, CREATE ON SCHEMA \"shop\" TO \"etl\"") && !grants.contains("s3cret"));
    }
}
