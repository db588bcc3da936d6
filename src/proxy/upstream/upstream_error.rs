//! What went wrong between us and an upstream, and the words for it.

use std::time::{Duration, SystemTime};

use pingora::ErrorType as Kind;
use pingora::http::ResponseHeader;

use crate::config::address::Endpoint;
use crate::policy::deadlines::Late;
use crate::policy::failover::Stage;
use crate::proxy::request::rejection::Rejection;
use crate::proxy::request::route::Routed;
use crate::telemetry::record::ErrorType;

/// What went wrong before there was an answer.
pub(crate) struct UpstreamError {
    pub(crate) stage: Stage,
    pub(crate) race: Race,
    pub(crate) error: ErrorType,
    /// In words, where more is known than the error's kind.
    pub(crate) cause: Option<String>,
}

impl UpstreamError {
    /// There was no connection.
    pub(crate) fn unsent(error: ErrorType, cause: Option<String>) -> Self {
        Self { stage: Stage::Unsent, race: Race::None, error, cause }
    }

    /// The request went out.
    pub(crate) fn sent(error: ErrorType, race: Race) -> Self {
        Self { stage: Stage::Sent, race, error, cause: None }
    }
}

/// Whether a kept connection was closed under the request before any byte of an answer, and what that tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Race {
    /// It was not, or the upstream had time to work on the request.
    None,
    /// The upstream cannot have seen the request.
    Unseen,
    /// It was closed at once; the upstream may have read the request all the same.
    Perhaps,
}

impl Race {
    /// It says nothing of the endpoint: servers close what was idle for some time.
    pub(crate) fn happened(self) -> bool {
        self != Self::None
    }
}

/// What is known of a connection that a request went out on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Went {
    /// It served another request before.
    pub(crate) reused: bool,
    /// The upstream's system took none of the request's bytes, where that can be told.
    pub(crate) untaken: bool,
    /// How long the upstream has had it.
    pub(crate) since: Duration,
}

/// A server that closes an idle connection does so within a round trip of our request; one that closes later worked on it.
const MOMENT: Duration = Duration::from_millis(500);

/// What a failure after the connection stood means.
pub(crate) fn fault(error: &pingora::Error, went: Went) -> UpstreamError {
    let protocol = [Kind::InvalidHTTPHeader, Kind::HTTPStatus(0), Kind::H2Error, Kind::InvalidH2];
    if protocol.contains(error.etype()) && !error.retry() {
        return UpstreamError::sent(ErrorType::UpstreamProtocol, Race::None);
    }
    let race = match error.retry {
        // HTTP/2 says so itself: GOAWAY before the stream, REFUSED_STREAM.
        pingora::RetryType::Decided(true) => Race::Unseen,
        // Closed in order with nothing taken: it was closed before the request came. After a reset that is not certain.
        pingora::RetryType::ReusedOnly if went.reused && went.untaken && *error.etype() == Kind::ConnectionClosed => {
            Race::Unseen
        }
        pingora::RetryType::ReusedOnly if went.reused && went.since <= MOMENT => Race::Perhaps,
        _ => Race::None,
    };
    UpstreamError::sent(ErrorType::UpstreamReset, race)
}

/// `Retry-After` (RFC 9110, section 10.2.3), in seconds or as a date. A date is compared with the answer's own, so that a
/// clock that is wrong makes no difference.
pub(crate) fn retry_after(head: &ResponseHeader) -> Option<Duration> {
    let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let wait = text("retry-after")?;
    if let Ok(seconds) = wait.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(wait).ok()?;
    let now = text("date").and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or_else(SystemTime::now);
    Some(until.duration_since(now).unwrap_or_default())
}

/// When to ask again where all were taken out of service: a person did it, and a person will undo it.
const OUT_OF_SERVICE_RETRY_S: u32 = 10;

/// What the client is told where no attempt could be made.
pub(crate) fn nobody_to_ask(routed: &Routed) -> Rejection {
    let out = routed.in_service.taken_out(&routed.route);
    if out.is_empty() {
        let name = &routed.target.upstream.name;
        let message = format!("The name of upstream `{name}` cannot be resolved. Check its url.");
        return Rejection::upstream(ErrorType::DnsFailed, message);
    }
    let out: Vec<String> = out.iter().map(|(target, how)| format!("`{}` is {}", target.name, how.as_str())).collect();
    let message = format!(
        "Whoever runs this service has taken all that could answer here out of service: {}. Try again later.",
        out.join(", ")
    );
    let rejection = Rejection::refused(503, ErrorType::OutOfService, message);
    Rejection { retry_after: Some(OUT_OF_SERVICE_RETRY_S), ..rejection }
}

/// What the client is told of a failed attempt; `cause` is what more is known of it.
pub(crate) fn rejection(error: ErrorType, cause: Option<&str>, upstream: &str, endpoint: &Endpoint) -> Rejection {
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
        ErrorType::Stall => ("stopped sending before the first token", "See `timeouts.stall`."),
        ErrorType::AttemptTimeout => ("did not answer in time", "Is it overloaded?"),
        ErrorType::TotalTimeout => ("did not answer in time", "See `timeouts.total`."),
        _ => ("could not be reached", "Check its url."),
    };
    let message = match cause {
        Some(cause) => format!("Upstream `{upstream}` ({at}) {what}: {cause}. {hint}"),
        None => format!("Upstream `{upstream}` ({at}) {what}. {hint}"),
    };
    match error {
        ErrorType::FirstTokenTimeout | ErrorType::Stall | ErrorType::AttemptTimeout | ErrorType::TotalTimeout => {
            Rejection::timeout(error, message)
        }
        _ => Rejection::upstream(error, message),
    }
}

/// What it is called that this clock is over. The end of an answer that is whole is none of it.
pub(crate) fn late_error(late: Late) -> ErrorType {
    match late {
        Late::FirstToken => ErrorType::FirstTokenTimeout,
        Late::Attempt => ErrorType::AttemptTimeout,
        Late::Stall => ErrorType::Stall,
        Late::Total | Late::AfterEnd => ErrorType::TotalTimeout,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(headers: &[(&'static str, &str)]) -> ResponseHeader {
        let mut head = ResponseHeader::build(429, None).unwrap();
        for (name, value) in headers {
            head.insert_header(*name, *value).unwrap();
        }
        head
    }

    #[test]
    fn retry_after_is_read_in_all_its_forms() {
        let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        for (value, seconds) in [
            ("30", Some(30)),
            ("Sun, 06 Nov 1994 08:50:07 GMT", Some(30)),
            ("Sunday, 06-Nov-94 08:50:07 GMT", Some(30)),
            ("Sun Nov  6 08:50:07 1994", Some(30)),
            ("Sun, 06 Nov 1994 08:49:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            let wait = retry_after(&head(&[date, ("retry-after", value)]));
            assert_eq!(wait, seconds.map(Duration::from_secs), "{value}");
        }
        let soon = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(60));
        let wait = retry_after(&head(&[("retry-after", &soon)])).unwrap();
        assert!((58..=60).contains(&wait.as_secs()), "without a date of its own our clock counts: {wait:?}");
    }

    #[test]
    fn only_what_was_closed_at_once_was_a_race() {
        let closed = |kind: Kind| {
            let mut error = pingora::Error::new(kind);
            error.retry = pingora::RetryType::ReusedOnly;
            error
        };
        let race = |kind, reused, untaken, since| {
            fault(&closed(kind), Went { reused, untaken, since: Duration::from_millis(since) }).race
        };
        assert_eq!(race(Kind::ConnectionClosed, true, true, 1), Race::Unseen);
        assert_eq!(race(Kind::ReadError, true, true, 1), Race::Perhaps, "a reset says nothing of what was taken");
        assert_eq!(race(Kind::ConnectionClosed, true, false, 1), Race::Perhaps);
        assert_eq!(race(Kind::ConnectionClosed, true, false, 1_500), Race::None);
        assert_eq!(race(Kind::ConnectionClosed, false, false, 1), Race::None);
    }
}
