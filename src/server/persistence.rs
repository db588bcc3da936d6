//! What outlives a restart: what was spent, how far canaries have come, and what is out of service by hand. Each is a file of the
//! state directory that is read at the start, set aside where it is broken, and written whole when it changed.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::listener_control::ListenerControl;
use super::state_dir;
use crate::config::Settings;
use crate::policy::levers;
use crate::proxy::{Shared, every};

/// How often what changes all the time is saved, and what could not be saved is tried again. Decisions are saved at once.
const SAVE_INTERVAL: Duration = Duration::from_secs(10);

const BUDGETS: StateFile = StateFile {
    name: "budgets",
    // All cells there can be, with room to spare.
    bytes_max: 512 << 20,
    unreadable: "what was spent before the restart is not known: cost limits start from zero",
    not_saved: "what was spent would be forgotten by a restart: make server.state_dir writable",
};

const CANARIES: StateFile = StateFile {
    name: "canaries",
    // Thousands of routes.
    bytes_max: 64 << 20,
    unreadable: "how far canaries had come before the restart is not known: they start at their first step",
    not_saved: "a restart would send canaries back to an older step: make server.state_dir writable",
};

const LEVERS: StateFile = StateFile {
    name: "levers",
    // All levers there can be, with long names and reasons.
    bytes_max: 4 << 20,
    unreadable: "what was out of service by hand before the restart is not known: all of it gets requests, and revoked keys let in",
    not_saved: "a restart would undo what was taken out of service by hand: make server.state_dir writable",
};

/// Takes all up as it was before the restart.
pub(super) fn restore(shared: &Shared) {
    let generation = shared.generation.load_full();
    let settings = &generation.settings;
    let directory = &settings.server.state_dir;
    LEVERS.restore(directory, |json| {
        shared.levers.restore(levers::Saved::read(json)?);
        shared.tell_restored_levers();
        Ok(())
    });
    if has_budgets(settings) {
        BUDGETS.restore(directory, |json| {
            let saved = serde_json::from_slice(json).map_err(|error| error.to_string())?;
            shared.limiter.restore(saved, &settings.limits);
            Ok(())
        });
    }
    if !generation.rollouts.is_empty() {
        CANARIES.restore(directory, |json| shared.restore_canaries(json));
    }
    shared.tell_new_canaries();
}

/// Saves all now and then, and what somebody decided at once. Never ends.
pub(super) async fn keep(shared: &Shared, listeners: &ListenerControl) {
    let mut again = every(SAVE_INTERVAL);
    loop {
        tokio::select! {
            _ = again.tick() => {}
            () = shared.canary_decided.notified() => {}
            () = shared.levers.changed.notified() => {}
        }
        save(shared, listeners);
    }
}

/// Saves all as it is by now. What fails is logged, and tried again with the next save.
pub(super) fn save(shared: &Shared, listeners: &ListenerControl) {
    if listeners.handed_over.get().is_some() {
        // The files are the new process's.
        return;
    }
    let generation = shared.generation.load_full();
    let settings = &generation.settings;
    let directory = &settings.server.state_dir;
    LEVERS.save(directory, |write| shared.levers.keep(write));
    CANARIES.save(directory, |write| shared.save_canaries()?.map_or(Ok(()), |json| write(&json)));
    if has_budgets(settings) {
        BUDGETS.save(directory, |write| write(&serde_json::to_vec(&shared.limiter.save())?));
    }
}

fn has_budgets(settings: &Settings) -> bool {
    settings.limits.iter().any(|limit| limit.has_budget())
}

/// One file of the state directory.
struct StateFile {
    /// It is called this and `.json`, and what is logged of it begins with this.
    name: &'static str,
    /// Largest that is read, in bytes.
    bytes_max: u64,
    /// What it means that the file is broken.
    unreadable: &'static str,
    /// What it means that it cannot be written.
    not_saved: &'static str,
}

impl StateFile {
    /// Hands on what the file holds, if there is one. Where `take` can make nothing of it, it is set aside, and that is logged.
    fn restore(&self, directory: &Path, take: impl FnOnce(&[u8]) -> Result<(), String>) {
        let path = directory.join(self.file());
        let taken = match state_dir::read(&path, self.bytes_max) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => Err(error.to_string()),
            Ok(json) => take(&json),
        };
        if let Err(error) = taken {
            let set_aside = std::fs::rename(&path, path.with_extension("json.broken")).is_ok();
            let event = format!("{}.unreadable", self.name);
            tracing::error!(event, path = %path.display(), error, set_aside, "{}", self.unreadable);
        }
    }

    /// Lets `produce` write the file, whole or not at all. A failure is logged.
    fn save(&self, directory: &Path, produce: impl FnOnce(&dyn Fn(&[u8]) -> io::Result<()>) -> io::Result<()>) {
        if let Err(error) = produce(&|json| state_dir::write(directory, &self.file(), json)) {
            let event = format!("{}.not_saved", self.name);
            tracing::error!(event, path = %directory.display(), %error, "{}", self.not_saved);
        }
    }

    fn file(&self) -> String {
        format!("{}.json", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn held(file: &StateFile, directory: &Path) -> Option<Vec<u8>> {
        let mut held = None;
        file.restore(directory, |json| {
            held = Some(json.to_vec());
            Ok(())
        });
        held
    }

    #[test]
    fn the_files_are_called_as_they_always_were() {
        assert_eq!(
            [BUDGETS, CANARIES, LEVERS].map(|file| file.file()),
            ["budgets.json", "canaries.json", "levers.json"]
        );
    }

    #[test]
    fn what_was_saved_comes_back_and_what_is_missing_is_no_trouble() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("state");
        assert_eq!(held(&LEVERS, &directory), None);
        LEVERS.save(&directory, |_| Ok(()));
        assert!(!directory.exists(), "nothing to save makes no file");
        LEVERS.save(&directory, |write| write(b"{}"));
        assert_eq!(held(&LEVERS, &directory).as_deref(), Some(&b"{}"[..]));
        assert_eq!(held(&CANARIES, &directory), None);
    }

    #[test]
    fn a_broken_file_is_set_aside_whole_and_makes_way() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("levers.json");
        for broken in ["{", "", "{\"version\":99,\"levers\":[]}"] {
            fs::write(&path, broken).unwrap();
            LEVERS.restore(directory.path(), |json| levers::Saved::read(json).map(drop));
            assert!(!path.exists(), "{broken}");
            assert_eq!(fs::read_to_string(directory.path().join("levers.json.broken")).unwrap(), broken);
        }
        let small = StateFile { bytes_max: 3, ..LEVERS };
        fs::write(&path, "{  }").unwrap();
        assert_eq!(held(&small, directory.path()), None, "too large to be ours");
        assert!(!path.exists());
        LEVERS.save(directory.path(), |write| write(b"{}"));
        assert_eq!(held(&LEVERS, directory.path()).as_deref(), Some(&b"{}"[..]));
    }

    #[test]
    fn a_save_that_fails_leaves_the_last_one() {
        let parent = tempfile::tempdir().unwrap();
        BUDGETS.save(parent.path(), |write| write(b"1"));
        BUDGETS.save(parent.path(), |_| Err(io::Error::other("cannot be told")));
        assert_eq!(held(&BUDGETS, parent.path()).as_deref(), Some(&b"1"[..]));
        let no_directory = parent.path().join("budgets.json");
        BUDGETS.save(&no_directory, |write| write(b"2"));
        assert_eq!(held(&BUDGETS, parent.path()).as_deref(), Some(&b"1"[..]));
    }
}
