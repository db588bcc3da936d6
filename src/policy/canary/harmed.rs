//! How many users a fact affected: evidence from one or two users may come from the users and not from the canary.

/// Different users from which on it is about the canary.
const ENOUGH: usize = 3;

/// The first few users of whom a fact was true.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Harmed([Option<u64>; ENOUGH]);

impl Harmed {
    pub(super) fn note(&mut self, unit: u64) {
        for place in &mut self.0 {
            match place {
                Some(known) if *known == unit => return,
                Some(_) => {}
                None => {
                    *place = Some(unit);
                    return;
                }
            }
        }
    }

    pub(super) fn are_several(&self) -> bool {
        self.0.iter().all(Option::is_some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_user_counts_once() {
        let mut harmed = Harmed::default();
        for unit in [1, 1, 2, 1, 2] {
            harmed.note(unit);
            assert!(!harmed.are_several());
        }
        harmed.note(3);
        harmed.note(4);
        assert!(harmed.are_several());
    }
}
