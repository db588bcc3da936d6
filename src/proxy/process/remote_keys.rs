//! The keys of a token issuer, fetched from its URL in the background. No request ever waits for them: the last good set
//! counts until a newer one is there.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use pingora::http::RequestHeader;
use pingora::protocols::http::client::HttpSession;
use pingora::upstreams::peer::HttpPeer;
use tokio::time::Instant;

use crate::config::Settings;
use crate::config::address::{Endpoint, EndpointAddress};
use crate::config::identity::{JwtKeys, KeySet};
use crate::proxy::endpoints::connector::Connectors;
use crate::telemetry::Metrics;
use crate::telemetry::record::ErrorType;

/// How long a set counts as fresh.
const REFRESH: Duration = Duration::from_secs(600);

/// How soon a fetch that failed is tried again.
const RETRY: Duration = Duration::from_secs(15);

/// Unknown keys make us fetch at most so often: anyone may send a token that names one.
const ASKED_GAP: Duration = Duration::from_secs(10);

/// For one fetch as a whole.
const PATIENCE: Duration = Duration::from_secs(3);

/// Largest answer that is taken, in bytes.
const ANSWER_MAX: usize = 256 << 10;

/// Addresses of the issuer's name that are tried.
const ADDRESSES_MAX: usize = 4;

/// An issuer's keys, and when to fetch them next.
pub struct RemoteKeys {
    url: Endpoint,
    current: ArcSwapOption<KeySet>,
    schedule: Mutex<Schedule>,
}

struct Schedule {
    next: Instant,
    /// When the current set was last found to be good.
    fetched: Option<Instant>,
    /// When an unknown key last made us fetch.
    asked: Option<Instant>,
}

impl RemoteKeys {
    /// What `settings` ask for; that of before where the address is the same.
    pub(crate) fn follow(settings: &Settings, previous: Option<&Arc<Self>>) -> Option<Arc<Self>> {
        let JwtKeys::Url(url) = &settings.identity.as_ref()?.jwt.as_ref()?.keys else { return None };
        match previous {
            Some(kept) if kept.url == *url => Some(Arc::clone(kept)),
            _ => Some(Arc::new(Self::new(url.clone()))),
        }
    }

    fn new(url: Endpoint) -> Self {
        let schedule = Mutex::new(Schedule { next: Instant::now(), fetched: None, asked: None });
        Self { url, current: ArcSwapOption::empty(), schedule }
    }

    /// The last good set; `None` before there was one.
    pub(crate) fn current(&self) -> Option<Arc<KeySet>> {
        self.current.load_full()
    }

    /// How long ago the last good set was fetched; `None` before there was one.
    pub fn age(&self) -> Option<Duration> {
        let schedule = self.schedule.lock();
        schedule.fetched.map(|fetched| fetched.elapsed())
    }

    /// Somebody needs newer keys. Returns whether they will be fetched at once.
    pub(crate) fn ask_for_newer(&self) -> bool {
        let now = Instant::now();
        let mut schedule = self.schedule.lock();
        if schedule.asked.is_some_and(|asked| now < asked + ASKED_GAP) {
            return false;
        }
        (schedule.asked, schedule.next) = (Some(now), now);
        true
    }

    pub(crate) fn due_in(&self) -> Duration {
        let schedule = self.schedule.lock();
        schedule.next.saturating_duration_since(Instant::now())
    }

    /// Fetches the keys, and takes them over where they are good.
    pub(crate) async fn fetch(&self, connector: &Connectors, metrics: &Metrics) {
        let fetched = match tokio::time::timeout(PATIENCE, download(connector, &self.url)).await {
            Ok(answer) => answer.and_then(|body| KeySet::parse(&body)),
            Err(_) => Err(format!("did not answer within {PATIENCE:?}")),
        };
        let is_good = fetched.is_ok();
        metrics.keys_fetched(is_good);
        let next = match fetched {
            Ok(keys) => {
                self.take_over(keys);
                REFRESH
            }
            Err(reason) => {
                let url = self.shown();
                let kept = self.current.load().as_ref().map_or(0, |keys| keys.count());
                tracing::warn!(event = "identity.keys_failed", url, reason, kept, "cannot fetch the keys of tokens");
                RETRY
            }
        };
        let mut schedule = self.schedule.lock();
        let now = Instant::now();
        schedule.next = now + next;
        schedule.fetched = if is_good { Some(now) } else { schedule.fetched };
    }

    fn take_over(&self, keys: KeySet) {
        if self.current.load().as_deref() != Some(&keys) {
            let (url, count) = (self.shown(), keys.count());
            tracing::info!(event = "identity.keys_fetched", url, count, "the keys of tokens are in effect");
            self.current.store(Some(Arc::new(keys)));
        }
    }

    fn shown(&self) -> String {
        format!("{}{}", self.url.authority, self.url.base_path)
    }
}

async fn download(connector: &Connectors, url: &Endpoint) -> Result<Vec<u8>, String> {
    let mut session = connect(connector, url).await?;
    let body = exchange(&mut session, url).await;
    // One request in minutes: the connection is not worth keeping.
    session.shutdown().await;
    body
}

async fn connect(connector: &Connectors, url: &Endpoint) -> Result<HttpSession, String> {
    let EndpointAddress::Tcp { host, port } = &url.address else {
        return Err("is no address to fetch from".to_owned());
    };
    let found = tokio::net::lookup_host((host.as_str(), *port)).await;
    let addresses: Vec<SocketAddr> =
        found.map_err(|error| format!("cannot be resolved: {error}"))?.take(ADDRESSES_MAX).collect();
    let mut last = "has no address".to_owned();
    for address in addresses {
        // Without options it is HTTP/1.1, and over TLS the certificate is verified.
        let peer = HttpPeer::new(address, url.tls, host.trim_matches(['[', ']']).to_owned());
        match connector.fresh(&peer).await {
            Ok(session) => return Ok(session),
            Err(error) if error.error == ErrorType::TlsFailed => {
                last = format!("its TLS handshake failed: {}", error.cause)
            }
            Err(error) => last = format!("cannot be connected to: {}", error.cause),
        }
    }
    Err(last)
}

async fn exchange(session: &mut HttpSession, url: &Endpoint) -> Result<Vec<u8>, String> {
    let broken = |error: Box<pingora::Error>| format!("broke off: {}", error.etype().as_str());
    session.write_request_header(Box::new(request(url).map_err(broken)?)).await.map_err(broken)?;
    session.finish_request_body().await.map_err(broken)?;
    let status = loop {
        session.read_response_header().await.map_err(broken)?;
        match session.response_header() {
            Some(head) if head.status.is_informational() => {}
            Some(head) => break head.status.as_u16(),
            None => return Err("sent no answer".to_owned()),
        }
    };
    if status != 200 {
        return Err(format!("answered with status {status}, not 200 (redirects are not followed)"));
    }
    let mut body = Vec::new();
    while let Some(chunk) = session.read_response_body().await.map_err(broken)? {
        body.extend_from_slice(&chunk);
        if body.len() > ANSWER_MAX {
            return Err(format!("sent more than {ANSWER_MAX} bytes"));
        }
    }
    Ok(body)
}

fn request(url: &Endpoint) -> pingora::Result<RequestHeader> {
    let path = if url.base_path.is_empty() { "/" } else { &url.base_path };
    let mut head = RequestHeader::build("GET", path.as_bytes(), Some(3))?;
    head.insert_header("host", url.authority.as_str())?;
    head.insert_header("accept", "application/json")?;
    head.insert_header("user-agent", "streamgauge")?;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn unknown_keys_make_us_fetch_at_a_bounded_pace() {
        let keys = RemoteKeys::new("http://127.0.0.1:1/keys".parse().unwrap());
        assert!(keys.due_in().is_zero(), "at once in the beginning");
        keys.schedule.lock().next = Instant::now() + REFRESH;
        assert_eq!(keys.due_in(), REFRESH);
        assert!(keys.ask_for_newer());
        assert!(keys.due_in().is_zero());
        keys.schedule.lock().next = Instant::now() + REFRESH;
        tokio::time::advance(ASKED_GAP - Duration::from_millis(1)).await;
        assert!(!keys.ask_for_newer() && !keys.due_in().is_zero());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(keys.ask_for_newer());
    }

    #[test]
    fn a_reload_keeps_what_was_fetched_from_the_same_address() {
        let settings = |url: &str| {
            let text = format!("[identity.jwt]\njwks_url = \"{url}\"\n[[upstream]]\nurl = \"http://h\"\n");
            crate::config::parse(&text, "t.toml", &|_| None, &|_| Err(std::io::ErrorKind::NotFound.into())).unwrap()
        };
        let first = RemoteKeys::follow(&settings("https://a.example/keys"), None).unwrap();
        let same = RemoteKeys::follow(&settings("https://a.example/keys"), Some(&first)).unwrap();
        assert!(Arc::ptr_eq(&first, &same));
        let other = RemoteKeys::follow(&settings("https://b.example/keys"), Some(&first)).unwrap();
        assert!(!Arc::ptr_eq(&first, &other));
        assert!(RemoteKeys::follow(&crate::config::for_upstream("http://h").unwrap(), Some(&first)).is_none());
    }
}
