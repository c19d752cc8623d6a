//! Whole cycles: `limpet apply --once` on a temporary root, with a real repository signed by real git. Needs no root and no systemd.

#[path = "../fixture/repository.rs"]
mod repository;
mod scene;

mod enforcement;
mod guards;
mod refusals;
