//! How far canaries have come outlives a restart: it is kept in a file of the state directory.

use std::io;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::doors::Doors;
use super::state_dir;
use crate::proxy::Shared;

const FILE: &str = "canaries.json";

/// Largest file that is read, in bytes: thousands of routes.
const FILE_MAX: u64 = 64 << 20;

/// How often evidence is saved; decisions are at once.
const SAVE_INTERVAL: Duration = Duration::from_secs(10);

/// Takes canaries up where they stood. A file that cannot be understood is set aside, and says so.
pub(super) fn restore(shared: &Shared) {
    let generation = shared.generation.load_full();
    if !generation.rollouts.is_empty() {
        let path = generation.settings.server.state_dir.join(FILE);
        let restored = match state_dir::read(&path, FILE_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error.to_string()),
            Ok(json) => shared.restore_canaries(&json),
        };
        if let Err(error) = restored {
            let set_aside = std::fs::rename(&path, path.with_extension("json.broken")).is_ok();
            tracing::warn!(
                event = "canaries.unreadable",
                path = %path.display(), error, set_aside,
                "how far canaries had come before the restart is not known: they start at their first step"
            );
        }
    }
    shared.tell_new_canaries();
}

/// Keeps how far canaries have come: each decision at once, evidence now and then. Never ends.
pub(super) async fn keep(shared: &Shared, doors: &Doors) {
    let mut again = tokio::time::interval(SAVE_INTERVAL);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = again.tick() => {}
            () = shared.canary_decided.notified() => {}
        }
        save(shared, doors);
    }
}

/// Keeps how far canaries have come by now. A failure is told, and tried again with the next save.
pub(super) fn save(shared: &Shared, doors: &Doors) {
    if doors.handed_over.get().is_some() {
        // The file is the new process's.
        return;
    }
    let directory = shared.generation.load().settings.server.state_dir.clone();
    let saved = shared.save_canaries().map_err(io::Error::other);
    let written = saved.and_then(|json| json.map_or(Ok(()), |json| state_dir::write(&directory, FILE, &json)));
    if let Err(error) = written {
        tracing::warn!(
            event = "canaries.not_saved",
            path = %directory.display(), %error,
            "a restart would send canaries back to an older step: make server.state_dir writable"
        );
    }
}
