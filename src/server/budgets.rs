//! What was spent outlives a restart: it is kept in a file of the state directory.

use std::io;
use std::path::Path;

use super::state_dir;
use crate::config::Settings;
use crate::policy::limits::Saved;
use crate::proxy::Limiter;

const FILE: &str = "budgets.json";

/// Largest file that is read, in bytes: all cells there can be, with room to spare.
const FILE_MAX: u64 = 512 << 20;

/// Takes up what was spent before the restart. A file that cannot be understood is set aside, and says so.
pub(super) fn restore(limiter: &Limiter, settings: &Settings) {
    if !has_budgets(settings) {
        return;
    }
    let path = settings.server.state_dir.join(FILE);
    match read(&path) {
        Ok(saved) => limiter.restore(saved, &settings.limits),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            let aside = path.with_extension("json.broken");
            let kept = std::fs::rename(&path, &aside).is_ok();
            tracing::warn!(
                event = "budgets.unreadable",
                path = %path.display(), %error, set_aside = kept,
                "what was spent before the restart is not known: cost limits start from zero"
            );
        }
    }
}

/// Keeps what was spent by now. A failure is told, and tried again with the next save.
pub(super) fn save(limiter: &Limiter, settings: &Settings) {
    if !has_budgets(settings) {
        return;
    }
    let directory = &settings.server.state_dir;
    let written = serde_json::to_vec(&limiter.save()).map_err(io::Error::from);
    if let Err(error) = written.and_then(|json| state_dir::write(directory, FILE, &json)) {
        tracing::warn!(
            event = "budgets.not_saved",
            path = %directory.display(), %error,
            "what was spent would be forgotten by a restart: make server.state_dir writable"
        );
    }
}

fn has_budgets(settings: &Settings) -> bool {
    settings.limits.iter().any(|limit| limit.has_budget())
}

fn read(path: &Path) -> io::Result<Saved> {
    Ok(serde_json::from_slice(&state_dir::read(path, FILE_MAX)?)?)
}
