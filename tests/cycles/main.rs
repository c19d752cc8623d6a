//! Whole cycles: `limpet apply --once` on a temporary root, with a real repository signed by real git. Needs no root and no systemd.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test stops where something is wrong, and looks at the machine from outside"
)]

#[path = "../fixture/repository.rs"]
mod repository;
mod scene;

mod audit;
mod enforcement;
mod guards;
mod refusals;
