//! What the backend saw, for tests to ask: who asked how often, what is open, what was given up on.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::prefix_cache::{PrefixCache, Prompt};

/// Request ids remembered; later ones are not.
const IDS_MAX: usize = 10_000;

#[derive(Default)]
pub(super) struct Stats {
    prefixes: PrefixCache,
    requests: Mutex<HashMap<String, u64>>,
    open: AtomicI64,
    aborted: AtomicU64,
}

/// One answer under way. Dropped before it was [completed](Open::completed), it counts as aborted.
pub(super) struct Open {
    stats: Arc<Stats>,
    completed: AtomicBool,
}

impl Stats {
    pub(super) fn enter(self: &Arc<Self>, request_id: Option<&str>) -> Open {
        if let Some(id) = request_id {
            let mut requests = self.requests.lock();
            if requests.len() < IDS_MAX || requests.contains_key(id) {
                *requests.entry(id.to_owned()).or_default() += 1;
            }
        }
        self.open.fetch_add(1, Ordering::AcqRel);
        Open { stats: Arc::clone(self), completed: AtomicBool::new(false) }
    }

    pub(super) fn json(&self) -> Value {
        let requests = self.requests.lock();
        json!({
            "requests": &*requests,
            "open": self.open.load(Ordering::Acquire),
            "aborted": self.aborted.load(Ordering::Acquire),
        })
    }
}

impl Open {
    /// The prompt of a request that asks for this, with the `kept` prefixes that were used last in the cache; 0: all prompts are alike.
    pub(super) fn prompt(&self, asked: &Value, kept: usize) -> Prompt {
        const ALIKE: Prompt = Prompt { tokens: 9, cached: None };
        let messages = asked.get("messages").and_then(Value::as_array).filter(|_| kept > 0);
        messages.map_or(ALIKE, |messages| self.stats.prefixes.look(messages, kept))
    }

    pub(super) fn completed(&self) {
        self.completed.store(true, Ordering::Release);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.stats.open.fetch_sub(1, Ordering::AcqRel);
        if !self.completed.load(Ordering::Acquire) {
            self.stats.aborted.fetch_add(1, Ordering::AcqRel);
        }
    }
}
