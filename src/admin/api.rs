//! What is answered on the pages of the admin address.

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
use super::fleet::feed::Feeds;
use super::fleet::peers::{self, Absences};
use super::fleet::{ask, merge, signed, view};
use super::levers;
use super::limits::{self, with};
use super::login_form;
use super::overview::Overview;
use super::pages::Page;
use super::prices;
use super::sessions::Sessions;
use super::static_files;
use super::upstreams;
use crate::config::Settings;
use crate::proxy::Shared;
use crate::telemetry::live::history::By;
use crate::telemetry::sampler;

/// What another replica is told at most, in bytes: with room for what differs.
pub(super) const FOR_REPLICA_MAX: usize = ask::ANSWER_MAX - (4 << 10);

/// A replica that was asked by another one asks nobody.
pub(super) const ONE_HOP: &str = "a replica that is asked by another one answers for itself: ask without `fleet`";

/// How long `POST /api/reload` waits for a reload before it answers 503.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Answers for the pages.
pub(super) struct Api {
    pub(super) shared: Arc<Shared>,
    pub(super) control: Control,
    pub(super) sessions: Sessions,
    pub(super) overview: Overview,
    pub(super) absences: Absences,
    pub(super) feeds: Feeds,
}

impl Api {
    /// Answers somebody who may ask; `peer` is where it comes from.
    pub(super) async fn answer(&self, page: Page, head: &RequestHeader, body: &[u8], peer: Option<IpAddr>) -> Answer {
        let query = head.uri.query().unwrap_or("");
        if signed::is_signed(head) {
            return self.for_replica(page, query).await;
        }
        if is_of_fleet(query) && page != Page::Fleet {
            return self.of_fleet(page, head.uri.path(), query).await;
        }
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
            Page::Ready => self.ready(query),
            Page::Streams | Page::History | Page::Upstreams | Page::Limits | Page::Canaries | Page::Levers => {
                self.view(page, query).await
            }
            Page::Fleet => view::answer(&self.shared, &self.absences).await,
            Page::Affinity => affinity::answer(&self.shared, query),
            Page::Prices => Answer::json(200, &prices::view(&self.shared)),
            Page::Canary(command) => canaries::obey(&self.shared, command, head.uri.path()).await,
            Page::Lever(command) => levers::obey(&self.shared, command, query, self.who(head, peer)),
            Page::Config => self.config(),
            Page::Reload => self.reload(query).await,
        }
    }

    /// What this replica shows.
    async fn view(&self, page: Page, query: &str) -> Answer {
        match page {
            Page::Streams => Answer::new(JSON, self.shared.telemetry.live().json()),
            Page::History => self.history(query),
            Page::Upstreams => Answer::json(200, &json!({ "upstreams": upstreams::view(&self.shared) })),
            Page::Limits => self.limits(query).await,
            Page::Canaries => Answer::json(200, &canaries::list(&self.shared)),
            Page::Levers => Answer::json(200, &levers::list(&self.shared)),
            _ => Answer::error(
                400,
                "`?fleet` is for /api/streams and its feed, /api/history, /api/upstreams, /api/limits, /api/canaries and /api/levers",
            ),
        }
    }

    /// What all replicas show.
    async fn of_fleet(&self, page: Page, path: &str, query: &str) -> Answer {
        let fleet = match peers::askable(&self.shared) {
            Ok(fleet) => fleet,
            Err(message) => return Answer::error(409, message),
        };
        let alone: Vec<&str> = query.split('&').filter(|pair| !is_of_fleet(pair)).collect();
        let alone = alone.join("&");
        let own = self.view(page, &alone).await;
        let (Some(lists), 200, Ok(view)) = (merge::lists(page), own.status, serde_json::from_slice(&own.body)) else {
            return own;
        };
        let path = if alone.is_empty() { path.to_owned() } else { format!("{path}?{alone}") };
        let mut told = self.absences.ask_all(&self.shared, &fleet, &path).await;
        let report = peers::report(&self.shared, &fleet, &told);
        let others = told.iter_mut().filter_map(|told| told.answer.as_mut().ok());
        let others = others.map(|reply| (reply.replica.clone(), reply.body.take()));
        let views = std::iter::once((self.shared.fleet.owner.to_string(), view)).chain(others).collect();
        Answer::json(200, &with(merge::merged(lists, views), json!({ "fleet": report })))
    }

    /// What another replica is told: of this one alone, and no more than that takes.
    async fn for_replica(&self, page: Page, query: &str) -> Answer {
        let answer = if is_of_fleet(query) {
            Answer::error(400, ONE_HOP)
        } else if page == Page::Fleet {
            Answer::json(200, &view::itself(&self.shared))
        } else {
            let own = self.view(page, query).await;
            match (merge::lists(page), serde_json::from_slice::<Value>(&own.body)) {
                (Some(lists), Ok(view)) if own.body.len() > FOR_REPLICA_MAX => {
                    Answer::json(own.status, &merge::fit(view, lists, FOR_REPLICA_MAX))
                }
                _ => own,
            }
        };
        answer.with(ask::REPLICA, &*self.shared.fleet.owner)
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

/// Whether a query asks for all replicas.
pub(super) fn is_of_fleet(query: &str) -> bool {
    query.split('&').any(|pair| matches!(pair, "fleet" | "fleet=" | "fleet=true"))
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
