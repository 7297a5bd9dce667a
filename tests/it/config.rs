//! Wrong topologies and exactly what is said about them; right ones load; secrets stay unsaid.

use std::path::PathBuf;

use dataflow::config::{self, Loaded, Mistakes};

mod mistakes;

/// A right topology; every case changes a part of it.
const BASE: &str = r#"version: 1
name: sales
sources:
  shop:
    kind: kafka
    brokers: broker-1:9092
    topics: ["shop.public.*"]
tables:
  orders:
    from: shop.public.orders
    operators:
      - validate: { name: positive, rule: "amount >= 0" }
      - compute: { net: "amount - discount" }
  order_lines:
    from: shop.public.order_lines
groups: { sales: [orders, order_lines] }
lake:
  url: ./data/lake
  raw: { keep: none }
warehouse: { kind: sqlite, path: ./data/warehouse.db }
epoch: { every: 60s, max_bytes: 256MiB }
"#;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn load(&self, text: &str, set: &[(&str, &str)]) -> Result<Loaded, Mistakes> {
        let path = self.file("topology.yaml", text);
        let set: Vec<_> = set.iter().map(|(path, value)| ((*path).to_owned(), (*value).to_owned())).collect();
        config::load_with(&path, &set, &environment)
    }

    /// `line:column message | help` of every mistake.
    fn mistakes(&self, text: &str, set: &[(&str, &str)]) -> Vec<String> {
        let mistakes = self.load(text, set).err().unwrap_or_default();
        let folder = format!("{}/", self.0.path().display());
        mistakes
            .0
            .iter()
            .map(|m| {
                let file = m.file.replace(&folder, "").replace("topology.yaml", "");
                let file = if file.is_empty() { file } else { format!("{file}:") };
                let help = m.help.as_deref().map(|help| format!(" | {help}")).unwrap_or_default();
                format!("{file}{}:{} {}{help}", m.line, m.column, m.message).replace(&folder, "")
            })
            .collect()
    }
}

fn environment(name: &str) -> Option<String> {
    match name {
        "MASK_KEY" => Some("k3y-of-32-bytes-that-nobody-sees!".into()),
        "RAW_KEY" => Some("0f".repeat(32)),
        "BAD_KEY" => Some("not-so-secret-value".into()),
        "PG_URL" => Some("postgres://me:pa55word@db/sales".into()),
        _ => None,
    }
}

#[test]
fn the_base_loads() {
    let loaded = Folder::new().load(BASE, &[("epoch.every", "5s")]).unwrap();
    assert_eq!(loaded.topology.tables.len(), 2);
    assert_eq!(loaded.topology.epoch.every.to_string(), "5s");
    assert_eq!(loaded.locate("tables.orders.operators[0].validate.rule"), Some((12, 43)));
    let mistake = loaded.mistake("tables.orders.operators[1].compute.net", Some(9), "unknown column `discount`", None);
    assert_eq!((mistake.line, mistake.column), (13, 35));
}

const MASKED: &str = "      - mask: { columns: [email], with: hmac, domain: customer, key: \"${MASK_KEY}\" }\n";

/// GIVEN a Redshift warehouse, WHEN a part of it cannot be, THEN it is said what and where.
#[test]
fn what_redshift_cannot_have_is_said() {
    let right = "warehouse: { kind: redshift, url: \"redshift://u:p@host/dev\", schema: sales, iam_role: default }";
    let base = BASE
        .replace("warehouse: { kind: sqlite, path: ./data/warehouse.db }", right)
        .replace("url: ./data/lake", "url: \"s3://acme/sales\"\n  region: eu-west-3");
    let folder = Folder::new();
    assert_eq!(folder.mistakes(&base, &[]), [""; 0]);
    let said = |wrong: &str| {
        let text = if wrong == "freshness" {
            base.replace("order_lines:", "freshness:").replace("[orders, order_lines]", "[orders, freshness]")
        } else {
            let (key, value) = wrong.split_once(": ").unwrap();
            let other = format!(", {key}: {value} }}");
            base.replace(
                ", iam_role: default }",
                &if key == "iam_role" { other } else { format!(", iam_role: default{other}") },
            )
        };
        folder.mistakes(&text, &[])
    };
    for (wrong, words) in [
        ("iam_role: copy", "not the ARN of a role"),
        ("file_bytes: 1KiB", "too small to be read quickly"),
        ("query_group: \"\"", "query group is empty"),
        ("views: Sales", "stand in the schema of the tables"),
        ("freshness", "14:3 its view would stand in the place of bi.freshness"),
    ] {
        let found = said(wrong);
        assert!(found.len() == 1 && found[0].contains(words), "{wrong}: {found:?}");
    }
}

/// GIVEN a Redshift warehouse that is reached through the Data API, WHEN what it says makes no sense there, or elsewhere, THEN
/// it is said what and where.
#[test]
fn what_the_data_api_does_not_take_is_said() {
    let folder = Folder::new();
    let said = |warehouse: &str| {
        let base = BASE
            .replace(
                "warehouse: { kind: sqlite, path: ./data/warehouse.db }",
                &format!("warehouse: {{ kind: redshift, schema: sales, iam_role: default, {warehouse} }}"),
            )
            .replace("url: ./data/lake", "url: \"s3://acme/sales\"\n  region: eu-west-3");
        folder.mistakes(&base, &[])
    };
    let api = "url: \"redshift:///dev\", transport: data_api";
    let right = ["auth: { cluster: acme }", "auth: { workgroup: acme }", "auth: { cluster: acme, database_user: etl }"];
    for auth in right {
        assert_eq!(said(&format!("{api}, {auth}")), [""; 0], "{auth}");
    }
    let secret = "secret_arn: \"arn:aws:secretsmanager:eu-west-3:1:secret:x\"";
    assert_eq!(said(&format!("{api}, auth: {{ workgroup: acme, {secret} }}")), [""; 0]);
    for (wrong, words) in [
        (
            "url: \"redshift://u:p@h/dev\", transport: data_api, auth: { cluster: a }".to_owned(),
            "takes neither a host nor a user",
        ),
        ("url: \"redshift:///\", transport: data_api, auth: { cluster: a }".into(), "takes neither a host nor a user"),
        (api.into(), "must be told which cluster or workgroup"),
        (format!("{api}, auth: {{ region: eu-west-3 }}"), "either a cluster or a workgroup"),
        (format!("{api}, auth: {{ cluster: a }}, root_certificate: ca.pem"), "nobody connects to the cluster"),
        (format!("{api}, auth: {{ cluster: a, database_user: u, {secret} }}"), "both a user and a secret"),
        (format!("{api}, auth: {{ workgroup: a, database_user: u }}"), "a workgroup's user follows"),
        (format!("{api}, auth: {{ cluster: a, secret_arn: x }}"), "not the ARN of a secret"),
        (
            "url: \"redshift://h/dev\", auth: { cluster: a, database_user: u }".into(),
            "`database_user` is for the Data API",
        ),
    ] {
        let found = said(&wrong);
        assert!(found.len() == 1 && found[0].contains(words), "{wrong}: {found:?}");
    }
}

#[test]
fn masked_columns_force_a_word_about_the_raw_zone() {
    let folder = Folder::new();
    let compute = "      - compute: { net: \"amount - discount\" }\n";
    let masked = BASE.replacen(compute, MASKED, 1);
    assert_eq!(folder.mistakes(&masked, &[]), Vec::<String>::new());
    let say = "write `raw: { keep: none }`, or `raw: { keep: encrypted, key: …, retention: 7d }`";
    let unsaid = masked.replacen("  raw: { keep: none }\n", "", 1);
    let expected = "17:1 `orders` masks columns, but it is not said what the raw zone keeps of them";
    assert_eq!(folder.mistakes(&unsaid, &[]), [format!("{expected} | {say}")]);
    let plain = masked.replacen("keep: none", "keep: plain", 1);
    assert_eq!(folder.mistakes(&plain, &[]), [format!("19:16 `plain` would keep what `orders` masks | {say}")]);
    let encrypted = masked.replacen("keep: none", "keep: encrypted, key: \"${RAW_KEY}\", retention: 7d", 1);
    assert_eq!(folder.mistakes(&encrypted, &[]), Vec::<String>::new());
}

#[test]
fn contract_files_are_checked_in_their_own_places() {
    let folder = Folder::new();
    folder.file(
        "orders.yaml",
        "version: 1\ncolumns:\n  - { name: id, type: bigint }\n  - { name: amount, type: decimel(12) }\n  - { nam: x, type: text }\nkey: [id]\n",
    );
    let lines = "version: 3\ncolumns:\n  - { name: id, type: bigint }\n  - { name: id, type: text }\nkey: [ip]\n";
    folder.file("lines.yaml", lines);
    let text = BASE.replacen("shop.public.orders\n", "shop.public.orders\n    contract: orders.yaml\n", 1).replacen(
        "shop.public.order_lines\n",
        "shop.public.order_lines\n    contract: lines.yaml\n    key: [sku]\n",
        1,
    );
    let types = dataflow::contract::TYPE_NAMES.join(", ");
    let expected = [
        "18:11 the contract has no column `sku` | columns are: `id`, `id`".to_owned(),
        "lines.yaml:1:10 version 3 is not known | this program reads version 1".to_owned(),
        "lines.yaml:4:13 there are two columns `id`".to_owned(),
        "lines.yaml:5:7 the contract has no column `ip` | did you mean `id`?".to_owned(),
        format!("orders.yaml:4:27 unknown type `decimel(12)` | did you mean `decimal`? known are {types}"),
        "orders.yaml:5:7 unknown field `nam` | did you mean `name`?".to_owned(),
    ];
    let mut found = folder.mistakes(&text, &[]);
    found.sort();
    assert_eq!(found, expected);
}

#[test]
fn set_replaces_adds_and_is_checked_like_the_file() {
    let folder = Folder::new();
    let set = [
        ("tables.orders.operators[0].validate.otherwise", "tag"),
        ("sources.shop.properties.\"fetch.min.bytes\"", "5"),
        ("groups", "{}"),
        ("limits.grace", "5s"),
    ];
    let topology = folder.load(BASE, &set).unwrap().topology;
    assert!(topology.groups.is_empty());
    assert_eq!(topology.limits.grace.to_string(), "5s");
    let config::Source::Kafka(kafka) = &topology.sources["shop"] else { panic!("a Kafka source") };
    assert_eq!(kafka.properties["fetch.min.bytes"], "5");
    let wrong = [
        ("tables.orders.operators[0].validate.otherwise", "tags"),
        ("tables.orders.operators[9].drop", "[a]"),
        ("epoch.evry", "5s"),
        ("name..x", "y"),
        ("version", "[1"),
    ];
    let said = folder.mistakes(BASE, &wrong);
    let expected = [
        "0:0 unknown field `evry` | did you mean `every`?",
        "0:0 this is not a path | write e.g. `epoch.every` or `tables.orders.operators[0].mask.key`",
        "0:0 `tags` is not known here | did you mean `tag`? known are: `keep_last`, `remove`, `tag`, `halt`",
        "0:0 there is no `[9]` here: this is a list | look at the path again",
        "0:0 the value is not YAML | quote it: --set 'path=\"value\"'",
    ];
    assert_eq!(said, expected);
    assert!(folder.load(BASE, &wrong).unwrap_err().to_string().starts_with("--set epoch.evry: error: "));
}

#[test]
fn references_are_resolved_from_environment_and_files() {
    let folder = Folder::new();
    folder.file("brokers.txt", "one:9092,two:9092\n");
    let text = BASE.replacen("broker-1:9092", "\"file:brokers.txt\"", 1).replacen(
        "./data/lake",
        "\"./${PLACE:-somewhere}/lake\"",
        1,
    );
    let topology = folder.load(&text, &[]).unwrap().topology;
    let config::Source::Kafka(kafka) = &topology.sources["shop"] else { panic!("a Kafka source") };
    assert_eq!(kafka.brokers, "one:9092,two:9092");
    assert_eq!(topology.lake.url, "./somewhere/lake");
}

/// A topology full of secrets, written in every way, in which something is wrong beside every one of them.
const SECRETS: &str = r#"version: 2
name: sales
sources:
  shop:
    kind: kafka
    brokers: b:9092
    topics: ["shop.public.*"]
    sasl: { mechanism: PLAIN, username: me, password: inline-pa55word }
    properties: { ssl.key.password: inline-ssl-pass, group.id: x }
    bogus: "file:token.txt"
tables:
  orders:
    from: shop.public.orders
    deletes: "${PG_URL}"
    operators:
      - mask: { columns: [email], with: hmac, key: "${MASK_KEY}", oops: 1 }
      - mask: { columns: [phone], with: redact, key: inline-mask-key-inline-mask-key- }
lake:
  url: ./data/lake
  raw: { keep: encrypted, key: "${BAD_KEY}", retention: "${BAD_KEY}" }
  quarantine: { key: inline-hex-key, retention: 0s }
warehouse: { kind: postgres, url: "postgres://me:inline-db-pass@h/d?password=inline-db-pass", schema: "" }
"#;

const UNSAYABLE: [&str; 9] = [
    "inline-pa55word",
    "inline-ssl-pass",
    "token-in-a-file",
    "pa55word@db",
    "k3y-of-32-bytes",
    "inline-mask-key",
    "not-so-secret-value",
    "inline-hex-key",
    "inline-db-pass",
];

#[test]
fn secrets_are_never_said() {
    let folder = Folder::new();
    folder.file("token.txt", "token-in-a-file");
    let set = [("sources.shop.sasl.password", "inline-pa55word"), ("lake.raw.key", "inline-hex-key")];
    for set in [&[][..], &set[..]] {
        let mistakes = folder.load(SECRETS, set).unwrap_err();
        assert!(mistakes.0.len() >= 12, "{mistakes}");
        let said = format!("{mistakes}{}{mistakes:?}", serde_json::to_string(&mistakes.0).unwrap());
        for secret in UNSAYABLE {
            assert!(!said.contains(secret), "{secret} in {said}");
        }
    }
}

#[test]
fn a_loaded_topology_prints_and_serializes_without_secrets() {
    let folder = Folder::new();
    let text = BASE
        .replacen(
            "topics:",
            "sasl: { mechanism: SCRAM-SHA-256, username: me, password: inline-pa55word }\n    topics:",
            1,
        )
        .replacen("      - compute: { net: \"amount - discount\" }\n", MASKED, 1)
        .replacen("keep: none }", "keep: encrypted, key: \"${RAW_KEY}\", retention: 7d }", 1)
        .replacen(
            "kind: sqlite, path: ./data/warehouse.db",
            "kind: postgres, url: \"${PG_URL}?sslpassword=inline-db-pass\"",
            1,
        );
    let loaded = folder.load(&text, &[]).unwrap();
    let said = format!("{loaded:?} {:?} {}", loaded.topology, serde_json::to_string(&loaded.topology).unwrap());
    for secret in UNSAYABLE.into_iter().chain(["0f0f0f0f", "pa55word"]) {
        assert!(!said.contains(secret), "{secret} in {said}");
    }
    assert!(said.contains("postgres://me:***@db/sales"), "{said}");
}

#[test]
fn the_topologies_of_this_repository_are_right() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let env = |name: &str| {
        Some(match name {
            "KAFKA_BROKERS" => "broker-1:9092".to_owned(),
            "LAKE_URL" => "s3://acme-lake/sales".to_owned(),
            "WAREHOUSE_URL" => "postgres://warehouse/sales".to_owned(),
            "PG_URL" => "postgres://dataflow@shop/shop".to_owned(),
            "MYSQL_URL" => "mysql://dataflow@shop".to_owned(),
            "MASK_KEY" | "RAW_KEY" => "0f".repeat(32),
            _ => return None,
        })
    };
    let mut seen = 0;
    for entry in std::fs::read_dir(root.join("topologies")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "yaml") {
            let loaded = config::load_with(&path, &[], &env).unwrap_or_else(|mistakes| panic!("{mistakes}"));
            assert!(!loaded.topology.tables.is_empty());
            seen += 1;
        }
    }
    assert!(seen >= 2);
}

#[test]
fn committed_schemas_are_those_of_the_types() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("schemas");
    for (file, schema) in
        [("topology.schema.json", config::topology_schema()), ("contract.schema.json", config::contract_schema())]
    {
        let committed: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(root.join(file)).unwrap()).unwrap();
        assert_eq!(committed, schema, "run `dataflow schema` again and commit {file}");
    }
}

#[test]
fn no_input_makes_the_reader_panic() {
    let folder = Folder::new();
    // Every prefix of a right topology is either right or explained.
    for end in (0..BASE.len()).step_by(5).filter(|end| BASE.is_char_boundary(*end)) {
        if let Err(mistakes) = folder.load(&BASE[..end], &[]) {
            assert!(!mistakes.0.is_empty(), "{}", &BASE[..end]);
        }
    }
}
