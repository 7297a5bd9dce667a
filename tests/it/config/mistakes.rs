//! Every mistake that a topology may hold, at its place.

use super::*;

/// Replace the first by the second in [`BASE`]: then this is said, and nothing else.
const WRONG: &[(&str, &str, &[&str])] = &[
    ("version: 1\n", "version: 2\n", &["1:10 version 2 is not known | this program reads version 1"]),
    ("version: 1\n", "", &["1:1 `version` is missing | `version`: The version of the file format: 1."]),
    ("version: 1\n", "version: one\n", &["1:10 `one` is not a whole number"]),
    (
        "name: sales\n",
        "name: \"\"\n",
        &["2:7 the name is empty | it stands in metrics, in the ledger and in the Kafka group id"],
    ),
    (
        "name: sales\n",
        "name: Sales Department\n",
        &["2:7 `Sales Department` cannot be a name | a letter a-z, then a-z, 0-9, `_`, `-`; at most 63 characters"],
    ),
    (
        "    from: shop.public.orders\n",
        "    form: shop.public.orders\n",
        &["10:5 unknown field `form` | did you mean `from`?"],
    ),
    (
        "    from: shop.public.orders\n",
        "    from: shop.publc.orders\n",
        &["10:11 no source has a stream `shop.publc.orders` | streams by source: shop: shop.public.*"],
    ),
    (
        "    from: shop.public.orders\n",
        "",
        &[
            "9:3 `from` is missing | `from`: The stream: a Kafka topic, `<topic prefix>.<schema or database>.<table>`, or a database's own `<schema or database>.<table>`.",
        ],
    ),
    ("    kind: kafka\n", "    kind: kafak\n", &["5:11 unknown kind `kafak` | did you mean `kafka`?"]),
    (
        "    kind: kafka\n    brokers: broker-1:9092\n    topics: [\"shop.public.*\"]\n",
        "    kind: mysql\n    url: \"mysql://me@db\"\n    tables: [\"shop.*\"]\n    ignore_statements_on: [audit, \"audit.*\"]\n",
        &["8:35 `audit.*` is not the name of a database | write its exact name: `audit`"],
    ),
    ("    kind: kafka\n", "", &["4:3 `kind` is missing | known are: `kafka`, `postgres`, `mysql`, `file`"]),
    (
        "    brokers: broker-1:9092\n",
        "    brokers: broker-1\n    broker: x\n",
        &["7:5 unknown field `broker` | did you mean `brokers`?"],
    ),
    (
        "    topics: [\"shop.public.*\"]\n",
        "    topics: \"shop.public.*\"\n",
        &["7:13 a list is expected here, but this is a single value | write `[a, b]`, or one `- item` per line"],
    ),
    (
        "    topics: [\"shop.public.*\"]\n",
        "    topics: [\"^shop\\\\.(\"]\n",
        &["7:14 `^shop\\.(` is not a regular expression: unclosed group | a leading `^` makes it one"],
    ),
    (
        "    topics: [\"shop.public.*\"]\n",
        "    topics: [\"shop.public.*\"]\n    properties: { enable.auto.commit: true, fetch.min.bytes: 1, isolation.level: x }\n",
        &[
            "8:19 the property `enable.auto.commit` cannot be set | positions come from the lake log",
            "8:65 the property `isolation.level` cannot be set | only committed records may be read",
        ],
    ),
    (
        "    topics: [\"shop.public.*\"]\n",
        "    topics: [\"shop.public.*\"]\n    start: latests\n",
        &["8:12 `latests` is not known here | did you mean `latest`? known are: `earliest`, `latest`, `timestamp`"],
    ),
    (
        "    topics: [\"shop.public.*\"]\n",
        "    topics: [\"shop.public.*\"]\n    start: { timestamp: yesterday }\n",
        &["8:25 `yesterday` is not a moment like 2026-01-31T12:00:00Z"],
    ),
    (
        "    topics: [\"shop.public.*\"]\n",
        "    topics: [\"shop.public.*\"]\n    sasl: { mechanism: SCRAM-SHA-1, username: a, password: hunter22 }\n",
        &["8:24 unknown mechanism `SCRAM-SHA-1` | did you mean `SCRAM-SHA-512`?"],
    ),
    (
        "    topics: [\"shop.public.*\"]\n",
        "    topics: [\"shop.public.*\"]\n  files: { kind: file, path: events/ }\n",
        &[
            "11:11 the stream `shop.public.orders` could come from `files` and `shop` | say which: `source: files`",
            "16:11 the stream `shop.public.order_lines` could come from `files` and `shop` | say which: `source: files`",
        ],
    ),
    (
        "    topics: [\"shop.public.*\"]\n",
        "    topics: [shop.public.orders, shop.public.order_line]\n",
        &[
            "15:11 no source has a stream `shop.public.order_lines` | did you mean `shop.public.order_line`? streams by source: shop: shop.public.orders, shop.public.order_line",
        ],
    ),
    (
        "groups: { sales: [orders, order_lines] }",
        "groups: { sales: [ordrs, order_lines] }",
        &["16:19 there is no table `ordrs` | did you mean `orders`?"],
    ),
    (
        "groups: { sales: [orders, order_lines] }",
        "groups: { sales: [orders, order_lines], more: [orders] }",
        &[
            "16:48 `orders` is in the group `sales` already | a table is committed with one group; merge the groups or choose one",
        ],
    ),
    (
        "groups: { sales: [orders, order_lines] }",
        "groups: { orders: [order_lines], none: [] }",
        &[
            "16:11 the group `orders` has the name of a table that is a group of its own | put the table into it, or choose another name",
            "16:34 the group has no table | name its tables, or leave it out",
        ],
    ),
    (
        "  order_lines:\n",
        "  Order-Lines:\n",
        &[
            "14:3 `Order-Lines` cannot be the name of a table | a letter a-z, then a-z, 0-9, `_`; at most 63 characters",
            "16:27 there is no table `order_lines` | did you mean `Order-Lines`?",
        ],
    ),
    (
        "  order_lines:\n",
        "  orders:\n",
        &[
            "14:3 `orders` is written twice; first in line 9",
            "16:27 there is no table `order_lines` | tables are: `orders`",
        ],
    ),
    (
        "rule: \"amount >= 0\" }",
        "rule: \"amount >= 0\", otherwise: keep_lst }",
        &[
            "12:69 `keep_lst` is not known here | did you mean `keep_last`? known are: `keep_last`, `remove`, `tag`, `halt`",
        ],
    ),
    (
        "name: positive, rule: \"amount >= 0\" }",
        "name: contract, rule: \"\" }",
        &[
            "12:27 `contract` cannot be the name of a rule | `contract`, `decode`, `incomplete` and `load` are the program's own reasons; choose another name",
            "12:43 the expression is empty | an SQL expression over the table's columns, e.g. `amount >= 0`",
        ],
    ),
    (
        "- compute: { net: \"amount - discount\" }",
        "- computed: { net: \"amount - discount\" }",
        &["13:9 `computed` is not known here | did you mean `compute`?"],
    ),
    (
        "- compute: { net: \"amount - discount\" }",
        "- validate: { name: positive, rule: \"x > 0\" }",
        &["13:27 two rules of this table have the name `positive` | metrics tell them apart by it"],
    ),
    (
        "- compute: { net: \"amount - discount\" }",
        "- mask: { columns: [email], with: hmac, key: short }",
        &[
            "13:9 `hmac` needs a `domain` | equal values get equal pseudonyms inside a domain only, e.g. `domain: customer`",
            "13:52 the key has 5 bytes; at least 32 are needed | `openssl rand -hex 32` makes a good one",
        ],
    ),
    (
        "- compute: { net: \"amount - discount\" }",
        "- mask: { columns: [], with: partial, domain: d }",
        &[
            "13:9 `partial` needs `keep_first` or `keep_last` | how many characters stay at the start or end; `with: redact` keeps none",
            "13:26 no column is named | write `[a, b]`",
            "13:45 `domain` means nothing here | it belongs to `with: hmac`",
        ],
    ),
    (
        "  raw: { keep: none }\n",
        "  raw: { keep: encrypted }\n",
        &[
            "19:3 `keep: encrypted` needs a `key` | 32 bytes as 64 hexadecimal digits: `openssl rand -hex 32`; refer to it as `${NAME}` or `file:…`",
            "19:3 `keep: encrypted` needs a `retention` | how long files stay, e.g. `7d`",
        ],
    ),
    (
        "  raw: { keep: none }\n",
        "  raw: { keep: encrypted, key: \"${BAD_KEY}\", retention: 7 days }\n",
        &[
            "19:32 the key is not 64 hexadecimal digits | 32 bytes as 64 hexadecimal digits: `openssl rand -hex 32`; refer to it as `${NAME}` or `file:…`",
            "19:57 `7 days` is not a length of time | write a whole number and a unit, e.g. 500ms, 60s, 5m, 2h, 7d",
        ],
    ),
    (
        "  raw: { keep: none }\n",
        "  raw: none\n",
        &["19:8 a mapping is expected here, but this is a single value | write `{ keep: none }`"],
    ),
    (
        "  raw: { keep: none }\n",
        "  quarantine: { key: \"${RAW_KEY}\" }\n",
        &[
            "19:3 a quarantine that keeps payloads needs a `retention` | payloads must not stay for ever: say how long, e.g. `retention: 30d`",
        ],
    ),
    (
        "  url: ./data/lake\n",
        "  url: gs://bucket/x\n",
        &["18:8 a lake cannot be kept at `gs://` | `s3://bucket/prefix`, or a folder without any scheme"],
    ),
    (
        "  url: ./data/lake\n",
        "  url: s3:///x\n  access_key_id: AKIA123\n",
        &[
            "17:1 `access_key_id` and `secret_access_key` belong together | give both, or none to use the environment's credentials",
            "18:8 the bucket's name is missing | write `s3://bucket/prefix`",
        ],
    ),
    (
        "kind: sqlite, path: ./data/warehouse.db",
        "kind: postgres, url: mysql://me:pa55@h/d",
        &["20:35 this is not the URL of a PostgreSQL database | `postgres://user:password@host:port/database`"],
    ),
    (
        "kind: sqlite, path: ./data/warehouse.db",
        "kind: sqlite, pth: ./x",
        &["20:28 unknown field `pth` | did you mean `path`?"],
    ),
    (
        "every: 60s, max_bytes: 256MiB",
        "every: 0s, max_bytes: many",
        &[
            "21:17 this must be more than nothing",
            "21:32 `many` is not a size | write a whole number and a unit, e.g. 512KiB, 256MiB, 1GB",
        ],
    ),
    (
        "groups: {",
        "fresh_within: 30s\ngroups: {",
        &[
            "16:15 `30s` cannot be kept: an epoch may be open for 1m (`epoch.every`) | write at least 1m, or a shorter `epoch: { every: … }`",
        ],
    ),
    (
        "    from: shop.public.order_lines\n",
        "    from: shop.public.order_lines\n    fresh_within: 59s\n",
        &[
            "16:19 `59s` cannot be kept: an epoch may be open for 1m (`epoch.every`) | write at least 1m, or a shorter `epoch: { every: … }`",
        ],
    ),
    (
        "    from: shop.public.order_lines\n",
        "    from: shop.public.order_lines\n    source: shpo\n",
        &["16:13 there is no source `shpo` | did you mean `shop`?"],
    ),
    (
        "    from: shop.public.order_lines\n",
        "    from: \"${NOWHERE}\"\n",
        &[
            "15:11 the environment variable `NOWHERE` is not set (or is empty) | set it, or give a default: `${NOWHERE:-…}`",
        ],
    ),
    (
        "    from: shop.public.order_lines\n",
        "    from: \"file:missing.txt\"\n",
        &[
            "15:11 cannot read the file missing.txt: No such file or directory (os error 2) | `file:` is followed by a path, relative to the topology",
        ],
    ),
    (
        "    from: shop.public.order_lines\n",
        "    from: shop.public.order_lines\n    key: [id, id]\n    deletes: softly\n",
        &[
            "16:15 `id` is in the key twice",
            "17:14 `softly` is not known here | did you mean `soft`? known are: `hard`, `soft`, `history`",
        ],
    ),
    (
        "    from: shop.public.order_lines\n",
        "    from: shop.public.order_lines\n    key: [id]\n    gone: [note, id, note]\n",
        &[
            "17:18 `id` is part of the key | every row has its key; start the table anew under another name",
            "17:22 `note` is named twice",
        ],
    ),
    (
        "    from: shop.public.order_lines\n",
        "    from: shop.public.order_lines\n    contract: missing.yaml\n",
        &["16:15 there is no contract file missing.yaml | the path is relative to the topology's folder"],
    ),
    ("groups: {", "groups: {{", &["16:10 a name is expected here"]),
    (
        "tables:\n",
        "tables: []\nx:\n",
        &[
            "8:9 a mapping of names is expected here, but this is a list",
            "9:1 unknown field `x` | known fields are: `admin`, `epoch`, `fresh_within`, `groups`, `lake`, `limits`, `name`, `sources`, `tables`, `version`, `warehouse`",
        ],
    ),
    (
        "sources:\n",
        "sources:\nother:\n",
        &[
            "3:1 there is no source | name at least one, e.g. `shop: { kind: file, path: events/ }`",
            "4:1 unknown field `other` | known fields are: `admin`, `epoch`, `fresh_within`, `groups`, `lake`, `limits`, `name`, `sources`, `tables`, `version`, `warehouse`",
        ],
    ),
    (
        "version: 1\n",
        "version: 1\nlimits: { inflight_bytes: 0, grace: 0s }\nadmin: { listen: 9464 }\n",
        &[
            "2:27 this must be more than nothing",
            "2:37 this must be more than nothing",
            "3:18 `9464` is not an address | write `address:port`, e.g. `127.0.0.1:9464`; port 0 takes a free one",
        ],
    ),
    (
        "version: 1\n",
        "version: 1\nlimits: 12\n",
        &[
            "2:9 a mapping is expected here, but this is a single value | its fields are: `grace`, `inflight_bytes`, `unit_bytes`",
        ],
    ),
    (
        "tables:\n",
        "windows: {}\ntables:\n",
        &[
            "8:1 unknown field `windows` | known fields are: `admin`, `epoch`, `fresh_within`, `groups`, `lake`, `limits`, `name`, `sources`, `tables`, `version`, `warehouse`",
        ],
    ),
    (
        "      - validate: { name: positive, rule: \"amount >= 0\" }\n",
        "      - { drop: [a], rename: { x: y } }\n      - drop\n      - drop: [a, a, \"\"]\n      - rename: { a: c, b: c }\n",
        &[
            "12:9 exactly one of these is expected here | known are: `validate`, `mask`, `rename`, `drop`, `filter`, `compute`",
            "13:9 `drop` needs a value | write `drop: …`",
            "14:19 `a` is named twice",
            "14:22 the column's name is empty",
            "15:28 `a` and `b` both become `c`",
        ],
    ),
    (
        "  url: ./data/lake\n",
        "  url: ./data/lake\n  region: eu-west-3\n  endpoint: localhost:9000\n  compression: gzip\n",
        &[
            "19:3 `region` means nothing for a folder | leave it out, or write `url: s3://…`",
            "20:3 `endpoint` means nothing for a folder | leave it out, or write `url: s3://…`",
            "20:13 the endpoint is not a URL | write `http://host:port` or `https://host`",
            "21:16 `gzip` is not known here | known are: `snappy`, `zstd`",
        ],
    ),
    (
        "  raw: { keep: none }\n",
        "  raw: { keep: plain, key: \"${RAW_KEY}\" }\n",
        &["19:23 `key` means nothing without `keep: encrypted` | leave it out"],
    ),
    ("name: sales\n", "name: [sales]\n", &["2:7 a text is expected here, but this is a list"]),
    (
        "name: sales\n",
        "name: &n sales\n<<: 5\nnothing: !x y\n",
        &[
            "3:1 `<<` takes a mapping to merge",
            "4:1 unknown field `nothing` | known fields are: `admin`, `epoch`, `fresh_within`, `groups`, `lake`, `limits`, `name`, `sources`, `tables`, `version`, `warehouse`",
            "4:13 tags (`!name`) mean nothing here",
        ],
    ),
    (
        "    from: shop.public.order_lines\n",
        "    from: shop.public.order_lines\n\tkey: [id]\n",
        &["15:11 this is not YAML: while scanning a plain scalar, found a tab"],
    ),
    (
        "      - compute: { net: \"amount - discount\" }\n",
        "      - mask: { columns: [email, email], with: hash }\n      - mask: { columns: [phone], with: partial, keep_last: -2 }\n      - mask: { columns: [phone], with: truncate_date, to: day }\n",
        &[
            "13:48 `hash` is not known here | known are: `hmac`, `redact`, `partial`, `null`, `truncate_date`",
            "14:61 `-2` is not between 0 and 4294967295",
            "15:60 `day` is not known here | known are: `month`, `year`",
        ],
    ),
    (
        "    brokers: broker-1:9092\n",
        "    brokers: \"\"\n    tls: { certificate: c.pem }\n    group: \"\"\n",
        &[
            "6:14 a broker's address is empty | write `host:port`, comma separated",
            "7:10 `certificate` and `key` belong together | give both or none",
            "8:12 the consumer group is empty | leave it out for the usual one",
        ],
    ),
];

#[test]
fn every_mistake_is_found_at_its_place() {
    let folder = Folder::new();
    for (find, replace, expected) in WRONG {
        assert!(BASE.contains(find), "{find}");
        assert_eq!(folder.mistakes(&BASE.replacen(find, replace, 1), &[]), *expected, "{replace}");
    }
}
