//! The kinds of resource: one module each, and the contract they keep.

pub mod account;
pub mod command;
pub mod file;
pub mod health;
pub mod kind;
pub mod package;
pub mod repository;
pub mod sysctl;
pub mod unit;
