//! The fleet repository.
pub mod desired;
