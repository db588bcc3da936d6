//! Hints over the fleet's Redis: a short stream that each replica writes to and reads.

use std::fs;
use std::sync::LazyLock;
use std::time::Duration;

use redis::Script;
use sha2::{Digest, Sha256};

use super::link::{Link, NoAnswer};
use crate::policy::hints::{Hint, Kind, NAME_BYTES_MAX, OVERLOADED_MAX, Place};
use crate::proxy::process::state::{Generation, Shared};

/// Entries that the stream keeps, and that are read at once.
const ENTRIES_MAX: usize = 512;

static HINTS: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("hints.lua")));

/// This machine, as far as what is reached without leaving it goes: those in one network namespace have it in common. Empty: it cannot be
/// told from others.
static MACHINE: LazyLock<String> = LazyLock::new(|| {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let network = fs::read_link("/proc/self/ns/net");
    let (Ok(boot), Ok(network)) = (boot, network) else { return String::new() };
    let text = format!("{} {}", boot.trim(), network.display());
    Sha256::digest(text).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
});

/// What another replica told.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    owner: String,
    /// It is on this machine.
    is_here: bool,
    hint: Hint,
}

impl Shared {
    /// Tells the other replicas what waits, and follows what they tell: where nothing waits, if it is `time_to_look`.
    pub(super) async fn share_hints(
        &self,
        link: &Link,
        generation: &Generation,
        time_to_look: bool,
    ) -> Result<(), NoAnswer> {
        let now = self.now();
        let waiting = self.around.hints.due(now);
        if waiting.is_empty() && !time_to_look {
            return Ok(());
        }
        let heard = link.exchange_hints(&waiting).await?;
        self.around.hints.told(waiting, now);
        for told in &heard {
            self.follow_hint(generation, told);
        }
        Ok(())
    }

    /// What is of none of our upstreams is passed over: replicas may have different configurations, and anybody may write to a Redis.
    fn follow_hint(&self, generation: &Generation, Told { owner, is_here, hint }: &Told) {
        let upstream = generation.settings.upstreams.iter().find(|upstream| *upstream.name == *hint.place.upstream);
        let Some((upstream, pool)) =
            upstream.and_then(|upstream| Some((upstream, generation.pools.get(&upstream.name)?)))
        else {
            return;
        };
        for member in pool.meant(&hint.place, *is_here) {
            match hint.kind {
                Kind::CheckHealth if upstream.health.is_some() => pool.want_check(&member),
                Kind::CheckHealth => {}
                Kind::Overloaded => {
                    if pool.told_overloaded(&member, hint.left) {
                        tracing::info!(
                            event = "upstream.overloaded_elsewhere",
                            upstream = &*upstream.name,
                            endpoint = &*member.place.endpoint,
                            address = member.address,
                            replica = owner.as_str(),
                            seconds = hint.left.as_secs_f64(),
                            "endpoint told another replica to wait: it gets fewer requests here too"
                        );
                    }
                }
            }
        }
    }
}

impl Link {
    async fn exchange_hints(&self, waiting: &[Hint]) -> Result<Vec<Told>, NoAnswer> {
        let mut call = HINTS.prepare_invoke();
        call.key(self.hints_key()).arg(self.hints_heard()).arg(OVERLOADED_MAX.as_millis() as u64);
        call.arg(ENTRIES_MAX).arg(NAME_BYTES_MAX).arg(&*self.owner).arg(MACHINE.as_str());
        for Hint { place, kind, left } in waiting {
            call.arg(kind.as_str()).arg(&place.upstream).arg(&place.endpoint).arg(&place.address);
            call.arg(left.as_millis() as u64);
        }
        let reply: Vec<Vec<u8>> = self.run(&call).await?;
        let [_, last, entries @ ..] = reply.as_slice() else { return Err(NoAnswer) };
        self.set_hints_heard(String::from_utf8_lossy(last).into_owned());
        Ok(read(entries, &self.owner, &MACHINE))
    }
}

/// What others than `owner` told, as far as it can be read and is not over.
fn read(entries: &[Vec<u8>], owner: &str, machine: &str) -> Vec<Told> {
    let (entries, _) = entries.as_chunks::<8>();
    let told = entries.iter().filter_map(|entry| {
        let [who, where_, kind, upstream, endpoint, address, held, ago] =
            entry.each_ref().map(|bytes| std::str::from_utf8(bytes).ok());
        let who = who.filter(|who| *who != owner)?;
        let place =
            Place { upstream: upstream?.to_owned(), endpoint: endpoint?.to_owned(), address: address?.to_owned() };
        let kind = Kind::of_word(kind?)?;
        let ms = |text: Option<&str>| Some(Duration::from_millis(text?.parse().ok()?));
        let left = kind.left(ms(held)?, ms(ago)?).filter(|_| place.is_plausible())?;
        let is_here = !machine.is_empty() && where_ == Some(machine);
        Some(Told { owner: who.to_owned(), is_here, hint: Hint { place, kind, left } })
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(values: [&str; 8]) -> Vec<Vec<u8>> {
        values.iter().map(|value| value.as_bytes().to_vec()).collect()
    }

    #[test]
    fn what_others_tell_is_bounded_and_nonsense_is_passed_over() {
        let entries = [
            entry(["other", "m", "overloaded", "u", "h:1", "1.1.1.1:1", "30000", "1000"]),
            entry(["other", "n", "check", "u", "h:1", "1.1.1.1:1", "99999999999", "1"]),
            entry(["own", "m", "check", "u", "h:1", "1.1.1.1:1", "5000", "0"]),
            entry(["other", "m", "eject", "u", "h:1", "1.1.1.1:1", "5000", "0"]),
            entry(["other", "m", "overloaded", "", "h:1", "1.1.1.1:1", "5000", "0"]),
            entry(["other", "m", "overloaded", "u", "h:1", "1.1.1.1:1", "-5", "0"]),
            entry(["other", "m", "overloaded", "u", "h:1", "1.1.1.1:1", "5000", "5000"]),
            vec![b"\xff".to_vec(); 8],
            vec![Vec::new(); 8],
            entry(["", "", "overloaded", "u", "h:1", "1.1.1.1:1", "18446744073709551615", "0"]),
        ]
        .concat();
        let told: Vec<(String, bool, Kind, u128)> = read(&entries, "own", "m")
            .into_iter()
            .map(|told| (told.owner, told.is_here, told.hint.kind, told.hint.left.as_millis()))
            .collect();
        assert_eq!(
            told,
            [
                ("other".to_owned(), true, Kind::Overloaded, 29_000),
                ("other".to_owned(), false, Kind::CheckHealth, 4_999),
                (String::new(), false, Kind::Overloaded, 60_000),
            ]
        );
        assert!(!read(&entries, "own", "")[0].is_here, "a machine without a name is no other's");
        assert_eq!(read(&entries[..7], "own", "m"), [], "a reply that ends within an entry");
    }
}
