//! Live streams at a steady pace: what an event costs the proxy, and how long it takes from backend to client.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::client::{Events, Target};
use crate::json::{cpu, cpu_used};
use crate::stats::{micros, percentile};
use crate::{Error, args::Args, proc};

/// How long streams go on after the measured time, so that none ends inside it.
const OUTLAST: Duration = Duration::from_secs(1);
/// Streams are opened one after the other, this far apart at least: opening is not what is measured.
const OPENING_GAP: Duration = Duration::from_millis(1);
/// An event that takes longer from backend to client is late.
const LATE: Duration = Duration::from_millis(50);

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
    let rate: f64 = args.or("rate", 50.0)?;
    let warmup = Duration::try_from_secs_f64(args.or("warmup", 0.5)?)?;
    let time = Duration::try_from_secs_f64(args.or("seconds", 3.0)?)?;
    args.finish()?;
    let period = Duration::try_from_secs_f64(1.0 / rate).map_err(|_| "--rate must be above 0")?;
    if streams == 0 || period.is_zero() {
        return Err("--streams and --rate must be above 0".into());
    }

    let received = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    // Spread over whole periods, so that the events of all streams are too.
    let gap = (period / streams).max(OPENING_GAP);
    let opening = Instant::now();
    let (from, to) = (opening + gap * streams + warmup, opening + gap * streams + warmup + time);
    for turn in 0..streams {
        let at = opening + gap * turn;
        sleep_until(at).await;
        let events = u64::try_from((to + OUTLAST - at).as_nanos().div_ceil(period.as_nanos()) + 1)?;
        tasks.spawn(stream(target.clone(), events, rate, Arc::clone(&received)));
    }
    sleep_until(from).await;
    let (start, count, cpu) = (proc::now(), received.load(Relaxed), cpu(tree.as_ref())?);
    sleep_until(to).await;
    let (end, count) = (proc::now(), received.load(Relaxed) - count);
    let cpu = cpu_used(tree.as_ref(), cpu)?;

    let mut transits = Vec::new();
    while let Some(result) = tasks.join_next().await {
        let samples = result??;
        if samples.last().is_none_or(|(at, _)| *at < end) {
            return Err("a stream ended while it was measured".into());
        }
        transits.extend(samples.iter().filter(|(at, _)| (start..end).contains(at)).map(|(_, transit)| *transit));
    }
    let per_event = cpu.and_then(|nanos| nanos.checked_div(count));
    let late = transits.iter().filter(|transit| u128::from(**transit) > LATE.as_nanos()).count();
    Ok(format!(
        "{{\"events\":{count},\"cpu_us\":{},\"p50_us\":{},\"p99_us\":{},\"timed\":{},\"late\":{late}}}",
        micros(per_event),
        micros(percentile(&mut transits, 0.5)),
        micros(percentile(&mut transits, 0.99)),
        transits.len(),
    ))
}

/// Reads one stream to its end, of which every event must come.
async fn stream(target: Target, events: u64, rate: f64, received: Arc<AtomicU64>) -> Result<Vec<Sample>, Error> {
    let mut answer = Events::open(target.connect().await?, &target.stream_request(events, rate)).await?;
    let mut samples = Vec::new();
    let mut on_event = |at: u64, stamp: u64| {
        received.fetch_add(1, Relaxed);
        samples.push((at, at.saturating_sub(stamp)));
    };
    while answer.next(&mut on_event).await? {}
    if samples.len() as u64 != events {
        return Err(format!("a stream had {} of {events} events", samples.len()).into());
    }
    Ok(samples)
}
