//! How fast a request's body must come: whoever sends a byte a minute would hold a place, and what was read so far, for as long
//! as it likes. While nothing but the body is waited for, and to its end where its length is known, each moment counts in which
//! the client was waited for. A body without a length may be half of a conversation once the answer has begun: what the client
//! says in one turn must come at the same pace, and how long it says nothing is bound by `body_timeout` alone.

use std::time::Duration;

use bytes::Bytes;
use pingora::protocols::http::ServerSession;
use tokio::time::Instant;

use super::client_body;
use crate::config::settings::Server;
use crate::proxy::request::outcome::Stop;
use crate::proxy::request::rejection::Rejection;
use crate::telemetry::record::ErrorType;

/// So long a body may be slower: a phone that changes cells, a TCP connection that starts slowly.
const GRACE: Duration = Duration::from_secs(10);

/// The pace of one body. Only the time counts in which the client was waited for.
pub(crate) struct BodyPace {
    /// Bytes a second; 0: any.
    rate: u64,
    /// Longest time without a byte.
    idle: Duration,
    came: u64,
    waited: Duration,
    /// Since when a read waits that may have been broken off and begun again.
    waits_since: Option<Instant>,
}

impl BodyPace {
    pub(crate) fn new(bounds: &Server) -> Self {
        let (rate, idle) = (bounds.min_body_rate, bounds.body_timeout);
        Self { rate, idle, came: 0, waited: Duration::ZERO, waits_since: None }
    }

    /// As [`BodyPace::read_chunk`], in a conversation: the time before a chunk counts once the chunk has come. Nobody can tell a
    /// client that is slow from one that listens before it says more.
    pub(crate) async fn read_turn(&mut self, session: &mut ServerSession) -> Result<Option<Bytes>, Stop> {
        let since = *self.waits_since.get_or_insert_with(Instant::now);
        let chunk = client_body::read_chunk(session, self.idle).await?;
        // Before a turn begins the client listens.
        let time = if self.came == 0 { Duration::ZERO } else { since.elapsed() };
        self.took(time, chunk.as_ref());
        match chunk {
            Some(_) if self.left(Duration::ZERO).is_zero() => Err(self.too_slow()),
            chunk => Ok(chunk),
        }
    }

    /// The other side said something: in a conversation the client's turn begins.
    pub(crate) fn answered(&mut self) {
        (self.came, self.waited, self.waits_since) = (0, Duration::ZERO, None);
    }

    /// As [`client_body::read_chunk`], within what the body's pace leaves.
    pub(crate) async fn read_chunk(&mut self, session: &mut ServerSession) -> Result<Option<Bytes>, Stop> {
        let since = *self.waits_since.get_or_insert_with(Instant::now);
        let left = self.left(since.elapsed());
        if left.is_zero() {
            return Err(self.too_slow());
        }
        let chunk = match client_body::read_chunk(session, left.min(self.idle)).await {
            Err(Stop::Reject(rejection)) if rejection.error == ErrorType::BodyTimeout && left < self.idle => {
                return Err(self.too_slow());
            }
            read => read?,
        };
        self.took(since.elapsed(), chunk.as_ref());
        Ok(chunk)
    }

    fn took(&mut self, time: Duration, chunk: Option<&Bytes>) {
        self.waited += time;
        self.waits_since = None;
        self.came += chunk.map_or(0, |chunk| chunk.len() as u64);
    }

    /// How much longer may be waited, after `now` of this wait.
    fn left(&self, now: Duration) -> Duration {
        if self.rate == 0 {
            return Duration::MAX;
        }
        let allowed = GRACE + Duration::from_millis(self.came.saturating_mul(1_000) / self.rate);
        allowed.saturating_sub(self.waited + now)
    }

    fn too_slow(&self) -> Stop {
        let message = format!(
            "The request body comes too slowly: less than {} bytes a second. Send it faster, or have \
             `server.min_body_rate` lowered.",
            self.rate
        );
        Stop::Reject(Rejection::refused(408, ErrorType::BodyTimeout, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(rate: u64, came: u64, waited_s: u64) -> BodyPace {
        let waited = Duration::from_secs(waited_s);
        BodyPace { rate, idle: Duration::from_secs(60), came, waited, waits_since: None }
    }

    #[test]
    fn a_body_may_take_its_grace_and_what_its_bytes_are_worth() {
        let s = Duration::from_secs;
        assert_eq!(pace(100, 0, 0).left(s(0)), GRACE);
        assert_eq!(pace(100, 0, 9).left(s(1)), s(0));
        assert_eq!(pace(100, 500, 10).left(s(0)), s(5));
        assert_eq!(pace(100, 500, 10).left(s(7)), s(0));
        assert_eq!(pace(0, 0, 1_000).left(s(1_000)), Duration::MAX);
    }

    #[test]
    fn a_turn_of_a_conversation_begins_anew_with_each_answer() {
        let (s, byte) = (Duration::from_secs, Bytes::from_static(b"x"));
        let mut pace = pace(100, 0, 0);
        for _ in 0..3 {
            pace.took(s(9), Some(&byte));
            assert!(!pace.left(s(0)).is_zero());
            pace.answered();
        }
        pace.took(s(6), Some(&byte));
        pace.took(s(6), Some(&byte));
        assert!(pace.left(s(0)).is_zero(), "two bytes are worth no two seconds");
    }
}
