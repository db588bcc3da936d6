//! Tells when one of the configuration's files may have changed.
//!
//! The directories are watched, not the files: editors replace files, and Kubernetes swaps a symlink beside them. A slow
//! look in between finds what no event told (network file systems).

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::symlinks::links_on_the_way;
use crate::proxy::every;

/// After an event, wait until none came for so long: a file is often written in several steps.
const QUIET: Duration = Duration::from_millis(100);

/// But no longer than this: a busy directory must not put a reload off for ever.
const QUIET_MAX: Duration = Duration::from_secs(1);

/// How often to look without an event.
const SLOW_LOOK: Duration = Duration::from_secs(30);

/// Watches directories.
pub(super) struct Watch {
    /// `None`: the system offers no watching, and only the slow look remains.
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
    /// The names of the files, here and where symlinks lead.
    names: Arc<Mutex<BTreeSet<OsString>>>,
    events: mpsc::Receiver<()>,
    slow: tokio::time::Interval,
}

impl Watch {
    pub(super) fn new() -> Self {
        // One place is enough: an event that finds it taken tells nothing new.
        let (sender, events) = mpsc::channel(1);
        let names = Arc::<Mutex<BTreeSet<OsString>>>::default();
        let known = Arc::clone(&names);
        let tell = move |event: notify::Result<notify::Event>| {
            if event.map_or(true, |event| is_change(&event, &known.lock())) {
                let _ = sender.try_send(());
            }
        };
        let watcher = match notify::recommended_watcher(tell) {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                tracing::warn!(%error, every = ?SLOW_LOOK, "cannot watch files for changes; they are looked at from time to time");
                None
            }
        };
        let slow = every(SLOW_LOOK);
        Self { watcher, watched: BTreeSet::new(), names, events, slow }
    }

    /// Watches the directories of `files`, and of every symlink on the way to them, and no others. Tells whether there are new
    /// ones: what happened there before they were watched nobody told.
    pub(super) fn follow<'a>(&mut self, files: impl Iterator<Item = &'a Path>) -> bool {
        let files: BTreeSet<PathBuf> = files.flat_map(links_on_the_way).collect();
        *self.names.lock() = files.iter().filter_map(|file| file.file_name().map(OsString::from)).collect();
        let wanted: BTreeSet<PathBuf> = files.iter().filter_map(|file| directory(file)).collect();
        let Some(watcher) = &mut self.watcher else { return false };
        for gone in self.watched.difference(&wanted) {
            // One that was removed meanwhile is not watched any more anyway.
            let _ = watcher.unwatch(gone);
        }
        for directory in &wanted {
            // Also those watched before: a directory that was made anew needs a new watch.
            if let Err(error) = watcher.watch(directory, RecursiveMode::NonRecursive) {
                tracing::warn!(directory = %directory.display(), %error, "cannot watch a directory for changes");
            }
        }
        let is_wider = !wanted.is_subset(&self.watched);
        self.watched = wanted;
        is_wider
    }

    /// Resolves when it is time to look at the files.
    pub(super) async fn changed(&mut self) {
        tokio::select! {
            event = self.events.recv() => match event {
                Some(()) => self.settle().await,
                None => { self.slow.tick().await; }
            },
            _ = self.slow.tick() => {}
        }
    }

    async fn settle(&mut self) {
        let latest = Instant::now() + QUIET_MAX;
        loop {
            let until = (Instant::now() + QUIET).min(latest);
            match tokio::time::timeout_at(until, self.events.recv()).await {
                Ok(Some(())) if Instant::now() < latest => {}
                _ => return,
            }
        }
    }
}

/// Our own reading of a file is an event too, but no change. Nor is it one when somebody writes to another file of the
/// directory, as logs are all the time; what is made, moved or removed there may be a symlink on the way to ours.
fn is_change(event: &Event, names: &BTreeSet<OsString>) -> bool {
    let is_ours = |path: &PathBuf| path.file_name().is_none_or(|name| names.contains(name));
    match event.kind {
        EventKind::Modify(ModifyKind::Data(_)) | EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
            event.paths.is_empty() || event.paths.iter().any(is_ours)
        }
        EventKind::Access(_) => false,
        _ => true,
    }
}

fn directory(file: &Path) -> Option<PathBuf> {
    file.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent }.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use notify::event::{CreateKind, DataChange, RenameMode};
    use std::fs;
    use std::os::unix::fs::symlink;

    async fn tells(watch: &mut Watch) {
        tokio::time::timeout(Duration::from_secs(10), watch.changed()).await.expect("the change is told");
    }

    /// A watch whose slow look has just been, so that only events can tell.
    async fn following(file: &Path) -> Watch {
        let mut watch = Watch::new();
        watch.slow.tick().await;
        watch.follow([file].into_iter());
        watch
    }

    #[tokio::test]
    async fn writing_and_replacing_a_file_are_told() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("streamgauge.toml");
        fs::write(&file, "one").unwrap();
        let mut watch = following(&file).await;
        fs::write(&file, "two").unwrap();
        tells(&mut watch).await;
        let beside = directory.path().join(".new");
        fs::write(&beside, "three").unwrap();
        fs::rename(&beside, &file).unwrap();
        tells(&mut watch).await;
    }

    #[tokio::test]
    async fn a_swapped_symlink_is_told() {
        // As a Kubernetes ConfigMap is mounted: file → ..data/file, ..data → a directory with a date.
        let mount = tempfile::tempdir().unwrap();
        for (name, content) in [("..1", "one"), ("..2", "two")] {
            fs::create_dir(mount.path().join(name)).unwrap();
            fs::write(mount.path().join(name).join("streamgauge.toml"), content).unwrap();
        }
        symlink("..1", mount.path().join("..data")).unwrap();
        let file = mount.path().join("streamgauge.toml");
        symlink("..data/streamgauge.toml", &file).unwrap();
        let mut watch = following(&file).await;
        symlink("..2", mount.path().join("..tmp")).unwrap();
        fs::rename(mount.path().join("..tmp"), mount.path().join("..data")).unwrap();
        tells(&mut watch).await;
        assert_eq!(fs::read_to_string(&file).unwrap(), "two");
    }

    #[tokio::test]
    async fn a_link_that_dangled_is_found_again() {
        let place = tempfile::tempdir().unwrap();
        let release = |name: &str| {
            let release = place.path().join(name);
            fs::create_dir(&release).unwrap();
            fs::write(release.join("streamgauge.toml"), name).unwrap();
        };
        release("1");
        let etc = place.path().join("etc");
        fs::create_dir(&etc).unwrap();
        let file = etc.join("streamgauge.toml");
        symlink("../current/streamgauge.toml", &file).unwrap();
        symlink("1", place.path().join("current")).unwrap();
        let mut watch = following(&file).await;
        // Away: first what the link leads to, then the way to it.
        fs::remove_dir_all(place.path().join("1")).unwrap();
        tells(&mut watch).await;
        watch.follow([file.as_path()].into_iter());
        fs::remove_file(place.path().join("current")).unwrap();
        tells(&mut watch).await;
        watch.follow([file.as_path()].into_iter());
        release("2");
        symlink("2", place.path().join("current")).unwrap();
        tells(&mut watch).await;
        assert!(watch.follow([file.as_path()].into_iter()), "what is new there is to be looked at");
        fs::write(place.path().join("2/streamgauge.toml"), "again").unwrap();
        tells(&mut watch).await;
    }

    #[test]
    fn our_own_reading_is_no_change() {
        let names = BTreeSet::from([OsString::from("streamgauge.toml")]);
        let is_change = |kind| is_change(&Event::new(kind).add_path("/etc/streamgauge.toml".into()), &names);
        let read = [AccessKind::Read, AccessKind::Open(AccessMode::Read), AccessKind::Close(AccessMode::Read)];
        for access in read {
            assert!(!is_change(EventKind::Access(access)), "{access:?}");
        }
        assert!(is_change(EventKind::Access(AccessKind::Close(AccessMode::Write))));
        assert!(is_change(EventKind::Any));
    }

    #[test]
    fn what_is_written_to_other_files_is_no_change() {
        let names = BTreeSet::from([OsString::from("streamgauge.toml")]);
        let of = |path: &str, kind| is_change(&Event::new(kind).add_path(path.into()), &names);
        let written = [
            EventKind::Modify(ModifyKind::Data(DataChange::Any)),
            EventKind::Access(AccessKind::Close(AccessMode::Write)),
        ];
        for kind in written {
            assert!(!of("/etc/access.log", kind), "{kind:?}");
            assert!(of("/etc/streamgauge.toml", kind), "{kind:?}");
            assert!(is_change(&Event::new(kind), &names), "of which file is not told");
        }
        for kind in [EventKind::Create(CreateKind::Any), EventKind::Modify(ModifyKind::Name(RenameMode::To))] {
            assert!(of("/etc/..data", kind), "{kind:?}");
        }
    }
}
