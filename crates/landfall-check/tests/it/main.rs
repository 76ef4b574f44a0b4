//! The rules from outside: a file goes in, findings and proofs come out.

mod examples;
mod isolation;
mod structural;
