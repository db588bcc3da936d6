//! Tells the calls of models apart whose usage one stream tells.

use super::selector::{Seen, Selector, Spot, is_filled};
use super::value::hashed;
use crate::llm::calls::{Calls, Taken};

/// What tells the calls of a stream apart.
#[derive(Debug)]
pub(super) struct CallsApart {
    /// Where the id of a call stands; the first that has one counts.
    pub(super) ids: Vec<Spot>,
    pub(super) end: Vec<Selector>,
    pub(super) pieces: Vec<Selector>,
    pub(super) earlier: Vec<Selector>,
}

impl CallsApart {
    /// The call that an event tells of.
    pub(super) fn id(&self, seen: Seen<'_, '_>) -> u64 {
        let is_id = |value: &&str| is_filled(value.as_bytes()) && !value.starts_with(['{', '[']);
        let id = self.ids.iter().find_map(|spot| seen.value(*spot).filter(is_id));
        id.map_or(Calls::NAMELESS, hashed)
    }

    /// Whether a call is over after an event.
    pub(super) fn ends(&self, seen: Seen<'_, '_>) -> bool {
        self.end.iter().any(|when| when.fits(seen))
    }

    /// How the usage that an event tells is taken; `None` where that is for the shape around this one to say.
    pub(super) fn taken(&self, seen: Seen<'_, '_>, met_earlier: &mut bool) -> Option<Taken> {
        if self.pieces.is_empty() && self.earlier.is_empty() {
            return None;
        }
        if !*met_earlier && self.earlier.iter().any(|when| when.fits(seen)) {
            *met_earlier = true;
            return Some(Taken::Earlier);
        }
        let is_piece = self.pieces.iter().any(|when| when.fits(seen));
        Some(if is_piece { Taken::Piece } else { Taken::Whole })
    }
}
