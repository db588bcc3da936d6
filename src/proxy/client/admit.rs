//! Takes in the request's body as far as routing needs it, and reads what the request asks for.

use std::sync::Arc;

use bytes::Bytes;
use pingora::http::RequestHeader;
use pingora::protocols::http::ServerSession;

use super::body_pace::BodyPace;
use super::client_body::{too_large, within};
use super::read_body::{Intake, Taken};
use crate::config::settings::{RouteKind, Server};
use crate::llm::RequestFacts;
use crate::llm::content_encoding::{Coding, Decoder, Fault, codings};
use crate::llm::request::body_kind::{Beginning, Labels};
use crate::llm::request::lenient_json;
use crate::proxy::process::body_memory::BodyBytes;
use crate::proxy::process::request_body::{Admitted, Content, MARK, RequestBody};
use crate::proxy::request::accounting::Flight;
use crate::proxy::request::outcome::Stop;
use crate::proxy::request::rejection::Rejection;
use crate::telemetry::record::Phase;

/// What a file in a form is taken for, in tokens, and how many bytes of its fields for one.
const FILE_TOKENS: u64 = 765;
const FIELD_BYTES_PER_TOKEN: u64 = 4;

/// Reads a JSON body to its end. Where something depends on what the request asks for (`must_read`), any that begins as JSON
/// too, and forms, whatever their labels say; leaves others to be streamed.
pub(crate) async fn admit(
    session: &mut ServerSession,
    flight: &mut Flight<'_>,
    bounds: &Server,
    bytes: BodyBytes,
    must_read: bool,
) -> Result<Admitted, Stop> {
    if session.is_body_done() {
        flight.enter(Phase::Admit);
        let facts = Arc::new(RequestFacts::read(target(session.req_header()), None));
        return Ok(Admitted { body: RequestBody::None, content: Content::Unknown, bytes: Arc::new(bytes), facts });
    }
    let head = session.req_header();
    let header = |name: &str| head.headers.get_all(name).into_iter();
    let labels = Labels::read(header("content-type").filter_map(|value| value.to_str().ok()));
    let codings = codings(header("content-encoding").map(|value| value.as_bytes()));
    let looked = Look { labels, codings, must_read, max: usize::try_from(bounds.max_body).unwrap_or(usize::MAX) };
    let length = content_length(head);
    let mut intake = Intake { bounds, bytes, length, pace: BodyPace::new(bounds) };
    let taken = match looked.wants() {
        Wants::Nothing => {
            within(length, bounds.max_upload, "max_upload")?;
            Taken::Streams(Bytes::new())
        }
        Wants::Beginning => intake.beginning(session, flight, looked.codings.as_deref()).await?,
        Wants::All => Taken::Whole(intake.whole(session, flight, Bytes::new()).await?),
    };
    flight.enter(Phase::Admit);
    let path = target(session.req_header());
    let (body, content, facts) = match taken {
        Taken::Streams(_) if must_read && looked.codings.is_none() => {
            let message = "The request body is in a coding that is not known here, and this route depends on what it asks for. Send it in \
                           gzip, deflate, zstd or br, at most two over one another, or plain.";
            return Err(Rejection::bad_request(message).into());
        }
        Taken::Streams(first) => {
            (RequestBody::Streamed { length, first }, Content::Unknown, RequestFacts::read(path, None))
        }
        Taken::Whole(body) => {
            let (content, facts) = looked.read(path, &body, &mut intake).await?;
            (RequestBody::Buffered(body), content, facts)
        }
    };
    Ok(Admitted { body, content, bytes: Arc::new(intake.bytes), facts: Arc::new(facts) })
}

/// What the head says of a body.
struct Look {
    labels: Labels,
    /// `None`: one is not known.
    codings: Option<Vec<Coding>>,
    must_read: bool,
    /// Most bytes of a body, also when decoded.
    max: usize,
}

/// How much of a body is to be read before the request goes on.
enum Wants {
    Nothing,
    /// As far as it takes to see whether it is JSON: all of it, then.
    Beginning,
    All,
}

impl Look {
    fn wants(&self) -> Wants {
        let is_readable = self.codings.is_some();
        match (self.labels.json && is_readable, self.must_read) {
            (true, _) => Wants::All,
            (false, true) if is_readable && (self.labels.form.is_some() || self.labels.is_torn) => Wants::All,
            (false, true) => Wants::Beginning,
            (false, false) => Wants::Nothing,
        }
    }

    /// Reads a body that is in hand.
    async fn read(&self, path: &str, body: &Bytes, intake: &mut Intake<'_>) -> Result<(Content, RequestFacts), Stop> {
        let unknown = || (Content::Unknown, RequestFacts::read(path, None));
        let Some(plain) = self.decoded(body, intake).await? else { return Ok(unknown()) };
        let marked = plain.starts_with(MARK);
        let text = match lenient_json::in_utf8(&plain) {
            Some(text) => {
                intake.hold(text.len() as u64)?;
                Bytes::from(text)
            }
            None => plain,
        };
        let begins_as_json = match Beginning::of(&text) {
            Beginning::Open => return Ok(unknown()),
            beginning => beginning == Beginning::Json,
        };
        let read = match &self.labels.form {
            _ if self.labels.odd_charset && self.must_read => None,
            Some(kind) if begins_as_json && RequestFacts::hides_in_form(kind, &text) => None,
            Some(kind) if !begins_as_json && !self.labels.is_torn => kind.read(&text).and_then(|form| {
                let tokens = form.files * FILE_TOKENS + form.text_bytes().div_ceil(FIELD_BYTES_PER_TOKEN);
                let facts = RequestFacts::read_form(path, &form)?;
                Some((Content::Form { kind: kind.clone(), text: text.clone(), tokens }, facts))
            }),
            _ if self.labels.is_torn && !begins_as_json => None,
            _ if !self.labels.json && !begins_as_json => return Ok(unknown()),
            _ => read_json(path, &text).await.map(|facts| (Content::Json { text: text.clone(), marked }, facts)),
        };
        match read {
            Some(read) => Ok(read),
            None if self.must_read => Err(unreadable().into()),
            None => Ok(unknown()),
        }
    }

    /// The body without its coding. What begins as JSON has none, whatever its label says: many backends never look at it.
    async fn decoded(&self, body: &Bytes, intake: &mut Intake<'_>) -> Result<Option<Bytes>, Stop> {
        let codings = self.codings.clone().unwrap_or_default();
        if codings.is_empty() || Beginning::of(body) == Beginning::Json {
            return Ok(Some(body.clone()));
        }
        let (coded, max) = (body.clone(), self.max);
        // A small body may take long to decode: not on the threads that serve.
        let decoding = tokio::task::spawn_blocking(move || Decoder::whole(&codings, &coded, max)).await;
        match decoding {
            Ok(Ok(plain)) => {
                intake.hold(plain.len() as u64)?;
                Ok(Some(plain.into()))
            }
            Ok(Err(Fault::Stopped)) => Err(too_large(self.max as u64, "max_body", "when decoded").into()),
            Ok(Err(Fault::Corrupt)) if self.must_read => {
                let message =
                    "The request body is not what its Content-Encoding says. Send it as it is labelled, or plain.";
                Err(Rejection::bad_request(message).into())
            }
            Ok(Err(Fault::Corrupt)) => Ok(None),
            Err(_) => Err(Rejection::internal().into()),
        }
    }
}

/// Reads JSON. What only a forgiving reader takes costs several times as much: where it is long, not on the threads that serve.
async fn read_json(path: &str, text: &Bytes) -> Option<RequestFacts> {
    const INLINE_MAX: usize = 64 << 10;
    let strict = RequestFacts::read_strictly(path, text);
    if strict.is_some() || text.len() <= INLINE_MAX {
        return strict.or_else(|| RequestFacts::read_json(path, text));
    }
    let (path, text) = (path.to_owned(), text.clone());
    tokio::task::spawn_blocking(move || RequestFacts::read_json(&path, &text)).await.ok().flatten()
}

fn unreadable() -> Rejection {
    Rejection::bad_request(
        "The request body cannot be read, and this route depends on what it asks for. Send valid JSON in UTF-8, or a form \
         with one Content-Type.",
    )
}

/// What the route says of whose the answers are goes before what the request shows. Headers show a session of MCP, and a stream
/// that goes on.
pub(crate) fn learn_from_head(facts: &mut Arc<RequestFacts>, head: &RequestHeader, has_body: bool, kind: RouteKind) {
    /// An empty object.
    const SAYS_NOTHING: u64 = 2;
    if facts.depends_on_method() {
        let says = has_body && content_length(head).is_none_or(|length| length > SAYS_NOTHING);
        Arc::make_mut(facts).note_method(head.method.is_safe(), says);
    }
    if head.method.is_safe() && head.headers.get("last-event-id").is_some_and(|id| !id.is_empty()) {
        Arc::make_mut(facts).resumes = true;
    }
    if head.headers.contains_key("mcp-session-id") || head.headers.contains_key("mcp-protocol-version") {
        Arc::make_mut(facts).note_mcp();
    }
    let said = match kind {
        RouteKind::Auto => None,
        RouteKind::Llm => facts.by_route(true),
        RouteKind::Stream => facts.by_route(false),
    };
    if let Some(said) = said {
        *facts = Arc::new(said);
    }
}

/// Refuses a key that comes twice, and a model that is no text.
pub(crate) fn check_keys(facts: &RequestFacts) -> Result<(), Rejection> {
    if facts.odd_model {
        return Err(Rejection::bad_request("`model` must be a text: this route depends on it."));
    }
    let Some(key) = facts.repeated else { return Ok(()) };
    Err(Rejection::bad_request(format!(
        "The request has `{key}` twice, perhaps in another case: backends differ in which one they believe. Send it once."
    )))
}

/// Path and query.
pub(crate) fn target(head: &RequestHeader) -> &str {
    head.uri.path_and_query().map_or(head.uri.path(), http::uri::PathAndQuery::as_str)
}

pub(crate) fn content_length(head: &RequestHeader) -> Option<u64> {
    head.headers.get("content-length")?.to_str().ok()?.trim().parse().ok()
}
