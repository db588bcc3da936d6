//! What people have taken out of service by hand. Levers outlive reloads: what requests look at are flags that all
//! generations share.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};

use crate::policy::levers::{Lever, Pull, Pulled, Refusal, Saved, Setting};
use crate::telemetry::record::ServerAddress;

/// All levers.
#[derive(Default)]
pub struct Levers {
    table: Mutex<Table>,
    /// Whether any is set: most of the time none is, and nobody needs the lock.
    any: AtomicBool,
    /// The ids of the keys that are revoked.
    revoked: ArcSwap<HashSet<String>>,
    /// Wakes what runs with a key, to look whether it still may.
    shown: watch::Sender<()>,
    /// Rings after each change: it is to be kept at once.
    pub changed: Notify,
    keeping: Mutex<()>,
}

#[derive(Default)]
struct Table {
    pulled: Pulled,
    /// Those that somebody looks at.
    flags: HashMap<Lever, Weak<Flag>>,
    /// Something is not kept yet.
    unsaved: bool,
    /// The sockets go to another process, which has read what was kept.
    sealed: bool,
}

/// How one lever is set, for those whom it keeps from service: which of [`Setting::ALL`], from 1 on; 0: not at all.
#[derive(Debug, Default)]
pub(crate) struct Flag(AtomicU8);

impl Flag {
    pub(crate) fn setting(&self) -> Option<Setting> {
        Setting::ALL.get(usize::from(self.0.load(Ordering::Relaxed)).checked_sub(1)?).copied()
    }

    fn set(&self, setting: Option<Setting>) {
        self.0.store(setting.map_or(0, |setting| setting as u8 + 1), Ordering::Relaxed);
    }
}

/// All flags that keep one address from service: its upstream's, its endpoint's and its own.
#[derive(Debug, Clone)]
pub(crate) struct Flags([Arc<Flag>; 3]);

impl Flags {
    /// How it was taken out of service, if it was: the strongest counts.
    pub(crate) fn setting(&self) -> Option<Setting> {
        self.0.iter().filter_map(|flag| flag.setting()).max()
    }
}

impl Levers {
    /// The flag of a lever.
    pub(crate) fn flag(&self, lever: Lever) -> Arc<Flag> {
        let mut table = self.lock();
        if let Some(flag) = table.flags.get(&lever).and_then(Weak::upgrade) {
            return flag;
        }
        let flag = Arc::new(Flag::default());
        flag.set(table.pulled.get(&lever).map(|pull| pull.setting));
        table.flags.insert(lever, Arc::downgrade(&flag));
        flag
    }

    /// The flags of one address of an endpoint.
    pub(crate) fn flags(&self, upstream: &str, endpoint: &str, address: &str) -> Flags {
        let of = |endpoint: &str| Lever::Endpoint { upstream: upstream.to_owned(), endpoint: endpoint.to_owned() };
        let whole = Lever::Upstream { upstream: upstream.to_owned() };
        Flags([whole, of(endpoint), of(address)].map(|lever| self.flag(lever)))
    }

    /// Forgets flags that nobody looks at any more: a configuration went.
    pub(crate) fn tidy(&self) {
        self.lock().flags.retain(|_, flag| flag.strong_count() > 0);
    }

    /// Sets a lever.
    ///
    /// # Errors
    /// Why that would change nothing.
    pub(crate) fn set(&self, lever: &Lever, pull: Pull) -> Result<(), Refusal> {
        self.change(|pulled| pulled.set(lever, pull))
    }

    /// Lets a lever go; returns those that were set.
    ///
    /// # Errors
    /// Why that would change nothing.
    pub(crate) fn release(&self, lever: &Lever) -> Result<Vec<Lever>, Refusal> {
        self.change(|pulled| pulled.release(lever))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Pulled) -> Result<T, Refusal>) -> Result<T, Refusal> {
        let mut table = self.lock();
        if table.sealed {
            return Err(Refusal::HandingOver);
        }
        let done = change(&mut table.pulled)?;
        table.unsaved = true;
        self.show(&table);
        drop(table);
        self.changed.notify_one();
        Ok(done)
    }

    /// Takes levers up as they were before a restart.
    pub fn restore(&self, pulled: Pulled) {
        let mut table = self.lock();
        table.pulled = pulled;
        self.show(&table);
    }

    /// Sets all flags.
    fn show(&self, table: &Table) {
        for (lever, flag) in &table.flags {
            if let Some(flag) = flag.upgrade() {
                flag.set(table.pulled.get(lever).map(|pull| pull.setting));
            }
        }
        self.revoked.store(Arc::new(table.pulled.revoked().map(str::to_owned).collect()));
        self.any.store(!table.pulled.is_empty(), Ordering::Release);
        self.shown.send_replace(());
    }

    /// Those that are set.
    pub fn pulled(&self) -> Pulled {
        self.lock().pulled.clone()
    }

    /// Whether the key with this public id is revoked.
    pub(crate) fn is_revoked(&self, key: &str) -> bool {
        self.any.load(Ordering::Acquire) && self.revoked.load().contains(key)
    }

    /// Resolves once the key with this public id is revoked; never where there is none.
    pub(crate) async fn revoked(&self, key: Option<&str>) {
        let Some(key) = key else { return std::future::pending().await };
        let mut shown = self.shown.subscribe();
        while !self.is_revoked(key) {
            // The sender lives as long as `self`.
            let _ = shown.changed().await;
        }
    }

    /// Whether the place that was asked has been taken out of service since.
    pub(crate) fn is_out(&self, upstream: &str, place: &ServerAddress) -> bool {
        if !self.any.load(Ordering::Acquire) {
            return false;
        }
        let of = |endpoint: String| Lever::Endpoint { upstream: upstream.to_owned(), endpoint };
        let table = self.lock();
        let is_set = |lever: Lever| table.pulled.get(&lever).is_some();
        is_set(Lever::Upstream { upstream: upstream.to_owned() })
            || is_set(of(place.endpoint.to_string()))
            || place.peer.is_some_and(|peer| is_set(of(peer.to_string())))
    }

    /// From now on nothing changes: another process takes over. What is set goes on.
    pub fn seal(&self) {
        self.lock().sealed = true;
    }

    /// No other process took over.
    pub fn unseal(&self) {
        self.lock().sealed = false;
    }

    /// Has what changed since it was last kept written as JSON; nothing is written where nothing changed.
    ///
    /// # Errors
    /// What `write` says. The next call tries again.
    pub fn keep(&self, write: impl FnOnce(&[u8]) -> io::Result<()>) -> io::Result<()> {
        // One after the other, so that the last one written is the newest.
        let _one_at_a_time = self.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        let mut table = self.lock();
        if !std::mem::take(&mut table.unsaved) {
            return Ok(());
        }
        let json = serde_json::to_vec(&Saved::of(&table.pulled));
        drop(table);
        let written = json.map_err(io::Error::from).and_then(|json| write(&json));
        if written.is_err() {
            self.lock().unsaved = true;
        }
        written
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn pull(setting: Setting) -> Pull {
        Pull { setting, since: Duration::ZERO, by: "test".to_owned(), reason: None }
    }

    fn endpoint(name: &str) -> Lever {
        Lever::Endpoint { upstream: "a".to_owned(), endpoint: name.to_owned() }
    }

    #[test]
    fn a_lever_holds_for_who_looks_before_and_after() {
        let levers = Levers::default();
        let before = levers.flags("a", "h:1", "10.0.0.1:1");
        levers.set(&endpoint("h:1"), pull(Setting::Drained)).unwrap();
        let after = levers.flags("a", "h:1", "10.0.0.1:1");
        let other = levers.flags("a", "h:2", "10.0.0.2:1");
        assert_eq!(
            [&before, &after, &other].map(Flags::setting),
            [Some(Setting::Drained), Some(Setting::Drained), None]
        );
        levers.set(&endpoint("10.0.0.1:1"), pull(Setting::Disabled)).unwrap();
        assert_eq!(before.setting(), Some(Setting::Disabled), "the strongest counts");
        levers.release(&endpoint("10.0.0.1:1")).unwrap();
        levers.release(&endpoint("h:1")).unwrap();
        assert_eq!([&before, &after].map(Flags::setting), [None, None]);
    }

    #[test]
    fn flags_are_forgotten_with_their_configuration_and_levers_are_not() {
        let levers = Levers::default();
        let flags = levers.flags("a", "h:1", "h:1");
        levers.set(&endpoint("h:1"), pull(Setting::Drained)).unwrap();
        drop(flags);
        levers.tidy();
        assert!(levers.lock().flags.is_empty());
        assert_eq!(levers.flags("a", "h:1", "h:1").setting(), Some(Setting::Drained));
    }

    #[tokio::test]
    async fn what_runs_with_a_key_hears_of_its_end_and_of_no_other() {
        let key = |id: &str| Lever::Key { key: id.to_owned() };
        let levers = Arc::new(Levers::default());
        let waiting = tokio::spawn({
            let levers = Arc::clone(&levers);
            async move { levers.revoked(Some("0123456789ab")).await }
        });
        levers.set(&key("ba9876543210"), pull(Setting::Revoked)).unwrap();
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "another's");
        levers.set(&key("0123456789ab"), pull(Setting::Revoked)).unwrap();
        waiting.await.unwrap();
        levers.revoked(Some("0123456789ab")).await;
        let never = levers.revoked(None);
        assert!(futures_util::FutureExt::now_or_never(never).is_none());
    }

    #[test]
    fn what_was_restored_holds_and_what_is_sealed_changes_no_more() {
        let (levers, next) = (Levers::default(), Levers::default());
        let key = Lever::Key { key: "0123456789ab".to_owned() };
        let kept = || {
            let mut kept = None;
            levers
                .keep(|json| {
                    kept = Some(json.to_vec());
                    Ok(())
                })
                .unwrap();
            kept
        };
        assert_eq!(kept(), None, "nothing has changed");
        levers.set(&key, pull(Setting::Revoked)).unwrap();
        assert!(levers.is_revoked("0123456789ab") && !levers.is_revoked("other"));
        levers.keep(|_| Err(io::Error::other("the disk is full"))).unwrap_err();
        let json = kept().unwrap();
        assert_eq!(kept(), None);
        next.restore(Saved::read(&json).unwrap());
        assert!(next.is_revoked("0123456789ab"));
        next.seal();
        assert_eq!(next.release(&key), Err(Refusal::HandingOver));
        next.unseal();
        next.release(&key).unwrap();
        assert!(!next.is_revoked("0123456789ab"));
    }
}
