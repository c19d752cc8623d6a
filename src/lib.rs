//! limpet
pub mod config;
pub mod fleet;
pub mod git;
pub mod kinds;
pub mod model;
pub mod sys;
