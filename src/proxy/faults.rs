//! What went wrong between us and an upstream, and the words for it.

use std::sync::Arc;
use std::time::Duration;

use pingora::ErrorType as Kind;
use pingora::http::ResponseHeader;

use super::reject::Rejection;
use crate::config::settings::{Endpoint, EndpointAddress};
use crate::policy::failover::Stage;
use crate::telemetry::record::ErrorType;

/// What went wrong before there was an answer.
pub(super) struct Fault {
    pub(super) stage: Stage,
    /// A kept connection was closed under the request, before any byte of an answer.
    pub(super) raced: bool,
    pub(super) error: ErrorType,
}

/// What a failure after the connection stood means.
pub(super) fn fault(error: &pingora::Error, reused: bool) -> Fault {
    let protocol = [Kind::InvalidHTTPHeader, Kind::HTTPStatus(0), Kind::H2Error, Kind::InvalidH2];
    if protocol.contains(error.etype()) && !error.retry() {
        return Fault { stage: Stage::Sent, raced: false, error: ErrorType::UpstreamProtocol };
    }
    let raced = reused && matches!(error.retry, pingora::RetryType::ReusedOnly | pingora::RetryType::Decided(true));
    Fault { stage: Stage::Sent, raced, error: ErrorType::UpstreamReset }
}

/// `Retry-After` in seconds; as a date it is left to the client.
pub(super) fn retry_after(head: &ResponseHeader) -> Option<Duration> {
    let seconds = head.headers.get("retry-after")?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Which kind of failure to connect this is.
pub(super) fn connect_error(error: &pingora::Error) -> ErrorType {
    match error.etype() {
        Kind::ConnectRefused => ErrorType::ConnectRefused,
        Kind::ConnectTimedout => ErrorType::ConnectTimeout,
        Kind::TLSHandshakeFailure
        | Kind::TLSHandshakeTimedout
        | Kind::InvalidCert
        | Kind::HandshakeError
        | Kind::TLSWantX509Lookup => ErrorType::TlsFailed,
        _ => ErrorType::ConnectFailed,
    }
}

/// `server.address` and `server.port` of an endpoint.
pub(super) fn server_address(endpoint: &Endpoint) -> (Arc<str>, Option<u16>) {
    match &endpoint.address {
        EndpointAddress::Tcp { host, port } => (Arc::from(host.as_str()), Some(*port)),
        EndpointAddress::Unix(path) => (Arc::from(path.to_string_lossy()), None),
    }
}

/// What the client is told of a failed attempt.
pub(super) fn rejection(error: ErrorType, upstream: &str, endpoint: &Endpoint) -> Rejection {
    let at = &endpoint.authority;
    let (what, hint) = match error {
        ErrorType::ConnectRefused => ("refused the connection", "Is it running there?"),
        ErrorType::ConnectTimeout => ("did not accept a connection in time", "Is its address right?"),
        ErrorType::TlsFailed => ("failed the TLS handshake", "Check its certificate, and `ca` of the upstream."),
        ErrorType::UpstreamReset => ("closed the connection without an answer", "Look into its log."),
        ErrorType::UpstreamBodyReset | ErrorType::MissingEnd => {
            ("broke off its answer before the first token", "Look into its log.")
        }
        ErrorType::UpstreamProtocol => ("sent an answer that is not valid HTTP", "Look into its log."),
        ErrorType::FirstTokenTimeout => ("did not answer in time", "Is it overloaded? See `timeouts.first_token`."),
        ErrorType::TotalTimeout => ("did not answer in time", "See `timeouts.total`."),
        _ => ("could not be reached", "Check its url."),
    };
    let message = format!("Upstream `{upstream}` ({at}) {what}. {hint}");
    match error {
        ErrorType::FirstTokenTimeout | ErrorType::TotalTimeout => Rejection::timeout(error, message),
        _ => Rejection::upstream(error, message),
    }
}
