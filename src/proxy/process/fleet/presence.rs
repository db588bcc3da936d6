//! What each replica of a fleet says of itself, so that the others know who there is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A replica counts as alive for so long after its last word, in ms.
pub(super) const LEASE_MS: u64 = 15_000;

/// Members that are told apart.
pub(super) const MEMBERS_MAX: usize = 256;

/// Largest that is read of what a replica says, in bytes.
pub(super) const BYTES_MAX: usize = 256 << 10;

/// One replica that is alive.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// 16 hexadecimal digits, another at each start.
    pub owner: String,
    /// `None`: nothing that can be read.
    pub says: Option<Presence>,
}

/// What a replica says of itself. What another version says besides is passed over.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Presence {
    /// The program's version.
    pub version: String,
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

/// The reply of `hello.lua`.
pub(super) fn members(reply: &[String]) -> Vec<Member> {
    let pairs = reply.chunks_exact(2).filter_map(|pair| match pair {
        [owner, says] => Some(Member { owner: owner.clone(), says: serde_json::from_str(says).ok() }),
        _ => None,
    });
    pairs.take(MEMBERS_MAX).collect()
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
        let reply: Vec<String> = said.iter().flat_map(|(owner, says)| [(*owner).to_owned(), says.clone()]).collect();
        let members = members(&reply);
        let read: Vec<(&str, bool)> = members.iter().map(|m| (m.owner.as_str(), m.says.is_some())).collect();
        assert_eq!(read, [("a", true), ("b", false), ("c", false), ("d", true)]);
        assert_eq!(
            members[3].says.as_ref().unwrap().canaries["k"],
            Follows { plan: "p".to_owned(), epoch: 3, version: 0 }
        );
    }
}
