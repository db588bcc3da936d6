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
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::answer::{self, Answer};
use super::api::{Api, FOR_REPLICA_MAX, ONE_HOP, is_of_fleet};
use super::fleet::feed::{self, Subscription};
use super::fleet::frames::Mirror;
use super::fleet::{ask, peers, signed};
use super::{canaries, levers, limits, overview, upstreams};
use crate::config::fleet::Fleet;
use crate::telemetry::live::feed::{CHOSEN_MAX, REPLICAS_MAX, VIEWERS_MAX, Viewer};
use crate::telemetry::live::first_tokens::MINUTES;

/// Between two looks at the streams.
const PACE: Duration = Duration::from_millis(250);

/// Holders of limits that are shown: the fullest.
const HOLDERS_SHOWN: usize = 12;

/// First overview of a fleet: it waits for the replicas for so long.
const PATIENCE: Duration = Duration::from_millis(1_100);

/// What a viewer is told of.
enum Scope {
    /// This replica.
    Alone,
    /// This replica, and another one is told.
    ForReplica,
    /// All replicas. With what this one has told.
    Fleet(Arc<Fleet>, Box<Subscription>, Box<Mirror>),
}

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
    let (live, asked) = (api.shared.telemetry.live(), session.req_header());
    let of_fleet = is_of_fleet(asked.uri.query().unwrap_or(""));
    let is_replica = signed::is_signed(asked);
    let (viewer, most) = match is_replica {
        true if of_fleet => return Err(Answer::error(400, ONE_HOP)),
        true => (Viewer::admit_replica(live), REPLICAS_MAX),
        false => (Viewer::admit(live), VIEWERS_MAX),
    };
    let Some(mut viewer) = viewer else {
        let message = format!("{most} viewers look already, and that is all there is room for: close one");
        return Err(Answer::error(503, &message).with("retry-after", "5"));
    };
    let mut scope = match (is_replica, of_fleet) {
        (true, _) => Scope::ForReplica,
        (false, false) => Scope::Alone,
        (false, true) => {
            let fleet = peers::askable(&api.shared).map_err(|message| Answer::error(409, message))?;
            let own = Mirror::new(&api.shared.fleet.owner, 0);
            Scope::Fleet(fleet, Box::new(api.feeds.join(&api.shared)), Box::new(own))
        }
    };
    session.set_keepalive(None);
    let Ok(mut head) = head(session) else { return Ok(()) };
    if is_replica && head.insert_header(ask::REPLICA, &*api.shared.fleet.owner).is_err() {
        return Ok(());
    }
    // From here on whoever fails to read is gone.
    if session.write_response_header(Box::new(head)).await.is_err() || session.req_header().method == Method::HEAD {
        return Ok(());
    }
    let _ = tell(api, session, shutdown, (&mut viewer, &mut scope), may_look).await;
    Ok(())
}

async fn tell(
    api: &Api,
    session: &mut ServerSession,
    shutdown: &ShutdownWatch,
    (viewer, scope): (&mut Viewer, &mut Scope),
    may_look: impl Fn(&ServerSession) -> bool,
) -> pingora::Result<()> {
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut shutdown = shutdown.clone();
    let (began, mut overview) = (Instant::now(), None::<Instant>);
    let mut settled = scope.settled();
    session.write_response_body(hello(), false).await?;
    loop {
        let (over, news) = tokio::select! {
            biased;
            _ = shutdown.wait_for(|stop| *stop) => (true, None),
            // A viewer has nothing to say: whatever comes is its going.
            _ = session.read_body_or_idle(true) => return Ok(()),
            () = until(&mut settled), if overview.is_none() => (false, None),
            _ = pace.tick() => (false, None),
            news = scope.news() => (false, Some(news)),
        };
        if let Some(news) = news {
            session.write_response_body(event("streams", &news), false).await?;
            continue;
        }
        if over || !may_look(session) {
            let why = if over { "the proxy exits" } else { "log in again" };
            return session.write_response_body(event("end", &json!({ "why": why }).to_string()), true).await;
        }
        let is_settled = overview.is_some() || *settled.borrow() || began.elapsed() >= PATIENCE;
        if is_settled && overview.is_none_or(|at| at.elapsed() >= overview::FRESH) {
            overview = Some(Instant::now());
            session.write_response_body(scope.overview(api).await, false).await?;
        }
        session.write_response_body(event("streams", &scope.frame(viewer)), false).await?;
    }
}

/// Waits until it is known who answers; for ever where nobody will say so.
async fn until(settled: &mut watch::Receiver<bool>) {
    if settled.wait_for(|is_settled| *is_settled).await.is_err() {
        std::future::pending().await
    }
}

impl Scope {
    /// True once an overview has something of all.
    fn settled(&self) -> watch::Receiver<bool> {
        match self {
            Self::Fleet(_, others, _) => others.settled(),
            Self::Alone | Self::ForReplica => watch::channel(true).1,
        }
    }

    /// What another replica told of its streams.
    async fn news(&mut self) -> String {
        match self {
            Self::Fleet(_, others, _) => others.next().await,
            Self::Alone | Self::ForReplica => std::future::pending().await,
        }
    }

    /// What this replica tells of its streams.
    fn frame(&mut self, viewer: &mut Viewer) -> String {
        let frame = viewer.frame();
        let Self::Fleet(_, _, own) = self else { return frame };
        let read = serde_json::from_str(&frame).ok();
        read.and_then(|read| own.take(read)).map_or(frame, |news| news.data)
    }

    async fn overview(&self, api: &Api) -> Bytes {
        let own = latest(api).await;
        if matches!(self, Self::Alone) || matches!(self, Self::ForReplica) && own.len() <= FOR_REPLICA_MAX {
            return own;
        }
        let data = own.strip_prefix(OVERVIEW).unwrap_or_default();
        let own = serde_json::from_slice(data).unwrap_or_default();
        let told = match self {
            Self::Fleet(fleet, others, _) => others.overview(&api.shared, fleet, own),
            Self::Alone | Self::ForReplica => feed::fitted(own, FOR_REPLICA_MAX),
        };
        event("overview", &told.to_string())
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

/// What stands before an overview's data.
const OVERVIEW: &[u8] = b"event: overview\ndata: ";

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
        "fleet": api.shared.fleet.configured().map(|fleet| fleet.name.to_string()),
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
