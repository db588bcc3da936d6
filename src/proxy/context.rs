//! What every stage of one request looks at.

use std::sync::Arc;

use super::caller::Caller;
use super::state::{Generation, Shared};
use crate::config::Settings;
use crate::policy::cors::Decision;

/// What all stages of one request look at.
pub(super) struct Visit<'a> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) generation: &'a Arc<Generation>,
    pub(super) caller: Caller,
    pub(super) cors: Decision,
}

impl Visit<'_> {
    pub(super) fn settings(&self) -> &Settings {
        &self.generation.settings
    }
}
