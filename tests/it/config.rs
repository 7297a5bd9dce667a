//! Wrong topologies and exactly what is said about them; right ones load; secrets stay unsaid.

use std::path::PathBuf;

use dataflow::config::{self, Loaded, Mistakes};

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
    assert_eq!((mistake.line, mistake.column), (13, 34));
}
