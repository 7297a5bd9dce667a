//! Which tables matter, and how their names are spelled.

/// The tables that are captured; a history also follows the copies that online schema changes make of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    captured: Vec<String>,
    /// Names of databases and tables are the same in any case (`lower_case_table_names`).
    any_case: bool,
}

impl Scope {
    /// Of these tables (`<database>.<table>`), on a server with that `lower_case_table_names`.
    pub fn new(captured: &[String], lower_case_table_names: u64) -> Self {
        Self { captured: captured.to_vec(), any_case: lower_case_table_names != 0 }
    }

    /// The tables that are captured.
    pub fn captured(&self) -> &[String] {
        &self.captured
    }

    /// Whether that table is captured.
    pub fn is_captured(&self, table: &str) -> bool {
        self.captured.iter().any(|captured| captured == table)
    }

    /// Whether a table of that database is captured.
    pub fn reads_from(&self, database: &str) -> bool {
        self.captured.iter().any(|table| table.split_once('.').is_some_and(|(of, _)| self.is_same(of, database)))
    }

    /// Whether two names of databases are the same to the server.
    pub fn is_same(&self, one: &str, other: &str) -> bool {
        one == other || self.any_case && one.eq_ignore_ascii_case(other)
    }

    /// Whether a history follows that table: it is captured, or a copy of one that is.
    pub fn follows(&self, table: &str) -> bool {
        self.captured.iter().any(|captured| captured == table || is_copy(table, captured))
    }

    /// A statement's name as the log spells it.
    pub(super) fn spelled(&self, name: String) -> String {
        if !self.any_case {
            return name;
        }
        let same = self.captured.iter().find(|captured| captured.to_lowercase() == name.to_lowercase());
        same.cloned().unwrap_or_else(|| name.to_lowercase())
    }
}

/// Whether `from` has the name that gh-ost and pt-online-schema-change give to the copy of the table `to`.
pub fn is_copy(from: &str, to: &str) -> bool {
    let (Some((from_database, from)), Some((database, to))) = (from.split_once('.'), to.split_once('.')) else {
        return false;
    };
    let inner = |suffix: &str| from.strip_suffix(suffix).and_then(|from| from.strip_prefix('_'));
    let ghost = inner("_gho") == Some(to);
    let copied = inner("_new").is_some_and(|inner| inner == to || inner.trim_start_matches('_') == to);
    from_database == database && (ghost || copied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_known_by_their_names() {
        assert!(
            is_copy("shop._t_gho", "shop.t") && is_copy("shop.__t_new", "shop.t") && is_copy("shop._t_new", "shop.t")
        );
        assert!(
            !is_copy("shop.t_new", "shop.t") && !is_copy("shop._u_gho", "shop.t") && !is_copy("x._t_gho", "shop.t")
        );
        let scope = Scope::new(&["shop.Items".to_owned()], 1);
        assert_eq!(scope.spelled("SHOP.items".into()), "shop.Items");
        assert!(scope.follows("shop._Items_gho") && scope.reads_from("Shop") && !scope.is_captured("shop.x"));
    }
}
