//! Reads a body: to its end, or as far as it takes to see what it is.

use bytes::{Bytes, BytesMut};
use pingora::protocols::http::ServerSession;

use super::body_pace::BodyPace;
use super::client_body::{answer_expectation, within};
use crate::config::settings::Server;
use crate::llm::content_encoding::{Coding, Decoder};
use crate::llm::request::body_kind::Beginning;
use crate::proxy::process::body_memory::BodyBytes;
use crate::proxy::request::accounting::Flight;
use crate::proxy::request::outcome::Stop;
use crate::proxy::request::rejection::Rejection;
use crate::telemetry::event::Event;
use crate::telemetry::record::{ErrorType, Phase};

/// What came of a body.
pub(crate) enum Taken {
    Whole(Bytes),
    /// It is nothing that is read here: these bytes go first, and the rest follows as it comes.
    Streams(Bytes),
}

/// A body on its way in.
pub(crate) struct Intake<'a> {
    pub(crate) bounds: &'a Server,
    pub(crate) bytes: BodyBytes,
    /// As its head says.
    pub(crate) length: Option<u64>,
    pub(crate) pace: BodyPace,
}

impl Intake<'_> {
    /// Reads the rest of a body of which `first` came already.
    pub(crate) async fn whole(
        &mut self,
        session: &mut ServerSession,
        flight: &mut Flight<'_>,
        first: Bytes,
    ) -> Result<Bytes, Stop> {
        let max = self.bounds.max_body;
        within(self.length, max, "max_body")?;
        flight.enter(Phase::Receive);
        flight.tell(Event::Received(first.len() as u64));
        answer_expectation(session).await?;
        let mut whole = first;
        let mut joined = BytesMut::new();
        while let Some(chunk) = self.pace.read_chunk(session).await? {
            flight.tell(Event::Received(chunk.len() as u64));
            self.hold(chunk.len() as u64)?;
            if whole.is_empty() && joined.is_empty() {
                // Most bodies come in one piece: no copy.
                whole = chunk;
            } else {
                if joined.is_empty() {
                    joined.extend_from_slice(&whole);
                }
                joined.extend_from_slice(&chunk);
            }
            within(Some(whole.len().max(joined.len()) as u64), max, "max_body")?;
        }
        Ok(if joined.is_empty() { whole } else { joined.freeze() })
    }

    /// Reads until it is seen whether the body is a JSON object, plain or in `codings`; one that is it reads to its end.
    pub(crate) async fn beginning(
        &mut self,
        session: &mut ServerSession,
        flight: &mut Flight<'_>,
        codings: Option<&[Coding]>,
    ) -> Result<Taken, Stop> {
        within(self.length, self.bounds.max_upload, "max_upload")?;
        flight.enter(Phase::Receive);
        answer_expectation(session).await?;
        let mut seen = Seen::new(codings);
        let mut first = BytesMut::new();
        loop {
            let Some(chunk) = self.pace.read_chunk(session).await? else {
                flight.tell(Event::Received(first.len() as u64));
                return Ok(Taken::Whole(first.freeze()));
            };
            self.hold(chunk.len() as u64)?;
            first.extend_from_slice(&chunk);
            match seen.look(&chunk) {
                Beginning::Json => return self.whole(session, flight, first.freeze()).await.map(Taken::Whole),
                Beginning::Other => return Ok(Taken::Streams(first.freeze())),
                Beginning::Open => within(Some(first.len() as u64), self.bounds.max_body, "max_body")?,
            }
        }
    }

    /// Takes `more` bytes of what all bodies may.
    pub(crate) fn hold(&mut self, more: u64) -> Result<(), Stop> {
        if self.bytes.grow(more, self.bounds.max_buffered) {
            return Ok(());
        }
        let message =
            "Too many request bodies are held at once. Try again in a second, or have `server.max_buffered` raised.";
        Err(Rejection::overloaded(ErrorType::Overloaded, message).into())
    }
}

/// How far a body was looked at: as it came, and decoded.
struct Seen {
    plain: Beginning,
    decoded: Beginning,
    decoder: Option<Decoder>,
}

impl Seen {
    fn new(codings: Option<&[Coding]>) -> Self {
        let decoder = codings.filter(|codings| !codings.is_empty()).and_then(Decoder::new);
        let decoded = if decoder.is_some() { Beginning::Open } else { Beginning::Other };
        Self { plain: Beginning::Open, decoded, decoder }
    }

    fn look(&mut self, chunk: &[u8]) -> Beginning {
        if self.plain == Beginning::Open {
            self.plain = Beginning::of(chunk);
        }
        if let Some(decoder) = self.decoder.as_mut().filter(|_| self.decoded == Beginning::Open) {
            let mut found = Beginning::Open;
            let fed = decoder.feed(chunk, &mut |piece| {
                found = Beginning::of(piece);
                found == Beginning::Open
            });
            // What cannot be decoded is for nobody who decodes.
            self.decoded = if found == Beginning::Open && fed.is_err() { Beginning::Other } else { found };
        }
        match (self.plain, self.decoded) {
            (Beginning::Json, _) | (_, Beginning::Json) => Beginning::Json,
            (Beginning::Other, Beginning::Other) => Beginning::Other,
            _ => Beginning::Open,
        }
    }
}
