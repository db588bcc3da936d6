//! Memory of the proxy per live stream: holds ever more of them open, each with an event now and then.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::client::{Events, PATIENCE, Target};
use crate::{Error, args::Args, proc};

/// Streams that are being opened at a time.
const OPENING_MAX: usize = 64;
/// A stream counts as live after so many token events.
const LIVE_AFTER: usize = 2;
/// Short streams, one after the other, before the first look: code and tables that any stream needs are in memory then.
const WARMUP: usize = 50;

/// What all streams share.
#[derive(Debug)]
struct Shared {
    target: Target,
    request: Vec<u8>,
    opening: Semaphore,
    live: Semaphore,
}

/// Opens up to each of `--steps` streams in turn. The result has memory at rest and at each step, in KiB.
///
/// # Errors
/// A stream that does not open, or ends.
pub async fn run(args: &Args) -> Result<String, Error> {
    let target = Target::from_args(args)?;
    let tree = proc::Tree::of(args.required("pid")?)?;
    let steps = args.or("steps", "100,1000,5000".to_owned())?;
    let rate: f64 = args.or("rate", 1.0)?;
    args.finish()?;

    let mut warm = target.connect().await?;
    for _ in 0..WARMUP {
        let mut events = Events::open(warm, &target.stream_request(2, 0.0)).await?;
        while events.next(|_, _| ()).await? {}
        warm = events.into_wire();
    }
    let rest = tree.memory()?;

    let request = target.stream_request(1_000_000, rate);
    let (opening, live) = (Semaphore::new(OPENING_MAX), Semaphore::new(0));
    let shared = Arc::new(Shared { target, request, opening, live });
    let mut tasks = JoinSet::new();
    let mut results = Vec::new();
    for step in steps.split(',') {
        let step: usize = step.parse()?;
        let new = step.checked_sub(tasks.len()).ok_or("--steps must grow")?;
        for _ in 0..new {
            tasks.spawn(stream(Arc::clone(&shared)));
        }
        all_live(&shared, &mut tasks, new).await?;
        results.push(format!("\"{step}\":{}", tree.memory()?));
    }
    Ok(format!("{{\"rest_kib\":{rest},\"kib\":{{{}}}}}", results.join(",")))
}

/// Waits until `new` more streams are live.
async fn all_live(shared: &Shared, tasks: &mut JoinSet<Result<(), Error>>, new: usize) -> Result<(), Error> {
    let live = async {
        for _ in 0..new {
            shared.live.acquire().await?.forget();
        }
        Ok::<(), Error>(())
    };
    tokio::select! {
        live = timeout(PATIENCE, live) => live.map_err(|_| "streams took too long to open")?,
        Some(ended) = tasks.join_next() => Err(ended?.err().unwrap_or_else(|| "a stream ended by itself".into())),
    }
}

async fn stream(shared: Arc<Shared>) -> Result<(), Error> {
    let permit = shared.opening.acquire().await?;
    let mut events = Events::open(shared.target.connect().await?, &shared.request).await?;
    drop(permit);
    let mut count = 0;
    let mut live = false;
    while events.next(|_, _| count += 1).await? {
        if count >= LIVE_AFTER && !live {
            live = true;
            shared.live.add_permits(1);
        }
    }
    Ok(())
}
