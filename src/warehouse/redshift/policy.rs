//! What COPY's role and the loader's user must be allowed to do, for `dataflow plan`. What the loader itself does in the
//! lake's bucket stands in the lake's own policy.

use serde_json::{Value, json};

use super::api::permissions;
use super::credentials::permission;
use super::session::settings;
use crate::config::{Lake, RedshiftAuth, RedshiftTransport, RedshiftWarehouse};
use crate::net::arn;
use crate::warehouse::names::{literal, quote};

/// What it is, and the text to hand to whoever may grant it.
pub fn needs(config: &RedshiftWarehouse, lake: &Lake) -> Vec<(String, String)> {
    let pretty = |policy: &Value| serde_json::to_string_pretty(policy).unwrap_or_default();
    let mut needs = vec![(format!("policy of COPY's role ({})", config.iam_role), pretty(&copy_policy(lake)))];
    needs.extend(loader_policy(config).map(|policy| ("policy of the loader's own role".to_owned(), pretty(&policy))));
    needs.push(("grants of the loader's user".to_owned(), grants(config)));
    needs.push((
        "every session begins with".to_owned(),
        settings(config.statement_timeout.0, config.query_group.as_deref()).join(";\n"),
    ));
    needs
}

/// COPY reads what is staged, and nothing else.
fn copy_policy(lake: &Lake) -> Value {
    let rest = lake.url.strip_prefix("s3://").unwrap_or(&lake.url);
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let prefix = prefix.trim_matches('/');
    let (region, bucket) =
        (lake.region.as_deref(), format!("arn:{}:s3:::{bucket}", arn::partition(lake.region.as_deref())));
    let staged = if prefix.is_empty() { "_stage/*".to_owned() } else { format!("{prefix}/_stage/*") };
    let mut statements = vec![
        json!({"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": format!("{bucket}/{staged}")}),
        json!({
            "Effect": "Allow",
            "Action": ["s3:ListBucket"],
            "Resource": bucket,
            "Condition": {"StringLike": {"s3:prefix": [staged]}},
        }),
    ];
    if let Some(sse) = &lake.sse {
        let key = arn::key(&sse.kms_key, region);
        statements.push(json!({"Effect": "Allow", "Action": ["kms:Decrypt"], "Resource": key}));
    }
    json!({"Version": "2012-10-17", "Statement": statements})
}

/// What lets the loader run statements through the Data API.
fn data_api_policy(config: &RedshiftWarehouse) -> Option<Value> {
    let (_, database) = config.url.split_once(":///")?;
    let statements = permissions(config.auth.as_deref()?, database).into_iter().map(|permission| {
        let mut statement = json!({"Effect": "Allow", "Action": permission.actions, "Resource": permission.resources});
        if permission.own {
            let own = json!({"redshift-data:statement-owner-iam-userid": "${aws:userid}"});
            statement["Condition"] = json!({"StringEquals": own});
        }
        statement
    });
    Some(json!({"Version": "2012-10-17", "Statement": statements.collect::<Vec<_>>()}))
}

/// What the loader is allowed, so that the cluster lets it in.
fn loader_policy(config: &RedshiftWarehouse) -> Option<Value> {
    match config.transport {
        RedshiftTransport::Connection => login_policy(config),
        RedshiftTransport::DataApi => data_api_policy(config),
    }
}

/// What lends the loader its login.
fn login_policy(config: &RedshiftWarehouse) -> Option<Value> {
    let (_, rest) = config.url.split_once("://")?;
    let (authority, database) = rest.split('?').next()?.split_once('/')?;
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let (action, resource) = permission(config.auth.as_deref()?, host, database)?;
    let statement = json!({"Effect": "Allow", "Action": [action], "Resource": resource});
    Some(json!({"Version": "2012-10-17", "Statement": [statement]}))
}

/// What the loader's user needs, and what those need who read through the views.
fn grants(config: &RedshiftWarehouse) -> String {
    let (authority, database) = config.url.split_once("://").map_or(("", ""), |(_, rest)| {
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        (authority, database.split('?').next().unwrap_or_default())
    });
    let user = match config.auth.as_deref() {
        Some(RedshiftAuth { database_user: Some(user), .. }) => user,
        Some(RedshiftAuth { secret_arn: Some(_), .. }) => "<user of the secret>",
        Some(_) => "IAMR:<name of the loader's role>",
        None => authority.split([':', '@']).next().filter(|user| !user.is_empty()).unwrap_or("loader"),
    };
    let (schema, views, user, database) = (quote(&config.schema), quote(&config.views), quote(user), quote(database));
    let role = match config.iam_role.as_str() {
        "default" => "default".to_owned(),
        role => literal(role),
    };
    let readers = "GROUP readers";
    [
        format!("CREATE SCHEMA IF NOT EXISTS {schema} AUTHORIZATION {user}"),
        format!("GRANT USAGE, CREATE ON SCHEMA {schema} TO {user}"),
        format!("CREATE SCHEMA IF NOT EXISTS {views} AUTHORIZATION {user}"),
        format!("GRANT USAGE, CREATE ON SCHEMA {views} TO {user}"),
        format!("GRANT TEMP ON DATABASE {database} TO {user}"),
        format!("GRANT ASSUMEROLE ON {role} TO {user} FOR COPY"),
        "-- to see whether tables lie as the topology says\nGRANT SELECT ON svv_table_info TO ".to_owned() + &user,
        format!("-- for people and their tools, who need nothing on the tables themselves\nGRANT USAGE ON SCHEMA {views} TO {readers}"),
        format!("GRANT SELECT ON ALL TABLES IN SCHEMA {views} TO {readers}"),
        format!("ALTER DEFAULT PRIVILEGES FOR USER {user} IN SCHEMA {views} GRANT SELECT ON TABLES TO {readers}"),
    ]
    .map(|statement| statement + ";")
    .join("\n")
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
            views: "bi".into(),
            iam_role: "default".into(),
            root_certificate: None,
            auth: None,
            statement_timeout: crate::config::Span::seconds(9),
            file_bytes: crate::config::Bytes(32 << 20),
            query_group: None,
            transport: RedshiftTransport::Connection,
        };
        assert_eq!(loader_policy(&config), None);
        let auth = RedshiftAuth { cluster: Some("acme".into()), ..RedshiftAuth::default() };
        let host = "acme.x.eu-west-3.redshift.amazonaws.com";
        let lent = RedshiftWarehouse {
            url: format!("redshift://{host}:5439/dev"),
            auth: Some(Box::new(auth)),
            ..config.clone()
        };
        let policy = login_policy(&lent).expect("a policy");
        assert_eq!(policy["Statement"][0]["Action"], json!(["redshift:GetClusterCredentialsWithIAM"]));
        assert_eq!(policy["Statement"][0]["Resource"], "arn:aws:redshift:eu-west-3:*:dbname:acme/dev");
        let china = Lake { region: Some("cn-north-1".into()), ..lake };
        assert_eq!(copy_policy(&china)["Statement"][1]["Resource"], "arn:aws-cn:s3:::acme");
        let lent =
            RedshiftWarehouse { url: "redshift://acme.x.us-gov-west-1.redshift.amazonaws.com/dev".into(), ..lent };
        let policy = login_policy(&lent).expect("a policy");
        assert_eq!(policy["Statement"][0]["Resource"], "arn:aws-us-gov:redshift:us-gov-west-1:*:dbname:acme/dev");
        let grants = grants(&config);
        for grant in [
            "GRANT USAGE, CREATE ON SCHEMA \"bi\" TO \"etl\";",
            "GRANT TEMP ON DATABASE \"d\" TO \"etl\";",
            "GRANT SELECT ON svv_table_info TO \"etl\";",
            "ALTER DEFAULT PRIVILEGES FOR USER \"etl\" IN SCHEMA \"bi\" GRANT SELECT ON TABLES TO GROUP readers;",
        ] {
            assert!(grants.contains(grant), "no {grant} in\n{grants}");
        }
        assert!(grants.contains("GRANT USAGE, CREATE ON SCHEMA \"shop\" TO \"etl\"") && !grants.contains("s3cret"));
    }

    #[test]
    fn through_the_data_api_the_loader_runs_its_own_statements_and_nothing_else() {
        let auth = RedshiftAuth { region: Some("eu-west-3".into()), ..RedshiftAuth::default() };
        let cluster = RedshiftAuth { cluster: Some("acme".into()), ..auth.clone() };
        let user = RedshiftAuth { database_user: Some("etl".into()), ..cluster.clone() };
        let secret = "arn:aws:secretsmanager:eu-west-3:1:secret:x";
        let workgroup = RedshiftAuth { workgroup: Some("wg".into()), ..auth };
        let kept = RedshiftAuth { secret_arn: Some(secret.into()), ..workgroup.clone() };
        let arn = |rest: &str| format!("arn:aws:redshift:eu-west-3:*:{rest}");
        let every = "arn:aws:redshift-serverless:eu-west-3:*:workgroup/*".to_owned();
        let cases = [
            (
                cluster,
                arn("cluster:acme"),
                "redshift:GetClusterCredentialsWithIAM",
                vec![arn("dbname:acme/dev")],
                "IAMR:<name of the loader's role>",
            ),
            (
                user,
                arn("cluster:acme"),
                "redshift:GetClusterCredentials",
                vec![arn("dbuser:acme/etl"), arn("dbname:acme/dev")],
                "etl",
            ),
            (
                workgroup,
                every.clone(),
                "redshift-serverless:GetCredentials",
                vec![every.clone()],
                "IAMR:<name of the loader's role>",
            ),
            (kept, every, "secretsmanager:GetSecretValue", vec![secret.to_owned()], "<user of the secret>"),
        ];
        for (auth, on, action, resources, user) in cases {
            let config = RedshiftWarehouse {
                url: "redshift:///dev".into(),
                schema: "w".into(),
                views: "bi".into(),
                iam_role: "default".into(),
                root_certificate: None,
                auth: Some(Box::new(auth)),
                statement_timeout: crate::config::Span::seconds(9),
                file_bytes: crate::config::Bytes(32 << 20),
                query_group: None,
                transport: RedshiftTransport::DataApi,
            };
            let policy = loader_policy(&config).expect("a policy");
            assert_eq!(policy["Statement"][0]["Action"], json!(["redshift-data:ExecuteStatement"]));
            assert_eq!(policy["Statement"][0]["Resource"], json!([on]));
            let own = "redshift-data:statement-owner-iam-userid";
            assert_eq!(policy["Statement"][1]["Condition"]["StringEquals"][own], "${aws:userid}");
            assert_eq!(policy["Statement"][2]["Action"], json!([action]));
            assert_eq!(policy["Statement"][2]["Resource"], json!(resources));
            assert!(grants(&config).contains(&format!("GRANT TEMP ON DATABASE \"dev\" TO \"{user}\";")));
        }
    }
}
