//! The program `limpet`: arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(limpet::cli::main(std::env::args_os()))
}
