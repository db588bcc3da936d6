//! The times of tokens, in a small ring buffer for each stream.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

use crate::telemetry::json::{self, Json};

/// Token frames whose times are kept of a stream: looked at four times a second, a stream of 250 tokens a second loses none.
const TICKS: usize = 64;

/// When the last token frames passed, in milliseconds since the request's head. One writes, many read; a reader that is
/// overtaken sees a newer time in place of an older one.
pub(super) struct Ticks {
    count: AtomicU32,
    times: [AtomicU32; TICKS],
}

impl Default for Ticks {
    fn default() -> Self {
        Self { count: AtomicU32::new(0), times: std::array::from_fn(|_| AtomicU32::new(0)) }
    }
}

impl Ticks {
    pub(super) fn push(&self, at: Duration) {
        let count = self.count.load(Relaxed);
        if let Some(slot) = self.times.get(count as usize % TICKS) {
            slot.store(u32::try_from(at.as_millis()).unwrap_or(u32::MAX), Relaxed);
        }
        self.count.store(count.wrapping_add(1), Release);
    }

    /// Writes `"ticks":[first, then differences]` for those after the first `seen`, and `"ticks_lost"` for those that are
    /// kept no more.
    pub(super) fn render(&self, seen: u32, row: &mut Json<'_>) -> u32 {
        let count = self.count.load(Acquire);
        let new = count.wrapping_sub(seen);
        let kept = new.min(TICKS as u32);
        if kept > 0 {
            let mut ticks = row.array("ticks");
            let mut last = 0;
            for number in count.wrapping_sub(kept)..count {
                let at = self.times.get(number as usize % TICKS).map_or(0, |slot| slot.load(Relaxed));
                ticks.element_raw(|out| json::integer(out, u64::from(at.saturating_sub(last))));
                last = at.max(last);
            }
            ticks.end();
        }
        row.number_if("ticks_lost", Some(u64::from(new - kept)).filter(|lost| *lost > 0));
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(ticks: &Ticks, seen: u32) -> (u32, String) {
        let mut out = String::new();
        let mut row = Json::object(&mut out);
        let count = ticks.render(seen, &mut row);
        row.end();
        (count, out)
    }

    #[test]
    fn a_reader_gets_what_is_new_and_hears_what_it_missed() {
        let ticks = Ticks::default();
        assert_eq!(rendered(&ticks, 0), (0, "{}".to_owned()));
        for at in [100, 110, 125] {
            ticks.push(Duration::from_millis(at));
        }
        assert_eq!(rendered(&ticks, 0), (3, r#"{"ticks":[100,10,15]}"#.to_owned()));
        assert_eq!(rendered(&ticks, 2), (3, r#"{"ticks":[125]}"#.to_owned()));
        assert_eq!(rendered(&ticks, 3), (3, "{}".to_owned()));
        (0..70).for_each(|step| ticks.push(Duration::from_millis(200 + step)));
        let (count, text) = rendered(&ticks, 3);
        assert_eq!(count, 73);
        assert!(text.starts_with(r#"{"ticks":[206,1,1"#) && text.ends_with(r#"],"ticks_lost":6}"#), "{text}");
    }
}
