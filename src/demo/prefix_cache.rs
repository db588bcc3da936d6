//! A cache of prompt prefixes, as inference servers keep one: the messages that a request has in common with earlier ones cost nothing
//! again. For showing what session affinity is worth.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use parking_lot::Mutex;
use serde_json::Value;

/// About so many bytes of a message a token.
const BYTES_PER_TOKEN: u64 = 4;

/// The prefixes that were used last.
#[derive(Default)]
pub(super) struct PrefixCache(Mutex<Prefixes>);

#[derive(Default)]
struct Prefixes {
    /// When each was used last, by the hash of its messages.
    used: HashMap<u64, u64>,
    now: u64,
}

/// Tokens of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Prompt {
    pub(super) tokens: u64,
    /// `None`: nothing is kept.
    pub(super) cached: Option<u64>,
}

impl PrefixCache {
    /// Counts a prompt, and keeps its prefixes; beyond `max` those go that were not used for the longest.
    pub(super) fn look(&self, messages: &[Value], max: usize) -> Prompt {
        let mut prefixes = self.0.lock();
        let mut hasher = DefaultHasher::new();
        let (mut tokens, mut cached) = (0, 0);
        for message in messages {
            let text = message.to_string();
            text.hash(&mut hasher);
            tokens += (text.len() as u64).div_ceil(BYTES_PER_TOKEN);
            prefixes.now += 1;
            let now = prefixes.now;
            if prefixes.used.insert(hasher.finish(), now).is_some() {
                cached = tokens;
            }
        }
        while prefixes.used.len() > max {
            let oldest = prefixes.used.iter().min_by_key(|(_, used)| **used).map(|(prefix, _)| *prefix);
            oldest.and_then(|prefix| prefixes.used.remove(&prefix));
        }
        Prompt { tokens, cached: Some(cached) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_prompts_have_in_common_is_cached_and_the_oldest_goes() {
        let cache = PrefixCache::default();
        let message = |text: &str| Value::String(text.repeat(2));
        let [a, b, c] = ["aaa", "bbb", "ccc"].map(message);
        let look = |messages: &[&Value]| {
            let messages: Vec<Value> = messages.iter().map(|message| (*message).clone()).collect();
            let Prompt { tokens, cached } = cache.look(&messages, 3);
            (tokens, cached.unwrap())
        };
        assert_eq!(look(&[&a]), (2, 0));
        assert_eq!(look(&[&a, &b]), (4, 2));
        assert_eq!(look(&[&a, &b]), (4, 4));
        assert_eq!(look(&[&b]), (2, 0), "a prefix, not a part");
        assert_eq!(look(&[&c]), (2, 0), "the fourth: the first goes");
        assert_eq!(look(&[&a]), (2, 0));
    }
}
