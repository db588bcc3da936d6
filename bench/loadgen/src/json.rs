//! Small JSON requests over keep-alive connections, each sending the next request once it has its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::client::{Target, exchange};
use crate::stats::{micros, percentile};
use crate::{Error, args::Args, proc};

#[derive(Debug, Default)]
struct Progress {
    answers: AtomicU64,
    measuring: AtomicBool,
    stop: AtomicBool,
}

/// Measures for a fixed time. The result has the CPU time of the proxy per request, the throughput and the latency.
///
/// # Errors
/// Any request that is not answered in full with a 200.
pub async fn run(args: &Args) -> Result<String, Error> {
    let target = Target::from_args(args)?;
    let tree = args.optional("pid")?.map(proc::Tree::of).transpose()?;
    let connections: u32 = args.or("connections", 32)?;
    let users: u32 = args.or("users", 0)?;
    let warmup = Duration::try_from_secs_f64(args.or("warmup", 0.5)?)?;
    let time = Duration::try_from_secs_f64(args.or("seconds", 3.0)?)?;
    args.finish()?;

    let progress = Arc::new(Progress::default());
    let mut tasks = JoinSet::new();
    for turn in 0..connections {
        let request = target.json_request(turn.checked_rem(users));
        tasks.spawn(connection(target.clone(), request, Arc::clone(&progress)));
    }
    sleep(warmup).await;
    progress.measuring.store(true, Relaxed);
    let (start, answers, cpu) = (proc::now(), progress.answers.load(Relaxed), cpu(tree.as_ref())?);
    sleep(time).await;
    let (end, answers) = (proc::now(), progress.answers.load(Relaxed) - answers);
    let cpu = cpu_used(tree.as_ref(), cpu)?;
    progress.stop.store(true, Relaxed);

    let mut latencies = Vec::new();
    while let Some(result) = tasks.join_next().await {
        latencies.extend(result??);
    }
    let per_request = cpu.and_then(|nanos| nanos.checked_div(answers));
    Ok(format!(
        "{{\"requests\":{answers},\"seconds\":{:.4},\"per_second\":{},\"cpu_s\":{},\"cpu_us\":{},\"p50_us\":{},\"p99_us\":{}}}",
        Duration::from_nanos(end - start).as_secs_f64(),
        u128::from(answers) * 1_000_000_000 / u128::from(end - start),
        cpu.map_or_else(|| "null".to_owned(), |nanos| format!("{:.4}", Duration::from_nanos(nanos).as_secs_f64())),
        micros(per_request),
        micros(percentile(&mut latencies, 0.5)),
        micros(percentile(&mut latencies, 0.99)),
    ))
}

/// CPU time of the proxy so far, in nanoseconds, where there is one.
pub fn cpu(tree: Option<&proc::Tree>) -> Result<Option<u64>, Error> {
    tree.map(proc::Tree::cpu).transpose()
}

/// CPU time of the proxy since it had used `before`, in nanoseconds.
pub fn cpu_used(tree: Option<&proc::Tree>, before: Option<u64>) -> Result<Option<u64>, Error> {
    Ok(cpu(tree)?.zip(before).map(|(after, before)| after - before))
}

/// One connection's requests until it is told to stop. Returns latencies in nanoseconds.
async fn connection(target: Target, request: Vec<u8>, progress: Arc<Progress>) -> Result<Vec<u64>, Error> {
    let mut wire = target.connect().await?;
    let mut latencies = Vec::new();
    while !progress.stop.load(Relaxed) {
        let start = proc::now();
        let closes = exchange(&mut wire, &request).await?;
        progress.answers.fetch_add(1, Relaxed);
        if progress.measuring.load(Relaxed) {
            latencies.push(proc::now() - start);
        }
        if closes {
            wire = target.connect().await?;
        }
    }
    Ok(latencies)
}
