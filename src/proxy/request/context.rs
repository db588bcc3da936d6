//! What every stage of one request looks at.

use std::sync::Arc;
use std::time::Duration;

use super::caller::Caller;
use crate::config::Settings;
use crate::policy::cors::Decision;
use crate::proxy::process::state::{Generation, Shared};

/// So long what runs with a key may take to end in order once the key is revoked: a client that reads nothing would hold it.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What all stages of one request look at.
pub(crate) struct RequestContext<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) generation: &'a Arc<Generation>,
    pub(crate) caller: Caller,
    pub(crate) cors: Decision,
}

impl RequestContext<'_> {
    /// Resolves once the caller's key is revoked; never where there is none.
    pub(crate) async fn revoked(&self) {
        self.shared.levers.revoked(self.caller.identity.key.as_deref()).await;
    }

    /// As [`RequestContext::revoked`], when what runs has had the time to end in order.
    pub(crate) async fn revoked_for_long(&self) {
        self.revoked().await;
        tokio::time::sleep(LAST_WORDS).await;
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.generation.settings
    }
}
