//! Named places before and after every durable step, where the tests break the process.
//!
//! `FAILPOINTS='log.put.after=2*off->return(kill)'` kills the process the third time it passes `log.put.after`;
//! `return(error)` makes the step fail before it was done, `return(lost)` makes it succeed and lose the answer. Without
//! the `failpoints` feature every place is an empty inline function.

/// What a test asks for at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The step fails: not done.
    Error,
    /// The step was done, but its answer is lost.
    AnswerLost,
}

/// Reads the `FAILPOINTS` environment variable. Called once, by `main`.
#[cfg(feature = "failpoints")]
pub fn setup() {
    // The scenario would restore the old configuration when dropped; the process keeps it until it ends.
    std::mem::forget(fail::FailScenario::setup());
}

/// Passes the place `name`; kills the process when a test asks for that.
#[cfg(feature = "failpoints")]
pub fn hit(name: &str) -> Option<Fault> {
    fail::fail_point!(name, |argument: Option<String>| {
        let argument = argument.unwrap_or_default();
        // How a test knows that the place was passed.
        tracing::warn!("failpoint {name} does: {argument}");
        match argument.as_str() {
            "kill" => kill(),
            "lost" => Some(Fault::AnswerLost),
            _ => Some(Fault::Error),
        }
    });
    None
}

/// As `kill -9`: nothing is flushed, no destructor runs.
#[cfg(feature = "failpoints")]
fn kill() -> ! {
    // A shell's `kill` needs no unsafe code; the abort only matters if there is no such program.
    let _outcome = std::process::Command::new("kill").args(["-9", &std::process::id().to_string()]).status();
    std::process::abort()
}

/// Passes the place `name`.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn setup() {}

/// Passes the place `name`.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn hit(_name: &str) -> Option<Fault> {
    None
}
