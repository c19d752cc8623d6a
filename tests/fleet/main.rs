//! The fleet format as authors meet it: the program run on working trees, without root.
#![allow(clippy::disallowed_methods)] // tests write working trees and run the program

mod example;
mod mistakes;
mod rendering;
mod tree;
