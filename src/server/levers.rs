//! What is out of service by hand outlives a restart: it is kept in a file of the state directory.

use std::io;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::doors::Doors;
use super::state_dir;
use crate::policy::levers::Saved;
use crate::proxy::Shared;

const FILE: &str = "levers.json";

/// Largest file that is read, in bytes: all levers there can be, with long names and reasons.
const FILE_MAX: u64 = 4 << 20;

/// How soon a save that failed is tried again.
const SAVE_AGAIN: Duration = Duration::from_secs(10);

/// Takes levers up as they were. A file that cannot be understood is set aside, and says so.
pub(super) fn restore(shared: &Shared) {
    let path = shared.generation.load().settings.server.state_dir.join(FILE);
    let read = match state_dir::read(&path, FILE_MAX) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => Err(error.to_string()),
        Ok(json) => Saved::read(&json),
    };
    match read {
        Ok(pulled) => {
            shared.levers.restore(pulled);
            shared.tell_restored_levers();
        }
        Err(error) => {
            let set_aside = std::fs::rename(&path, path.with_extension("json.broken")).is_ok();
            tracing::error!(
                event = "levers.unreadable",
                path = %path.display(), error, set_aside,
                "what was out of service by hand before the restart is not known: all of it gets requests, and revoked keys let in"
            );
        }
    }
}

/// Keeps each change at once, and tries again now and then what failed. Never ends.
pub(super) async fn keep(shared: &Shared, doors: &Doors) {
    let mut again = tokio::time::interval(SAVE_AGAIN);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = again.tick() => {}
            () = shared.levers.changed.notified() => {}
        }
        save(shared, doors);
    }
}

/// Keeps what has changed. A failure is told.
pub(super) fn save(shared: &Shared, doors: &Doors) {
    if doors.handed_over.get().is_some() {
        // The file is the new process's.
        return;
    }
    let directory = shared.generation.load().settings.server.state_dir.clone();
    if let Err(error) = shared.levers.keep(|json| state_dir::write(&directory, FILE, json)) {
        tracing::error!(
            event = "levers.not_saved",
            path = %directory.display(), %error,
            "a restart would undo what was taken out of service by hand: make server.state_dir writable"
        );
    }
}
