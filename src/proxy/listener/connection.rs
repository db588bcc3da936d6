//! New connections of a listener: how many may come in, and which HTTP they speak.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora::server::ShutdownWatch;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::request_head::{self, FIRST_HEAD_DUE};
use crate::policy::trusted_proxies;
use crate::proxy::client::error_answer;
use crate::proxy::process::concurrency::{AddressPermit, Permit};
use crate::proxy::process::state::Shared;
use crate::proxy::request::rejection::Rejection;
use crate::telemetry::metrics::Full;
use crate::telemetry::record::ErrorType;

/// How an HTTP/2 connection with prior knowledge begins (RFC 9113, section 3.4).
const H2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The preface's first bytes. No HTTP/1 request is shorter or begins like it, so that these can be waited for.
const PREFACE_START: usize = 4;

/// Streams that one HTTP/2 connection may have open at once: a frontend server shares one connection among many users.
const H2_CLIENT_STREAMS_MAX: u32 = 1_000;

/// Flow-control window of one request body.
const H2_STREAM_WINDOW: u32 = 256 * 1024;

/// Flow-control window of all request bodies of a connection.
const H2_CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// An HTTP/2 connection without a stream is closed after this long.
const H2_IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// The entrance for connections of one listener.
pub struct ProxyApp {
    shared: Arc<Shared>,
    http1_or_alpn: Arc<HttpApp>,
    h2_prior_knowledge: Arc<HttpApp>,
    /// Built once: a flood of connections must cost little.
    all_full: Bytes,
    address_full: Bytes,
}

impl ProxyApp {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self {
            http1_or_alpn: Arc::new(HttpApp::new(&shared, false)),
            h2_prior_knowledge: Arc::new(HttpApp::new(&shared, true)),
            all_full: turned_away(
                "Too many connections are open. Try again in a second, or have `server.max_connections` raised.",
            ),
            address_full: turned_away(
                "Too many connections from this address are open. Close some; a proxy before many clients belongs into \
                 `server.trusted_proxies`, or have `server.address_share` raised.",
            ),
            shared,
        }
    }
}

fn turned_away(message: &'static str) -> Bytes {
    error_answer::unasked(&Rejection::overloaded(ErrorType::Overloaded, message))
}

#[async_trait]
impl ServerApp for ProxyApp {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let app = Arc::clone(self);
        let shutdown = shutdown.clone();
        // pingora's task keeps the room of a TLS handshake, 8 KiB, for as long as it runs: a task of our own does not.
        tokio::spawn(async move { app.serve(stream, &shutdown).await });
        None
    }
}

impl ProxyApp {
    async fn serve(&self, mut stream: Stream, shutdown: &ShutdownWatch) {
        let patience = self.shared.generation.load().settings.server.header_timeout;
        let peer = stream.get_socket_digest().and_then(|digest| Some(digest.peer_addr()?.as_inet()?.ip()));
        let _places = match self.enter(peer) {
            Ok(places) => places,
            Err(full) => {
                self.shared.telemetry.connection_refused(full, peer);
                let answer = if full == Full::All { &self.all_full } else { &self.address_full };
                let write = async {
                    stream.write_all(answer).await?;
                    stream.flush().await
                };
                // Best effort: the client may be gone already.
                let _ = tokio::time::timeout(patience, write).await;
                return;
            }
        };
        let _open = self.shared.telemetry.metrics().connection_open();
        if stream.get_ssl_digest().is_some() {
            self.http1_or_alpn.process_new(stream, shutdown).await;
            return;
        }
        let due = Instant::now() + patience;
        match tokio::time::timeout_at(due, speaks_h2(&mut stream)).await {
            Ok(Some(true)) => {
                drop(FIRST_HEAD_DUE.scope(due, self.h2_prior_knowledge.process_new(stream, shutdown)).await)
            }
            Ok(Some(false)) => FIRST_HEAD_DUE.scope(due, self.serve_http1(stream, shutdown)).await,
            // Gone.
            Ok(None) => {}
            Err(_) => {
                request_head::end_late(&self.shared, Box::new(ServerSession::new_http1(stream)), false, patience).await
            }
        }
    }

    /// A place among all connections, and one among those of the client's address.
    fn enter(&self, peer: Option<IpAddr>) -> Result<(Permit, Option<AddressPermit>), Full> {
        let generation = self.shared.generation.load();
        let server = &generation.settings.server;
        let place = self.shared.connections.enter(server.max_connections).ok_or(Full::All)?;
        let own = match peer.filter(|peer| !trusted_proxies::is_trusted(&server.trusted_proxies, Some(*peer))) {
            None => None,
            Some(peer) => {
                let cap = server.share_of_address(server.max_connections);
                Some(self.shared.connections_by_address.enter(peer, cap).ok_or(Full::Address)?)
            }
        };
        Ok((place, own))
    }

    /// Serves the requests of a connection one after the other. As pingora does it, less the box of 9 KiB for each.
    async fn serve_http1(&self, stream: Stream, shutdown: &ShutdownWatch) {
        let mut session = Box::new(ServerSession::new_http1(stream));
        session.set_keepalive((!*shutdown.borrow()).then_some(request_head::KEEPALIVE_S));
        while let Some(reused) = request_head::serve(&self.shared, session).await {
            let (stream, settings) = reused.consume();
            session = Box::new(ServerSession::new_http1(stream));
            if let Some(settings) = settings {
                settings.apply_to_session(&mut session);
            }
        }
    }
}

/// Whether the connection begins with the HTTP/2 preface; `None` when it ended before that could be told.
async fn speaks_h2(stream: &mut Stream) -> Option<bool> {
    let mut start = [0; PREFACE_START];
    stream.try_peek(&mut start).await.ok()?;
    if !H2_PREFACE.starts_with(&start) {
        return Some(false);
    }
    let mut preface = [0; H2_PREFACE.len()];
    stream.try_peek(&mut preface).await.ok()?;
    Some(&preface == H2_PREFACE)
}

/// Serves the requests of connections whose protocol is known.
struct HttpApp {
    shared: Arc<Shared>,
    options: HttpServerOptions,
}

impl HttpApp {
    fn new(shared: &Arc<Shared>, h2c: bool) -> Self {
        let mut options = HttpServerOptions::default();
        options.h2c = h2c;
        options.h2_idle_timeout = Some(H2_IDLE_TIMEOUT);
        Self { shared: Arc::clone(shared), options }
    }
}

#[async_trait]
impl HttpServerApp for HttpApp {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        _shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        request_head::serve(&self.shared, Box::new(session)).await
    }

    fn h2_options(&self) -> Option<H2Options> {
        let mut options = default_h2_options();
        options.max_concurrent_streams(H2_CLIENT_STREAMS_MAX);
        options.initial_window_size(H2_STREAM_WINDOW);
        options.initial_connection_window_size(H2_CONNECTION_WINDOW);
        Some(options)
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }
}
