//! The `streamgauge` program. See `streamgauge --help`.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// What a request allocates, other threads free: those that write its log line and export its spans. With glibc's allocator
/// they wait for each other's locks, and memory that a rush of streams took is not given back.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    streamgauge::cli::main()
}
