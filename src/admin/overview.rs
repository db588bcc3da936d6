//! The last overview of the live view: made for the viewer who comes first, and good for all for a moment.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::Mutex;

/// How long an overview is good for; all viewers share it. Limits are looked at less often: there may be 100,000 holders.
pub(super) const FRESH: Duration = Duration::from_millis(950);
const LIMITS_FRESH: Duration = Duration::from_secs(5);

/// The last overview.
#[derive(Default)]
pub(super) struct Overview(Mutex<Latest>);

#[derive(Default)]
struct Latest {
    overview: Option<(Instant, Bytes)>,
    limits: Option<(Instant, Value)>,
}

impl Overview {
    /// The overview as it stands; where it is too old `make` makes it anew, from limits that `look` may have to look up.
    pub(super) async fn get(&self, look: impl FnOnce() -> Value, make: impl FnOnce(&Value) -> Bytes) -> Bytes {
        let mut latest = self.0.lock().await;
        if let Some((_, overview)) = latest.overview.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return overview.clone();
        }
        let limits = match latest.limits.take().filter(|(at, _)| at.elapsed() < LIMITS_FRESH) {
            Some(kept) => kept,
            None => (Instant::now(), look()),
        };
        let overview = make(&limits.1);
        latest.limits = Some(limits);
        latest.overview = Some((Instant::now(), overview.clone()));
        overview
    }
}
