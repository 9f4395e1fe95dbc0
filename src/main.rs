//! Parse, run, print what could not begin, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    sts_backup::cli::run().unwrap_or_else(|error| {
        sts_backup::telemetry::complain(&format!("error: {error}"));
        ExitCode::from(error.exit_code())
    })
}
