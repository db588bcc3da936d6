//! `/api/streams/events`: the live view's feed, as server-sent events. Who reads slowly is told less often and is never
//! buffered for: what is told is made when it can be sent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Version};
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

use super::answer::{self, Answer};
use super::api::Api;
use super::{canaries, levers, limits, overview, upstreams};
use crate::telemetry::live::feed::{CHOSEN_MAX, VIEWERS_MAX, Viewer};
use crate::telemetry::live::first_tokens::MINUTES;

/// Between two looks at the streams.
const PACE: Duration = Duration::from_millis(250);

/// Holders of limits that are shown: the fullest.
const HOLDERS_SHOWN: usize = 12;

/// Tells a viewer what happens, until it goes, may look no more (`may_look`) or the process ends.
///
/// # Errors
/// The answer to somebody who cannot be let in, nothing of which was written yet.
pub(super) async fn serve(
    api: &Api,
    session: &mut ServerSession,
    shutdown: &ShutdownWatch,
    may_look: impl Fn(&ServerSession) -> bool,
) -> Result<(), Answer> {
    let Some(mut viewer) = Viewer::admit(api.shared.telemetry.live()) else {
        let message = format!("{VIEWERS_MAX} viewers look already, and that is all there is room for: close one");
        return Err(Answer::error(503, &message).with("retry-after", "5"));
    };
    session.set_keepalive(None);
    let Ok(head) = head(session) else { return Ok(()) };
    // From here on whoever fails to read is gone.
    if session.write_response_header(Box::new(head)).await.is_err() || session.req_header().method == Method::HEAD {
        return Ok(());
    }
    let _ = tell(api, session, shutdown, &mut viewer, may_look).await;
    Ok(())
}

async fn tell(
    api: &Api,
    session: &mut ServerSession,
    shutdown: &ShutdownWatch,
    viewer: &mut Viewer,
    may_look: impl Fn(&ServerSession) -> bool,
) -> pingora::Result<()> {
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut shutdown = shutdown.clone();
    let mut overview: Option<Instant> = None;
    session.write_response_body(hello(), false).await?;
    loop {
        let over = tokio::select! {
            biased;
            _ = shutdown.wait_for(|stop| *stop) => true,
            // A viewer has nothing to say: whatever comes is its going.
            _ = session.read_body_or_idle(true) => return Ok(()),
            _ = pace.tick() => false,
        };
        if over || !may_look(session) {
            let why = if over { "the proxy exits" } else { "log in again" };
            return session.write_response_body(event("end", &json!({ "why": why }).to_string()), true).await;
        }
        if overview.is_none_or(|at| at.elapsed() >= overview::FRESH) {
            overview = Some(Instant::now());
            session.write_response_body(latest(api).await, false).await?;
        }
        session.write_response_body(event("streams", &viewer.frame()), false).await?;
    }
}

fn head(session: &ServerSession) -> pingora::Result<ResponseHeader> {
    let mut head = ResponseHeader::build(200, Some(12))?;
    head.insert_header("content-type", "text/event-stream")?;
    // Without it an answer over HTTP/1.0 ends with its connection.
    if session.req_header().version != Version::HTTP_10 {
        head.insert_header("transfer-encoding", "chunked")?;
    }
    head.insert_header("x-accel-buffering", "no")?;
    answer::guard(&mut head)?;
    Ok(head)
}

/// What a viewer should know before anything else.
fn hello() -> Bytes {
    let hello = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pace_ms": PACE.as_millis() as u64,
        "shown_max": CHOSEN_MAX,
        "percentiles_minutes": MINUTES,
        "phases": crate::telemetry::record::Phase::ALL.map(|phase| phase.as_str()),
    });
    event("hello", &hello.to_string())
}

fn event(name: &str, data: &str) -> Bytes {
    Bytes::from(format!("event: {name}\ndata: {data}\n\n"))
}

/// How all stands, as all viewers are told it.
async fn latest(api: &Api) -> Bytes {
    let limits = || limits::tightest(&api.shared, HOLDERS_SHOWN);
    let overview = |limits: &Value| {
        let live = api.shared.telemetry.live().overview();
        event("overview", &format!(r#"{{"proxy":{},"live":{live}}}"#, proxy(api, limits)))
    };
    api.overview.get(limits, overview).await
}

fn proxy(api: &Api, limits: &Value) -> Value {
    let generation = api.shared.generation.load();
    let (server, telemetry) = (&generation.settings.server, &generation.settings.telemetry);
    let listens: Vec<String> = server.listen.iter().map(ToString::to_string).collect();
    let last_error = api.control.status.load().last_error.join("\n");
    json!({
        "draining": api.shared.drain.is_draining(),
        "generation": generation.number,
        "last_error": last_error,
        "listen": listens,
        "slow_first_token_s": telemetry.slow_first_token.as_secs_f64(),
        "slow_gap_s": telemetry.slow_gap.as_secs_f64(),
        "upstreams": upstreams::view(&api.shared),
        "canaries": canaries::list(&Arc::clone(&api.shared)).get("canaries"),
        "levers": levers::list(&api.shared),
        "limits": limits,
    })
}
