//! What is asked of the upstreams for one request.

use std::ops::Deref;

use memchr::memmem;
use pingora::http::RequestHeader;

use crate::config::defaults;
use crate::config::settings::{RouteKind, Target, Timeouts};
use crate::llm::request::session::SessionName;
use crate::llm::{Dialect, splice};
use crate::policy::deadlines::Kind;
use crate::policy::failover::Nature;
use crate::proxy::endpoints::affinity::Wanted;
use crate::proxy::process::request_body::{Content, RequestBody};
use crate::proxy::request::attempts::Attempts;
use crate::proxy::request::routed_request::RoutedRequest;
use crate::proxy::request::session;

/// A routed request with what only the asking needs, which is freed once there is an answer.
pub(crate) struct UpstreamRequest<'a> {
    pub(crate) request: &'a RoutedRequest<'a>,
    pub(crate) head: &'a RequestHeader,
    pub(crate) attempts: &'a Attempts,
    /// What its body says of its session, where one of the route's upstreams asks.
    pub(crate) session: Option<&'a SessionName>,
}

impl<'a> Deref for UpstreamRequest<'a> {
    type Target = RoutedRequest<'a>;

    fn deref(&self) -> &RoutedRequest<'a> {
        self.request
    }
}

impl UpstreamRequest<'_> {
    pub(crate) fn is_llm(&self) -> bool {
        self.facts().is_llm()
    }

    /// Which endpoint it wants, where the target's upstream keeps sessions together.
    pub(crate) fn wanted(&self, target: &Target) -> Option<Wanted> {
        target.upstream.affinity.as_ref()?;
        session::wanted(&target.upstream, self.head, self.admitted, self.session, &self.context.caller.identity)
    }

    /// The body as this target gets it: with its model's name, where it has one.
    pub(crate) fn body_for(&self, target: &Target) -> RequestBody {
        let edited = target.model.as_deref().and_then(|model| match &self.admitted.content {
            content @ Content::Json { text, .. } => {
                splice::with_model(text, model).map(|edited| content.with_text(edited))
            }
            Content::Form { kind, text, .. } => kind.with_model(text, model),
            Content::Unknown => None,
        });
        edited.map_or_else(|| self.admitted.body.clone(), RequestBody::Edited)
    }

    /// Asked twice is as asked once, by the method's meaning (RFC 9110, section 9.2.2).
    pub(crate) fn is_idempotent(&self) -> bool {
        self.head.method.is_idempotent()
    }

    /// Whether the answer is likely to stream: averages of the two kinds are kept apart.
    pub(crate) fn expects_stream(&self) -> bool {
        let facts = self.facts();
        facts.is_llm() && !facts.answers_whole() || self.accepts_events()
    }

    /// What the answer will be, as far as the request tells.
    pub(crate) fn expects(&self) -> Kind {
        let facts = self.facts();
        if self.routed.route.kind == RouteKind::Stream || self.upgrades {
            Kind::Other { bound: true }
        } else if facts.is_llm() {
            // Pictures and transcripts may be streamed too, but have no first token that could be late.
            let whole = facts.answers_whole() || !facts.writes();
            if whole { Kind::Whole { llm: true } } else { Kind::Tokens }
        } else if facts.rpc.is_some() || self.accepts_events() {
            Kind::Other { bound: false }
        } else {
            Kind::Whole { llm: false }
        }
    }

    /// The times that bind the answer. A handshake is not waited for without end.
    pub(crate) fn times(&self) -> Timeouts {
        let mut times = self.routed.limits;
        if self.upgrades {
            times.first_token.get_or_insert(defaults::HANDSHAKE_TIMEOUT);
        }
        times
    }

    /// The dialect in which the answer will be read.
    pub(crate) fn dialect(&self) -> Option<Dialect> {
        self.facts().dialect.filter(|_| !self.upgrades)
    }

    fn accepts_events(&self) -> bool {
        let mut values = self.head.headers.get_all("accept").iter();
        values.any(|value| memmem::find(value.as_bytes(), b"text/event-stream").is_some())
    }

    pub(crate) fn nature(&self) -> Nature {
        let replayable = !matches!(self.admitted.body, RequestBody::Streamed { .. });
        Nature { llm: self.is_llm(), replayable }
    }
}
