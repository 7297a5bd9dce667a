//!

pub mod fold;
