//! The fleet format as authors meet it: the program run on working trees, without root.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests write working trees and run the program"
)]

mod check;
mod example;
mod mistakes;
mod rendering;
mod tree;
