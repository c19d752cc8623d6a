//! The real package on real machines: Debian 12 with systemd as PID 1, a Git server over HTTPS, apt.
//!
//! Needs root and what `tests/run` installs; without them the tests fail, none is skipped.
#![allow(clippy::disallowed_methods, clippy::print_stderr, clippy::unwrap_used)] // the tests are outside the program: they may touch files and run programs

#[path = "../fixture"]
mod fixture {
    pub mod apt_repository;
    pub mod bad_server;
    pub mod git_server;
    pub mod machine;
    pub mod package;
    pub mod repository;
    pub mod rpm_repository;
    pub mod ssh_server;
}

mod bad_days;
mod scene;

mod accounts;
mod as_user;
mod bad_days_disk;
mod bad_days_process;
mod bad_days_server;
mod bad_days_state;
mod bad_days_system;
mod contested;
mod control;
mod dnf;
mod doctor;
mod downloads;
mod enrolment;
mod files;
mod health;
mod image;
mod inverse;
mod mistakes;
mod mounts;
mod operations;
mod operator;
mod owed;
mod package_life;
mod packages;
mod quadlets;
mod quick_start;
mod quiet;
mod recipes;
mod refusals;
mod replay;
mod repositories;
mod resilience;
mod rpm;
mod schedule;
mod secrets;
mod self_upgrade;
mod sources;
mod stick;
mod sysctls;
mod transactions;
mod trust;
mod units;
mod validation;
mod withholding;
mod xattrs;
