//! What was spent outlives a restart: it is kept in a file of the state directory.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

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
    if let Err(error) = write(directory, &limiter.save()) {
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
    if std::fs::metadata(path)?.len() > FILE_MAX {
        return Err(io::Error::other("the file is too large"));
    }
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

/// Whole or not at all: a crash leaves the last file.
fn write(directory: &Path, saved: &Saved) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let new: PathBuf = directory.join(format!("{FILE}.new"));
    let mut file = std::fs::File::create(&new)?;
    file.write_all(&serde_json::to_vec(saved)?)?;
    file.sync_all()?;
    std::fs::rename(&new, directory.join(FILE))
}
