//! What a replica asks the fleet's Redis about a canary: one script a question.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use redis::{Script, ScriptInvocation};

use super::link::{Link, NoAnswer};
use super::outbox::Batch;
use crate::policy::canary::{Entry, Id, Rank, unpack};

/// What nobody writes for so long is forgotten.
const KEPT_MS: u64 = 30 * 24 * 3_600 * 1_000;

/// How long a judge may be silent before another takes its place.
const LEASE_MS: u64 = 3_000;

/// Entries that a stream keeps, about.
const STREAM_MAX: usize = 4_096;

/// Entries that are read at once.
const ENTRIES_MAX: usize = 256;

/// The share that stands for no state.
const NO_STATE: u8 = u8::MAX;

static LOOK: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("look.lua")));
static COMMIT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("commit.lua")));
static OFFER: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("offer.lua")));
static SEND: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("send.lua")));
static ENTRIES: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("entries.lua")));

/// Name and value of each field of a state.
pub(super) type Fields = HashMap<String, Vec<u8>>;

/// How a canary stands in the store.
#[derive(Debug)]
pub(super) struct Look {
    /// By the store's clock, since 1970.
    pub(super) now: Duration,
    /// Who judges; empty: nobody.
    pub(super) judge: String,
    /// `None`: there is no state.
    pub(super) rank: Option<Rank>,
    /// Empty where they are known already.
    pub(super) fields: Fields,
}

/// What the judge has not read.
pub(super) struct Unread {
    /// The stream is another than the one that the cursor is of.
    pub(super) rewinds: bool,
    pub(super) entries: Vec<Entry>,
    /// How many of them hold nothing that can be read.
    pub(super) unreadable: usize,
}

/// What a look is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    /// To follow, and to judge where nobody does. With what is known already.
    Following(Option<Rank>),
    /// To go on with all of it.
    Deciding,
}

impl Link {
    pub(super) async fn look(&self, canary: &str, why: For) -> Result<Look, NoAnswer> {
        let (lease, known, all) = match why {
            For::Following(known) => (LEASE_MS, known, 0),
            For::Deciding => (0, None, 1),
        };
        let mut call = LOOK.prepare_invoke();
        call.key(self.key("canary", canary)).key(self.key("judge", canary));
        let known = known.unwrap_or(Rank { version: 0, share: NO_STATE });
        call.arg(&*self.owner).arg(lease).arg(known.version).arg(known.share).arg(all);
        let reply: Vec<Vec<u8>> = self.run(&call).await?;
        read_look(reply).ok_or(NoAnswer)
    }

    /// Writes a state, if nobody wrote since `version`. Whether it was written.
    pub(super) async fn commit(
        &self,
        canary: &str,
        version: u64,
        fields: &[(String, Vec<u8>)],
    ) -> Result<bool, NoAnswer> {
        let mut call = COMMIT.prepare_invoke();
        call.key(self.key("canary", canary)).arg(version).arg(KEPT_MS);
        for (name, value) in fields {
            call.arg(name).arg(value.as_slice());
        }
        self.run(&call).await
    }

    /// Puts a state in place of one that has come less far. Whether it was taken.
    pub(super) async fn offer(&self, canary: &str, rank: Rank, fields: &[(String, Vec<u8>)]) -> Result<bool, NoAnswer> {
        let mut call = OFFER.prepare_invoke();
        call.key(self.key("canary", canary)).arg(rank.version).arg(rank.share).arg(KEPT_MS);
        for (name, value) in fields {
            call.arg(name).arg(value.as_slice());
        }
        self.run(&call).await
    }

    /// Tells batches to the judge. Where the last of them is in the stream.
    pub(super) async fn send(&self, canary: &str, batches: &[Batch]) -> Result<Id, NoAnswer> {
        let id: String = self.run(&self.send_call(canary, batches)).await?;
        id.parse().map_err(|()| NoAnswer)
    }

    pub(super) fn send_call(&self, canary: &str, batches: &[Batch]) -> ScriptInvocation<'static> {
        let mut call = SEND.prepare_invoke();
        call.key(self.key("samples", canary)).arg(KEPT_MS).arg(STREAM_MAX).arg(&*self.owner);
        for batch in batches {
            call.arg(batch.number).arg(batch.waited_ms()).arg(batch.packed.as_slice());
        }
        call
    }

    /// What was told after `cursor`.
    pub(super) async fn unread(&self, canary: &str, cursor: Id) -> Result<Unread, NoAnswer> {
        let mut call = ENTRIES.prepare_invoke();
        call.key(self.key("samples", canary)).arg(cursor.0).arg(cursor.1).arg(ENTRIES_MAX);
        let reply: Vec<Vec<u8>> = self.run(&call).await?;
        Ok(read_entries(&reply))
    }
}

fn read_look(reply: Vec<Vec<u8>>) -> Option<Look> {
    let mut reply = reply.into_iter();
    let mut next = || String::from_utf8(reply.next()?).ok();
    let now = Duration::from_millis(next()?.parse().ok()?);
    let judge = next()?;
    let (version, share) = (next()?.parse().ok()?, next()?.parse().ok()?);
    let rank = (share != NO_STATE && version > 0).then_some(Rank { version, share });
    let mut fields = Fields::new();
    while let (Some(name), Some(value)) = (reply.next(), reply.next()) {
        fields.insert(String::from_utf8(name).ok()?, value);
    }
    Some(Look { now, judge, rank, fields })
}

fn read_entries(reply: &[Vec<u8>]) -> Unread {
    let (rewinds, entries) = reply.split_first().map_or((false, &[][..]), |(first, rest)| (first == b"1", rest));
    let mut unreadable = 0;
    let (entries, _) = entries.as_chunks::<5>();
    let entries = entries.iter().filter_map(|[id, owner, number, waited, packed]| {
        let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
        let id: Id = text(id)?.parse().ok()?;
        let read = || {
            let origin = u64::from_str_radix(&text(owner)?, 16).ok()?;
            let waited = Duration::from_millis(text(waited)?.parse().ok()?);
            let told = Duration::from_millis(id.0).saturating_sub(waited);
            let samples = unpack(packed, told, origin)?;
            Some(Entry { id, origin, number: text(number)?.parse().ok()?, samples })
        };
        // It is passed over, and so the cursor must go beyond it.
        Some(read().unwrap_or_else(|| {
            unreadable += 1;
            Entry { id, origin: 0, number: 0, samples: Vec::new() }
        }))
    });
    let entries = entries.collect();
    Unread { rewinds, entries, unreadable }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(values: &[&str]) -> Vec<Vec<u8>> {
        values.iter().map(|value| value.as_bytes().to_vec()).collect()
    }

    #[test]
    fn a_look_is_read_or_refused() {
        let look = read_look(bytes(&["1500", "a1", "7", "25", "epoch", "3"])).unwrap();
        assert_eq!((look.now, &*look.judge), (Duration::from_millis(1500), "a1"));
        assert_eq!(look.rank, Some(Rank { version: 7, share: 25 }));
        assert_eq!(look.fields["epoch"], b"3");
        assert_eq!(read_look(bytes(&["1", "", "0", "255"])).unwrap().rank, None);
        for broken in [&[][..], &["x", "0", "0", "0"], &["1", "0"], &["1", "0", "1", "900"]] {
            assert!(read_look(bytes(broken)).is_none(), "{broken:?}");
        }
    }

    #[test]
    fn what_others_put_into_the_stream_is_passed_over() {
        let foreign =
            ["0", "5-1", "", "", "", "", "6-0", "00000000000000ff", "3", "2", "\u{1}", "7-0", "zz", "1", "0", "\u{1}"];
        let unread = read_entries(&bytes(&foreign));
        assert!(!unread.rewinds);
        assert_eq!(unread.unreadable, 2);
        let told: Vec<(Id, u64, u64)> =
            unread.entries.iter().map(|entry| (entry.id, entry.origin, entry.number)).collect();
        assert_eq!(told, [(Id(5, 1), 0, 0), (Id(6, 0), 255, 3), (Id(7, 0), 0, 0)]);
        assert!(read_entries(&bytes(&["1"])).rewinds);
    }
}
