//! What the emulator says when it says no.

/// An error as a client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// SQLSTATE.
    pub code: String,
    /// The message.
    pub message: String,
    /// The detail; empty if there is none.
    pub detail: String,
    /// The hint; empty if there is none.
    pub hint: String,
    /// Whether the connection ends with it.
    pub fatal: bool,
}

impl Refusal {
    /// An error.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), detail: String::new(), hint: String::new(), fatal: false }
    }

    /// An error that ends the connection.
    pub fn fatal(code: &str, message: impl Into<String>) -> Self {
        Self { fatal: true, ..Self::new(code, message) }
    }

    /// What is no SQL of Redshift's.
    pub fn syntax(near: &str) -> Self {
        Self::new("42601", format!("syntax error at or near \"{near}\""))
    }

    /// What Redshift knows of and does not do.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new("0A000", message)
    }

    /// What Redshift does and this emulator does not. No rule of Redshift's: a test that meets it needs more emulator.
    pub fn not_emulated(what: &str) -> Self {
        Self::unsupported(format!("redshift-sim does not emulate {what}"))
            .hint("Redshift may well do it: this is a limit of the emulator.")
    }

    /// With a detail.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// With a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// Why: the line of the detail that says it, or the message.
    pub fn reason(&self) -> &str {
        let context = self.detail.lines().find_map(|line| line.trim().strip_prefix("context:"));
        context.map_or(&self.message, str::trim)
    }

    /// Table-level serializability: <https://docs.aws.amazon.com/redshift/latest/dg/c_serial_isolation.html>. The code is an
    /// internal error's and the message the number alone; the detail carries the reason.
    pub fn serializable(table: u32, transactions: &[u64]) -> Self {
        let cycle = transactions.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        Self::new("XX000", "1023").detail(format!(
            "Serializable isolation violation on table - {table}, transactions forming the cycle are: {cycle} (pid:{})",
            std::process::id()
        ))
    }

    /// What COPY's scan of Parquet reports: an internal error whose detail is a block of text.
    pub fn spectrum(code: u32, context: &str) -> Self {
        let line = "-----------------------------------------------";
        Self::new("XX000", "Spectrum Scan Error").detail(format!(
            "\n  {line}\n  error:  Spectrum Scan Error\n  code:      {code}\n  context:   {context}\n  query:     0\n  \
             location:  dory_util.cpp:1450\n  process:   worker_thread [pid=0]\n  {line}\n"
        ))
    }
}

/// Why something is not done: it was refused, or somebody has gone.
#[derive(Debug)]
pub enum Stop {
    /// The client is told.
    Refused(Refusal),
    /// The connection ends.
    Gone(std::io::Error),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        Self::Gone(error)
    }
}
