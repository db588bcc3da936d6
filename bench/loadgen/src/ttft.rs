//! Time to first token: from the request's first byte sent to the first token event received, one stream at a time.

use crate::client::{Events, Target};
use crate::stats::{micros, percentile};
use crate::{Error, args::Args, proc};

/// Measures `--requests` short streams, one after the other on one connection.
///
/// # Errors
/// A stream that does not open, or has no token.
pub async fn run(args: &Args) -> Result<String, Error> {
    let target = Target::from_args(args)?;
    let requests: usize = args.or("requests", 2_000)?;
    // Before those that count.
    let warmup: usize = args.or("warmup", 100)?;
    args.finish()?;

    let request = target.stream_request(1, 0.0);
    let mut wire = target.connect().await?;
    let mut samples = Vec::with_capacity(requests);
    for turn in 0..warmup + requests {
        let start = proc::now();
        let mut events = Events::open(wire, &request).await?;
        let mut first = None;
        while events.next(|at, _| first = first.or(Some(at))).await? {}
        let first = first.ok_or("a stream without a token")?;
        if turn >= warmup {
            samples.push(first - start);
        }
        wire = events.into_wire();
    }
    Ok(format!(
        "{{\"requests\":{requests},\"p50_us\":{},\"p99_us\":{}}}",
        micros(percentile(&mut samples, 0.5)),
        micros(percentile(&mut samples, 0.99)),
    ))
}
