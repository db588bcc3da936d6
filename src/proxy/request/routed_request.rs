//! What is known of a request once it has a place to go: its context, and what admission, routing and limits made of it.

use std::ops::Deref;
use std::sync::Arc;

use super::client_progress::ClientProgress;
use super::context::RequestContext;
use super::route::Routed;
use crate::llm::RequestFacts;
use crate::policy::limits::Standing;
use crate::proxy::clock::Clock;
use crate::proxy::process::request_body::Admitted;

/// The context of a request that has a place to go. Both sides have it, for as long as the answer lasts.
pub(crate) struct RoutedRequest<'a> {
    pub(crate) context: &'a RequestContext<'a>,
    pub(crate) admitted: &'a Admitted,
    pub(crate) routed: &'a Routed,
    /// Where the caller stands under its limits.
    pub(crate) standing: Standing,
    pub(crate) clock: Clock,
    /// A WebSocket's handshake.
    pub(crate) upgrades: bool,
    pub(crate) client: ClientProgress,
}

impl RoutedRequest<'_> {
    pub(crate) fn facts(&self) -> &Arc<RequestFacts> {
        &self.admitted.facts
    }
}

impl<'a> Deref for RoutedRequest<'a> {
    type Target = RequestContext<'a>;

    fn deref(&self) -> &RequestContext<'a> {
        self.context
    }
}
