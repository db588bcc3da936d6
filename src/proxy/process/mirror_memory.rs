//! What the copies of a route's requests may take together.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::config::Settings;
use crate::hashing::Map;
use crate::policy::mirror::Caps;

/// The copies of one route: what they may take together. Outlives reloads.
#[derive(Default)]
pub(crate) struct MirrorMemory(Mutex<Caps>);

impl MirrorMemory {
    pub(crate) fn caps(&self) -> MutexGuard<'_, Caps> {
        self.0.lock()
    }
}

/// The copies of each route; what they took goes on over a reload.
pub(crate) fn build(
    settings: &Settings,
    previous: Option<&Map<Arc<str>, Arc<MirrorMemory>>>,
) -> Map<Arc<str>, Arc<MirrorMemory>> {
    let mirrored = settings.routes.iter().filter(|route| route.shadow.is_some());
    let kept = |name: &Arc<str>| previous.and_then(|old| old.get(name)).cloned().unwrap_or_default();
    mirrored.map(|route| (Arc::clone(&route.name), kept(&route.name))).collect()
}
