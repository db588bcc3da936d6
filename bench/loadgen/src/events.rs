//! Live streams at a steady pace: what an event costs the proxy, and how long it takes from backend to client.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::client::{Events, Target};
use crate::json::{cpu, cpu_used};
use crate::stats::{micros, percentile};
use crate::{Error, args::Args, proc};

/// How long streams go on after the measured time, so that none ends inside it.
const OUTLAST: Duration = Duration::from_secs(1);

/// One token event: when it came, and how long it took. Nanoseconds.
type Sample = (u64, u64);

/// Opens the streams, measures for a fixed time in their middle, and reads each to its end.
///
/// # Errors
/// A stream that does not open, or ends early.
pub async fn run(args: &Args) -> Result<String, Error> {
    let target = Target::from_args(args)?;
    let tree = args.optional("pid")?.map(proc::Tree::of).transpose()?;
    let streams: u32 = args.or("streams", 100)?;
    let rate: u32 = args.or("rate", 50)?;
    let warmup = Duration::try_from_secs_f64(args.or("warmup", 0.5)?)?;
    let time = Duration::try_from_secs_f64(args.or("seconds", 3.0)?)?;
    args.finish()?;
    if streams == 0 || rate == 0 {
        return Err("--streams and --rate must be above 0".into());
    }

    let received = Arc::new(AtomicU64::new(0));
    let period = Duration::from_secs(1) / rate;
    let events = (warmup + time + OUTLAST).as_nanos() / period.as_nanos();
    let request = target.stream_request(u64::try_from(events)?, rate);
    let mut tasks = JoinSet::new();
    for _ in 0..streams {
        tasks.spawn(stream(target.clone(), request.clone(), Arc::clone(&received)));
        sleep(period / streams).await; // spreads the events of all streams over the period
    }
    sleep(warmup).await;
    let (start, count, cpu) = (proc::now(), received.load(Relaxed), cpu(tree.as_ref())?);
    sleep(time).await;
    let (end, count) = (proc::now(), received.load(Relaxed) - count);
    let cpu = cpu_used(tree.as_ref(), cpu)?;

    let mut transits = Vec::new();
    while let Some(result) = tasks.join_next().await {
        let samples = result??;
        if samples.len() as u128 != events || samples.last().is_none_or(|(at, _)| *at < end) {
            return Err(
                format!("a stream had {} of {events} events, or ended while it was measured", samples.len()).into()
            );
        }
        transits.extend(samples.iter().filter(|(at, _)| (start..end).contains(at)).map(|(_, transit)| *transit));
    }
    let per_event = cpu.and_then(|nanos| nanos.checked_div(count));
    Ok(format!(
        "{{\"events\":{count},\"cpu_us\":{},\"p50_us\":{},\"p99_us\":{}}}",
        micros(per_event),
        micros(percentile(&mut transits, 0.5)),
        micros(percentile(&mut transits, 0.99)),
    ))
}

async fn stream(target: Target, request: Vec<u8>, received: Arc<AtomicU64>) -> Result<Vec<Sample>, Error> {
    let mut events = Events::open(target.connect().await?, &request).await?;
    let mut samples = Vec::new();
    let mut on_event = |at: u64, stamp: u64| {
        received.fetch_add(1, Relaxed);
        samples.push((at, at.saturating_sub(stamp)));
    };
    while events.next(&mut on_event).await? {}
    Ok(samples)
}
