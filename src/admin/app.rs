//! Speaks HTTP/1.1 on the admin address. Everything is bounded: nobody may hold it up.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use http::Method;
use pingora::ErrorType as PingoraError;
use pingora::apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream};
use pingora::http::RequestHeader;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;

use super::access::{Access, AccessRequest, Came, Denial};
use super::answer::Answer;
use super::api::Api;
use super::connection_slots::{ConnectionSlots, Slot};
use super::control::Control;
use super::failed_logins::Logins;
use super::fleet::feed::Feeds;
use super::fleet::peers::Absences;
use super::fleet::signed;
use super::live_feed;
use super::login_form;
use super::overview::Overview;
use super::pages::Page;
use super::sessions::Sessions;
use super::static_files;
use crate::proxy::Shared;

/// How often it is looked whether a connection that says nothing should go.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// A whole request body must come within this.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// Only the login form's body matters; any is read up to this many bytes.
const BODY_MAX: usize = 64 * 1024;

/// A client that takes no byte of an answer for so long is given up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// The application on the admin address.
pub struct AdminApp {
    api: Api,
    /// Only this machine can reach the address.
    local: bool,
    places: ConnectionSlots,
    logins: Logins,
}

impl AdminApp {
    /// `local`: the address is loopback or a unix socket, so that no token is asked for.
    pub fn new(shared: Arc<Shared>, control: Control, local: bool) -> Self {
        let (sessions, overview) = (Sessions::default(), Overview::default());
        let (absences, feeds) = (Absences::default(), Feeds::default());
        let api = Api { shared, control, sessions, overview, absences, feeds };
        Self { api, local, places: ConnectionSlots::default(), logins: Logins::default() }
    }

    /// Decides on one request whose head has come, and answers it; `None` when that was written already.
    async fn answer(
        &self,
        session: &mut ServerSession,
        shutdown: &ShutdownWatch,
        only_monitoring: bool,
    ) -> Option<Answer> {
        let address = address(session);
        let came = Came { address, at: local_address(session), time: since_1970() };
        let page = match self.admit(session.req_header(), &came) {
            Ok(page) => page,
            Err(answer) => return Some(answer),
        };
        if only_monitoring && !page.is_monitoring() {
            session.set_keepalive(None);
            let message =
                "the admin address has too many connections: close some, only health and metrics are answered";
            return Some(Answer::error(503, message).with("retry-after", "2"));
        }
        let body = match tokio::time::timeout(BODY_TIMEOUT, read_body(session)).await {
            Ok(Some(body)) => body,
            Ok(None) => {
                session.set_keepalive(None);
                return Some(Answer::error(413, "send no body here"));
            }
            Err(_) => {
                session.set_keepalive(None);
                return Some(Answer::error(408, "the request body did not come in time"));
            }
        };
        if page == Page::Events {
            // A signature is good for the feed that was opened with it.
            let may_look = |session: &ServerSession| self.check(session.req_header(), page, &came).is_ok();
            return live_feed::serve(&self.api, session, shutdown, may_look).await.err();
        }
        let answer = self.api.answer(page, session.req_header(), &body, address).await;
        if page == Page::Login {
            match answer.status {
                401 => self.logins.failed(address, self.api.shared.telemetry.metrics()),
                303 => self.logins.succeeded(address),
                _ => {}
            }
        }
        Some(answer)
    }

    /// Which page is asked for, by somebody who may.
    fn admit(&self, head: &RequestHeader, came: &Came) -> Result<Page, Answer> {
        let Some(page) = Page::find(head.uri.path()) else {
            return Err(Answer::error(404, "there is no such page. GET / lists what there is"));
        };
        if let Err(denial) = self.check(head, page, came) {
            if denial == Denial::TooManyTries {
                let left = self.logins.may_try(came.address).err().unwrap_or_default();
                let answer = Answer::error(denial.status(), denial.message());
                return Err(answer.with("retry-after", (left.as_secs() + 1).to_string()));
            }
            if page == Page::Live && denial == Denial::NoToken && static_files::takes_html(head) {
                return Err(login_form::form(""));
            }
            let answer = Answer::error(denial.status(), denial.message());
            let asks = matches!(denial, Denial::NoToken | Denial::WrongToken);
            return Err(if asks { answer.with("www-authenticate", "Bearer") } else { answer });
        }
        if !allows(page, &head.method) {
            let (allow, message) =
                if page.changes() { ("POST", "use POST here") } else { ("GET, HEAD", "use GET here") };
            return Err(Answer::error(405, message).with("allow", allow));
        }
        Ok(page)
    }

    /// Whether the request may be answered; a wrong token is remembered.
    fn check(&self, head: &RequestHeader, page: Page, came: &Came) -> Result<(), Denial> {
        let address = came.address;
        let tries = !self.local
            && (page == Page::Login || !page.is_public() && head.headers.contains_key("authorization"))
            && !signed::is_signed(head);
        if tries && self.logins.may_try(address).is_err() {
            return Err(Denial::TooManyTries);
        }
        let checked = self.check_head(head, page, came);
        match checked {
            Err(Denial::WrongToken) => self.logins.failed(address, self.api.shared.telemetry.metrics()),
            Ok(()) if tries && page != Page::Login => self.logins.succeeded(address),
            _ => {}
        }
        checked
    }

    fn check_head(&self, head: &RequestHeader, page: Page, came: &Came) -> Result<(), Denial> {
        let generation = self.api.shared.generation.load();
        let hosts: Vec<&[u8]> = head.headers.get_all("host").iter().map(|value| value.as_bytes()).collect();
        let header = |name: &str| head.headers.get(name).map(|value| value.as_bytes());
        Access { local: self.local, token: generation.settings.server.admin_token.as_ref() }.check(&AccessRequest {
            hosts: &hosts,
            origin: header("origin"),
            site: header("sec-fetch-site"),
            navigates: header("sec-fetch-mode") == Some(b"navigate") && header("sec-fetch-dest") == Some(b"document"),
            authorization: header("authorization"),
            signed: signed::check(&self.api.shared, head, page, came),
            session: self.api.has_session(head),
            changes: page.changes(),
            public: page.is_public(),
        })
    }
}

#[async_trait]
impl HttpServerApp for AdminApp {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let place = self.places.enter(address(&session))?;
        session.set_write_timeout(Some(WRITE_TIMEOUT));
        let answer = match read_head(&mut session, &place).await {
            Some(Ok(true)) => self.answer(&mut session, shutdown, place.kept).await?,
            Some(Err(error)) if *error.etype() == PingoraError::InvalidHTTPHeader => {
                session.set_keepalive(None);
                let answer = Answer::error(400, "this is not valid HTTP");
                // Whoever sends that may be gone already.
                let _ = write(&mut session, &answer, false).await;
                return None;
            }
            // Gone, silent or too slow.
            Some(Ok(false) | Err(_)) | None => return None,
        };
        if *shutdown.borrow() || place.kept {
            session.set_keepalive(None);
        }
        let head_only = session.req_header().method == Method::HEAD;
        write(&mut session, &answer, head_only).await.ok()?;
        let settings = HttpPersistentSettings::for_session(&session);
        let stream = session.finish().await.ok().flatten()?;
        Some(ReusedHttpStream::from_reusable_stream(stream, settings))
    }
}

fn local_address(session: &ServerSession) -> Option<SocketAddr> {
    session.server_addr().and_then(|address| address.as_inet().copied())
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The connection's other end; `None` on a unix socket.
fn address(session: &ServerSession) -> Option<IpAddr> {
    session.client_addr().and_then(|address| Some(address.as_inet()?.ip()))
}

/// Reads a head; `None` when it did not come in the time that there is, which is less while places are wanted.
async fn read_head(session: &mut ServerSession, place: &Slot<'_>) -> Option<pingora::Result<bool>> {
    let began = Instant::now();
    let mut read = std::pin::pin!(session.read_request());
    loop {
        tokio::select! {
            biased;
            read = &mut read => return Some(read),
            () = tokio::time::sleep(LOOK_AGAIN) => if began.elapsed() >= place.patience() {
                return None;
            },
        }
    }
}

async fn write(session: &mut ServerSession, answer: &Answer, head_only: bool) -> pingora::Result<()> {
    session.write_response_header(Box::new(answer.head()?)).await?;
    if !head_only && !answer.body.is_empty() {
        session.write_response_body(answer.body.clone(), true).await?;
    }
    Ok(())
}

/// Reads the body to its end; `None` when it is too large or broken.
async fn read_body(session: &mut ServerSession) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        match session.read_request_body().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Some(body),
            Err(_) => return None,
        }
        if body.len() > BODY_MAX {
            return None;
        }
    }
}

fn allows(page: Page, method: &Method) -> bool {
    if page.changes() { *method == Method::POST } else { *method == Method::GET || *method == Method::HEAD }
}
