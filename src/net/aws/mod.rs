//! Amazon's credentials: where they come from, and how they are kept fresh.
//!
//! | file | what it owns |
//! |---|---|
//! | `chain.rs` | [`account`]: the first place that has credentials, as the AWS SDKs look for them |
//! | `json.rs` | [`JsonClient`]: a service that speaks JSON, asked again when it is worth it |
//! | `profile.rs` | `~/.aws/config` and `~/.aws/credentials` |
//! | `signed.rs` | [`Api`]: signed requests to a service |
//! | `session.rs` | credentials that run out: renewed before they do |
//! | `sts.rs` | roles: `AssumeRole` and `AssumeRoleWithWebIdentity` |
//!
//! The order: keys or a profile that the topology names; keys in the environment; the profile `AWS_PROFILE`, else
//! `default`; a web identity (IRSA on Kubernetes); the container's role (ECS, EKS Pod Identity); the instance's role.
//! Which of them it is follows from the environment and the files, without any request.

mod chain;
mod json;
mod profile;
mod session;
mod signed;
mod sts;

pub use chain::{Account, Environment, Wanted, account};
pub use json::{JsonClient, Refusal, pause};
pub use signed::Api;
pub use sts::element;

/// Bytes as they stand in URLs and forms (RFC 3986).
pub fn percent(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
