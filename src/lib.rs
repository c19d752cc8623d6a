//! limpet keeps a host as a signed Git repository declares it.
//!
//! The modules in reading order, top floor first; a module imports only from floors below it.

pub mod cli;

pub mod agent;
pub mod cycle;
pub mod schedule;

pub mod apply;
pub mod plan;

pub mod fetch;
pub mod fleet;
pub mod trust;

pub mod control;
pub mod kinds;
pub mod record;
pub mod report;

pub mod config;
pub mod document;
pub mod git;
pub mod model;
pub mod sys;
