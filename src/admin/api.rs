//! The pages of the admin address.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pingora::http::RequestHeader;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::affinity;
use super::answer::{Answer, JSON};
use super::canaries;
use super::control::{Control, Reload, ReloadRequest};
use super::levers;
use super::limits;
use super::login_form;
use super::overview::Overview;
use super::prices;
use super::sessions::Sessions;
use super::static_files::{self, File};
use super::upstreams;
use crate::config::Settings;
use crate::policy::canary::Command;
use crate::policy::levers::Command as LeverCommand;
use crate::proxy::Shared;
use crate::telemetry::live::history::By;
use crate::telemetry::sampler;

/// How long `POST /api/reload` waits for a reload before it answers 503.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(10);

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    Live,
    /// A part of the live view, or of the login form.
    File(&'static File),
    Login,
    Logout,
    Metrics,
    /// The process runs.
    Healthy,
    /// It can serve.
    Ready,
    Streams,
    /// The live view's feed.
    Events,
    /// The last 24 hours.
    History,
    Upstreams,
    /// Where a session lives.
    Affinity,
    Limits,
    /// Whose prices count.
    Prices,
    Canaries,
    /// Something is to be done about one.
    Canary(Command),
    /// What is out of service by hand.
    Levers,
    /// Something is to be taken out, or put back.
    Lever(LeverCommand),
    Config,
    Reload,
}

impl Page {
    pub(super) fn find(path: &str) -> Option<Self> {
        Some(match path {
            "/" => Self::Live,
            "/login" => Self::Login,
            "/logout" => Self::Logout,
            "/metrics" => Self::Metrics,
            "/healthz" => Self::Healthy,
            "/readyz" => Self::Ready,
            "/api/streams" => Self::Streams,
            "/api/streams/events" => Self::Events,
            "/api/history" => Self::History,
            "/api/upstreams" => Self::Upstreams,
            "/api/affinity" => Self::Affinity,
            "/api/limits" => Self::Limits,
            "/api/prices" => Self::Prices,
            "/api/config" => Self::Config,
            "/api/reload" => Self::Reload,
            "/api/canaries" => Self::Canaries,
            "/api/levers" => Self::Levers,
            _ => {
                return File::find(path)
                    .map(Self::File)
                    .or_else(|| canaries::command(path).map(Self::Canary))
                    .or_else(|| levers::command(path).map(Self::Lever));
            }
        })
    }

    /// Asked for without a token, from everywhere: monitoring needs it, or whoever is about to log in, and it tells no secret.
    pub(super) fn is_public(self) -> bool {
        match self {
            Self::Metrics | Self::Healthy | Self::Ready | Self::Login | Self::Logout => true,
            Self::File(file) => file.is_public(),
            _ => false,
        }
    }

    /// What a machine looks at again and again.
    pub(super) fn is_monitoring(self) -> bool {
        matches!(self, Self::Metrics | Self::Healthy | Self::Ready)
    }

    /// It is a POST.
    pub(super) fn changes(self) -> bool {
        matches!(self, Self::Reload | Self::Canary(_) | Self::Lever(_) | Self::Login | Self::Logout)
    }
}

/// Answers for the pages.
pub(super) struct Api {
    pub(super) shared: Arc<Shared>,
    pub(super) control: Control,
    pub(super) sessions: Sessions,
    pub(super) overview: Overview,
}

impl Api {
    /// Answers somebody who may ask; `peer` is where it comes from.
    pub(super) async fn answer(&self, page: Page, head: &RequestHeader, body: &[u8], peer: Option<IpAddr>) -> Answer {
        match page {
            Page::Live if !static_files::takes_html(head) => static_files::list(),
            Page::Live => static_files::live(self.has_session(head)),
            Page::File(file) => file.answer(),
            Page::Login => {
                let generation = self.shared.generation.load();
                login_form::enter(&self.sessions, generation.settings.server.admin_token.as_ref(), head, body)
            }
            Page::Logout => login_form::leave(&self.sessions, head),
            // Served where it can be written bit by bit.
            Page::Events => Answer::error(500, "the feed is not an answer in one piece"),
            Page::Metrics => self.metrics(head),
            Page::Healthy => Answer::json(200, &json!({ "status": "ok" })),
            Page::Ready => self.ready(head.uri.query().unwrap_or("")),
            Page::Streams => Answer::new(JSON, self.shared.telemetry.live().json()),
            Page::History => self.history(head.uri.query().unwrap_or("")),
            Page::Upstreams => Answer::json(200, &json!({ "upstreams": upstreams::view(&self.shared) })),
            Page::Affinity => affinity::answer(&self.shared, head.uri.query().unwrap_or("")),
            Page::Limits => self.limits(head.uri.query().unwrap_or("")).await,
            Page::Prices => Answer::json(200, &prices::view(&self.shared)),
            Page::Canaries => Answer::json(200, &canaries::list(&self.shared)),
            Page::Canary(command) => canaries::obey(&self.shared, command, head.uri.path()).await,
            Page::Levers => Answer::json(200, &levers::list(&self.shared)),
            Page::Lever(command) => {
                levers::obey(&self.shared, command, head.uri.query().unwrap_or(""), self.who(head, peer))
            }
            Page::Config => self.config(),
            Page::Reload => self.reload(head.uri.query().unwrap_or("")).await,
        }
    }

    fn history(&self, query: &str) -> Answer {
        let asked = query.split('&').find_map(|pair| pair.strip_prefix("by=")).unwrap_or("route");
        match By::read(asked) {
            Some(by) => Answer::new(JSON, self.shared.telemetry.live().history().json(by, SystemTime::now())),
            None => Answer::error(400, "by is one of route, upstream, all"),
        }
    }

    fn metrics(&self, head: &RequestHeader) -> Answer {
        let accept = head.headers.get("accept").and_then(|value| value.to_str().ok());
        let metrics = self.shared.telemetry.metrics();
        levers::tell(&self.shared, metrics);
        limits::tell(&self.shared, metrics);
        canaries::tell(&self.shared, metrics);
        let (content_type, body) = metrics.encode(accept);
        Answer::new(content_type, body)
    }

    /// `self` asks for this process alone: where all replicas have the same upstreams, taking every replica out because those
    /// are down turns an answer that says so into a connection that nobody accepts.
    fn ready(&self, query: &str) -> Answer {
        let itself_alone = query.split('&').any(|name| name == "self");
        let mut reasons = Vec::new();
        if self.shared.drain.is_draining() {
            reasons.push("draining");
        }
        if !itself_alone && !self.shared.any_endpoint_up() {
            reasons.push("no endpoint of any upstream is up");
        }
        let status = if reasons.is_empty() { 200 } else { 503 };
        Answer::json(status, &json!({ "ready": reasons.is_empty(), "reasons": reasons }))
    }

    /// Whether a cookie of the request names a session that is not over.
    pub(super) fn has_session(&self, head: &RequestHeader) -> bool {
        let generation = self.shared.generation.load();
        let token = generation.settings.server.admin_token.as_ref();
        token.is_some_and(|token| self.sessions.knows(&login_form::cookies(head), token, Instant::now()))
    }

    /// Who asks, as far as is known: where from, and by what it was let in.
    fn who(&self, head: &RequestHeader, peer: Option<IpAddr>) -> String {
        let place = peer.map_or_else(|| "the unix socket".to_owned(), |peer| peer.to_string());
        let by = if self.has_session(head) {
            "logged in by a browser"
        } else if head.headers.contains_key("authorization") {
            "with the admin token"
        } else {
            "without a token"
        };
        format!("{place}, {by}")
    }

    async fn limits(&self, query: &str) -> Answer {
        match limits::view(&self.shared, query).await {
            Ok(view) => Answer::json(200, &view),
            Err(message) => Answer::error(400, message),
        }
    }

    fn config(&self) -> Answer {
        let generation = self.shared.generation.load();
        let status = self.control.status.load();
        Answer::json(
            200,
            &json!({
                "generation": generation.number,
                "installed_unix_s": status.installed.and_then(unix_s),
                "last_error": if status.last_error.is_empty() { Value::Null } else { json!(status.last_error.join("\n")) },
                "needs_restart": status.needs_restart,
                "identity_keys_age_s": generation.keys_age().map(|age| age.as_secs()),
                "settings": in_effect(&generation.settings),
            }),
        )
    }

    async fn reload(&self, query: &str) -> Answer {
        let force = query.split('&').any(|pair| pair == "force=true");
        let (answer, ended) = oneshot::channel();
        // Never waits for a place: a queue of reloads would only do the same work again.
        if self.control.reloads.try_send(ReloadRequest { force, answer }).is_err() {
            return Answer::error(503, "a reload is under way already, try again").with("retry-after", "1");
        }
        match tokio::time::timeout(RELOAD_TIMEOUT, ended).await {
            Ok(Ok(reload)) => reload_answer(&reload),
            Ok(Err(_)) | Err(_) => Answer::error(503, "the reload did not end in time; /api/config tells how it ended"),
        }
    }
}

/// By the names and the words of the file, secrets masked.
fn in_effect(settings: &Settings) -> Value {
    let mut shown = serde_json::to_value(settings).unwrap_or_else(|error| json!({ "error": error.to_string() }));
    // Where the file says nothing, the environment may.
    if let Some(ratio) = shown.pointer_mut("/telemetry/sample_ratio") {
        *ratio = json!(sampler::ratio(settings.telemetry.sample_ratio));
    }
    shown
}

fn reload_answer(reload: &Reload) -> Answer {
    match reload {
        Reload::Installed { generation } => {
            Answer::json(200, &json!({ "result": "installed", "generation": generation }))
        }
        Reload::Unchanged { generation } => {
            Answer::json(200, &json!({ "result": "unchanged", "generation": generation }))
        }
        Reload::Failed { problems } => Answer::json(
            422,
            &json!({ "result": "failed", "error": "the last good configuration stays", "problems": problems }),
        ),
        Reload::Refused { reason } => Answer::json(
            409,
            &json!({ "result": "refused", "error": format!("{reason}. POST /api/reload?force=true takes it all the same") }),
        ),
        Reload::NoFile => {
            Answer::error(409, "there is no file to read: the configuration came from the command line (--upstream)")
        }
    }
}

fn unix_s(time: SystemTime) -> Option<f64> {
    time.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs_f64())
}
