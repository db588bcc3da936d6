//! What was looked up lately.

use parking_lot::Mutex;

/// Answers that are remembered at most.
const PLACES: usize = 256;

/// What was found for a model at a provider, or that nothing was. Each name has its place by a hash, and the newest takes it: so it is
/// bounded, whatever names callers make up.
#[derive(Debug)]
pub(super) struct Remembered<T> {
    places: Box<[Mutex<Option<Entry<T>>>]>,
    hasher: ahash::RandomState,
}

#[derive(Debug)]
struct Entry<T> {
    provider: Option<Box<str>>,
    model: Box<str>,
    found: Option<T>,
}

impl<T> Default for Remembered<T> {
    fn default() -> Self {
        Self { places: (0..PLACES).map(|_| Mutex::default()).collect(), hasher: ahash::RandomState::default() }
    }
}

impl<T: Copy> Remembered<T> {
    /// What is known of `model` at `provider`; else what `look_up` finds.
    pub(super) fn get(&self, provider: Option<&str>, model: &str, look_up: impl FnOnce() -> Option<T>) -> Option<T> {
        let at = self.hasher.hash_one((provider, model)) as usize % PLACES;
        let Some(place) = self.places.get(at) else { return look_up() };
        let mut place = place.lock();
        match &*place {
            Some(entry) if *entry.model == *model && entry.provider.as_deref() == provider => entry.found,
            _ => {
                let found = look_up();
                *place = Some(Entry { provider: provider.map(Box::from), model: model.into(), found });
                found
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_looked_up_once_and_few_are_kept() {
        let remembered = Remembered::default();
        assert_eq!(remembered.get(None, "a", || Some(1)), Some(1));
        assert_eq!(remembered.get(None, "a", || Some(2)), Some(1));
        assert_eq!(remembered.get(Some("b"), "a", || None), None);
        for number in 0..10_000 {
            let name = number.to_string();
            assert_eq!(remembered.get(Some("c"), &name, || Some(number)), Some(number));
            assert_eq!(remembered.get(Some("c"), &name, || None), Some(number));
        }
        assert_eq!(remembered.places.len(), PLACES);
    }
}
