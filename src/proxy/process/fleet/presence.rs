//! What each replica of a fleet says of itself, so that the others know who there is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A replica counts as alive for so long after its last word, in ms.
pub(super) const LEASE_MS: u64 = 15_000;

/// Members that are told apart.
pub(super) const MEMBERS_MAX: usize = 256;

/// Largest that is read of what a replica says, in bytes.
pub(super) const BYTES_MAX: usize = 256 << 10;

/// Who says nothing for so long, and is gone after it, did not leave: replicas say a word each two seconds, and a last one when they end.
const SILENT: Duration = Duration::from_secs(6);

/// Whoever went without a word is named for so long.
const NAMED: Duration = Duration::from_secs(600);

/// Of those, so many.
const LOST_MAX: usize = 64;

/// One replica that is alive.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// 16 hexadecimal digits, another at each start.
    pub owner: String,
    /// `None`: nothing that can be read.
    pub says: Option<Presence>,
    /// When it said so, since 1970 by this machine's clock.
    pub heard: Duration,
}

/// One that went without a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    pub owner: String,
    /// Where its admin address was.
    pub admin: String,
    /// Its last word, since 1970 by this machine's clock.
    pub since: Duration,
}

/// Who is of the fleet, as far as its Redis tells.
#[derive(Debug, Clone)]
pub struct Roster {
    /// Who was alive when Redis was last asked, this replica included; most recent words first.
    pub members: Arc<[Member]>,
    /// Who went without a word in the last minutes, the latest first.
    pub lost: Arc<[Lost]>,
    /// When Redis was last asked, since 1970.
    at: Duration,
}

impl Default for Roster {
    fn default() -> Self {
        Self { members: Arc::new([]), lost: Arc::new([]), at: Duration::ZERO }
    }
}

impl Roster {
    /// Who is there `now`.
    pub(super) fn hear(&mut self, members: Vec<Member>, now: Duration) {
        let is_back = |lost: &Lost| {
            let admin = |member: &Member| member.says.as_ref().is_some_and(|says| says.admin == lost.admin);
            members.iter().any(|member| member.owner == lost.owner || !lost.admin.is_empty() && admin(member))
        };
        let gone = self.members.iter().filter(|member| self.at.saturating_sub(member.heard) >= SILENT);
        let gone = gone.map(|member| Lost {
            owner: member.owner.clone(),
            admin: member.says.as_ref().map_or_else(String::new, |says| says.admin.clone()),
            since: member.heard,
        });
        let known = self.lost.iter().filter(|lost| now.saturating_sub(lost.since) < NAMED).cloned();
        self.lost = gone.chain(known).filter(|lost| !is_back(lost)).take(LOST_MAX).collect();
        (self.members, self.at) = (members.into(), now);
    }
}

/// What a replica says of itself. What another version says besides is passed over.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Presence {
    /// The program's version.
    pub version: String,
    /// Where its admin address is reached, as a URL; empty where it cannot be.
    pub admin: String,
    /// The canaries that it takes part in, by their key.
    pub canaries: BTreeMap<String, Follows>,
}

/// How a replica takes part in a canary.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Follows {
    /// A digest of the plan that it would judge by.
    pub plan: String,
    /// The epoch by which it assigns requests; 0: none of the fleet's.
    pub epoch: u64,
    /// How often the state was committed that it follows.
    pub version: u64,
}

/// The reply of `hello.lua`, which came `now`.
pub(super) fn members(reply: &[String], now: Duration) -> Vec<Member> {
    let (members, _) = reply.as_chunks::<3>();
    let members = members.iter().map(|[owner, says, age]| {
        let age = Duration::from_millis(age.parse().unwrap_or_default());
        Member { owner: owner.clone(), says: serde_json::from_str(says).ok(), heard: now.saturating_sub(age) }
    });
    members.take(MEMBERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_still_somebody() {
        let ours = Presence { version: "1".to_owned(), ..Presence::default() };
        let said = [
            ("a", serde_json::to_string(&ours).unwrap()),
            ("b", "{".to_owned()),
            ("c", String::new()),
            ("d", r#"{"version":"9","canaries":{"k":{"plan":"p","epoch":3,"mood":1}},"url":"x"}"#.to_owned()),
        ];
        let with_age = |(owner, says): &(&str, String)| [(*owner).to_owned(), says.clone(), "1500".to_owned()];
        let reply: Vec<String> = said.iter().flat_map(with_age).collect();
        let members = members(&reply, Duration::from_secs(100));
        assert!(members.iter().all(|member| member.heard == Duration::from_millis(98_500)));
        let read: Vec<(&str, bool)> = members.iter().map(|m| (m.owner.as_str(), m.says.is_some())).collect();
        assert_eq!(read, [("a", true), ("b", false), ("c", false), ("d", true)]);
        assert_eq!(
            members[3].says.as_ref().unwrap().canaries["k"],
            Follows { plan: "p".to_owned(), epoch: 3, version: 0 }
        );
    }

    fn member(owner: &str, admin: &str, heard_s: u64) -> Member {
        let says = Presence { admin: admin.to_owned(), ..Presence::default() };
        Member { owner: owner.to_owned(), says: Some(says), heard: Duration::from_secs(heard_s) }
    }

    #[test]
    fn who_went_without_a_word_is_named_until_it_is_back() {
        let mut roster = Roster::default();
        let mut hear = |members: &[Member], now: u64| {
            roster.hear(members.to_vec(), Duration::from_secs(now));
            roster.lost.iter().map(|lost| (lost.owner.clone(), lost.since.as_secs())).collect::<Vec<_>>()
        };
        let (a, killed) = (|at| member("a", "http://a", at), member("b", "http://b", 10));
        assert_eq!(hear(&[a(10), killed.clone(), member("c", "http://c", 10)], 10), []);
        // `c` has left: its last word was a moment ago. `b` has been silent for long when it is told no more.
        assert_eq!(hear(&[a(12), killed.clone()], 12), []);
        assert_eq!(hear(&[a(24), killed], 24), []);
        let lost = [("b".to_owned(), 10)];
        assert_eq!(hear(&[a(26)], 26), lost);
        assert_eq!(hear(&[a(600)], 600), lost);
        assert_eq!(hear(&[a(601), member("new", "http://b", 601)], 601), [], "started anew in its place");
    }

    #[test]
    fn who_left_while_redis_was_away_did_not_go_without_a_word() {
        let mut roster = Roster::default();
        roster.hear(vec![member("a", "", 10), member("b", "", 9)], Duration::from_secs(10));
        roster.hear(vec![member("a", "", 60)], Duration::from_secs(60));
        assert!(roster.lost.is_empty());
        // Whoever tells no address is told apart by its name alone.
        roster.hear(vec![member("a", "", 60)], Duration::from_secs(70));
        roster.hear(vec![member("b", "", 71)], Duration::from_secs(71));
        assert_eq!(roster.lost.len(), 1);
        roster.hear(Vec::new(), Duration::from_secs(60 + 601));
        assert!(roster.lost.is_empty(), "and is forgotten in the end");
    }
}
