//! Tells the shape of a stream by one of its events.

use std::sync::{Arc, LazyLock};

use super::builtin::shapes;
use super::compile::by_spots;
use super::compiled::Shape;
use super::selector::{Reach, Seen, Selector};
use super::tree::{Found, Tree};
use crate::llm::sse::Event;

/// Knows shapes by the events that only they have, in one pass over an event for all of them.
#[derive(Debug, Default)]
pub struct Recogniser {
    tree: Tree,
    shapes: Vec<Known>,
}

#[derive(Debug)]
struct Known {
    shape: Arc<Shape>,
    /// Of all selectors below.
    reach: Reach,
    events: Vec<Selector>,
    /// Events that show it where the stream was taken for the dialect of that name.
    instead_of: Vec<(String, Vec<Selector>)>,
}

impl PartialEq for Recogniser {
    fn eq(&self, other: &Self) -> bool {
        self.shapes.iter().map(|known| &known.shape).eq(other.shapes.iter().map(|known| &known.shape))
    }
}

impl Recogniser {
    /// Knows these shapes; of two that fit the first counts. What one cannot be recognised by is left out.
    pub fn new(shapes: impl IntoIterator<Item = Arc<Shape>>) -> Self {
        let (mut tree, mut known) = (Tree::default(), Vec::new());
        for shape in shapes {
            let by = by_spots(&shape.by, &mut tree);
            let mut read = |written: &[String]| -> Vec<Selector> {
                written.iter().filter_map(|written| Selector::read(written, &by, &mut tree).ok()).collect()
            };
            let events = read(&shape.written.recognise);
            let instead_of = &shape.written.instead_of;
            let instead_of: Vec<_> = instead_of.iter().map(|(name, events)| (name.clone(), read(events))).collect();
            let mut reach = Reach::default();
            events.iter().chain(instead_of.iter().flat_map(|(_, events)| events)).for_each(|one| reach.add(one));
            known.push(Known { shape, reach, events, instead_of });
        }
        Self { tree, shapes: known }
    }

    /// The shape whose event this is, of a stream that was taken for the dialect `guess` so far.
    pub(in crate::llm) fn recognise(&self, guess: &str, event: Event<'_>) -> Option<&Arc<Shape>> {
        if self.shapes.is_empty() {
            return None;
        }
        let mut found = Found::default();
        if let Ok(json) = std::str::from_utf8(event.data) {
            self.tree.find(json, &mut found);
        }
        let seen = Seen { event, found: &found };
        let fits = |known: &&Known| {
            let instead = known.instead_of.iter().filter(|(name, _)| name == guess).flat_map(|(_, events)| events);
            known.reach.has(seen) && known.events.iter().chain(instead).any(|selector| selector.fits(seen))
        };
        self.shapes.iter().find(fits).map(|known| &known.shape)
    }

    /// The names of the shapes.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.shapes.iter().map(|known| known.shape.name())
    }

    /// The shape of that name.
    pub fn named(&self, name: &str) -> Option<&Arc<Shape>> {
        self.shapes.iter().map(|known| &known.shape).find(|shape| shape.name() == name)
    }
}

/// Knows the shapes that are built in.
pub(in crate::llm::dialect) fn built_in_recogniser() -> &'static Recogniser {
    static KNOWN: LazyLock<Recogniser> = LazyLock::new(|| Recogniser::new(shapes().iter().cloned()));
    &KNOWN
}
