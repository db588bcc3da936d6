//! What every stage of one request looks at.

use std::sync::Arc;

use super::caller::Caller;
use crate::config::Settings;
use crate::policy::cors::Decision;
use crate::proxy::process::state::{Generation, Shared};

/// What all stages of one request look at.
pub(crate) struct RequestContext<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) generation: &'a Arc<Generation>,
    pub(crate) caller: Caller,
    pub(crate) cors: Decision,
}

impl RequestContext<'_> {
    pub(crate) fn settings(&self) -> &Settings {
        &self.generation.settings
    }
}
