//! The `streamgauge` program. See `streamgauge --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    streamgauge::cli::main()
}
