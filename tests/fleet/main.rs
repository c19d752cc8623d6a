//! The fleet format as authors meet it: the program run on working trees, without root.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests write working trees and run the program"
)]

mod check;
mod diff;
mod example;
mod init;
mod mistakes;
mod policy;
mod rendering;
mod repositories;
#[path = "../fixture/repository.rs"]
mod repository;
mod schema;
mod secrets;
mod tree;
