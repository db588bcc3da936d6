//! Random identities: trace, span and request ids. Fast, unique over threads, processes and restarts, and no secret.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// 64 random bits.
pub fn random() -> u64 {
    GENERATOR.with(|cell| {
        let mut generator = cell.get();
        let id = generator.next();
        cell.set(generator);
        id
    })
}

/// A span id: never zero, as W3C trace context asks.
pub fn new_span_id() -> u64 {
    loop {
        let id = random();
        if id != 0 {
            return id;
        }
    }
}

/// A trace id: never zero. Its low half is random, so that ratio samplers downstream agree with ours.
pub fn new_trace_id() -> u128 {
    (u128::from(random()) << 64) | u128::from(new_span_id())
}

/// A request id: 32 hexadecimal digits.
pub fn new_request_id() -> Arc<str> {
    let mut digits = [0; 32];
    Arc::from(hex((u128::from(random()) << 64) | u128::from(random()), &mut digits))
}

/// `value` in as many lower-case hexadecimal digits as `digits` holds.
pub(crate) fn hex(value: u128, digits: &mut [u8]) -> &str {
    let mut rest = value;
    for digit in digits.iter_mut().rev() {
        let nibble = (rest & 0xf) as u8;
        *digit = if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
        rest >>= 4;
    }
    std::str::from_utf8(digits).unwrap_or_default()
}

thread_local! {
    static GENERATOR: Cell<Generator> = Cell::new(Generator::seeded());
}

/// xoshiro256++ (Blackman and Vigna, public domain): 256 bits of state, so that the sequences of many threads do not
/// meet; a system call an id would cost more than all else that is recorded.
#[derive(Clone, Copy)]
struct Generator([u64; 4]);

impl Generator {
    /// Seeded from the keys that the system's randomness gave the standard library, the time and a counter.
    fn seeded() -> Self {
        static SEEDS: AtomicU64 = AtomicU64::new(0);
        let salt = (SEEDS.fetch_add(1, Ordering::Relaxed), SystemTime::now(), std::process::id());
        let word = |part: u64| RandomState::new().hash_one((salt, part));
        // The all-zero state, which would stay zero, is ruled out by the last bit.
        Self([word(0), word(1), word(2), word(3) | 1])
    }

    fn next(&mut self) -> u64 {
        let [a, b, c, d] = self.0;
        let result = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let shifted = b << 17;
        let (c, d) = (c ^ a, d ^ b);
        self.0 = [a ^ d, b ^ c, c ^ shifted, d.rotate_left(45)];
        result
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_generator_is_xoshiro256_plus_plus() {
        // The first outputs of the reference implementation from the state 1, 2, 3, 4.
        let mut generator = Generator([1, 2, 3, 4]);
        let outputs: [u64; 5] = std::array::from_fn(|_| generator.next());
        assert_eq!(
            outputs,
            [41_943_041, 58_720_359, 3_588_806_011_781_223, 3_591_011_842_654_386, 9_228_616_714_210_784_205]
        );
    }

    #[test]
    fn ids_of_many_threads_are_unique_and_not_zero() {
        let threads: Vec<_> = (0..8)
            .map(|_| std::thread::spawn(|| (0..10_000).map(|_| (new_trace_id(), new_span_id())).collect::<Vec<_>>()))
            .collect();
        let ids: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        assert!(ids.iter().all(|(trace, span)| *trace != 0 && *span != 0));
        assert_eq!(ids.iter().map(|(trace, _)| trace).collect::<HashSet<_>>().len(), 80_000);
        assert_eq!(ids.iter().map(|(_, span)| span).collect::<HashSet<_>>().len(), 80_000);
    }

    #[test]
    fn request_ids_are_32_digits() {
        let id = new_request_id();
        assert_eq!(id.len(), 32);
        assert!(id.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(id, new_request_id());
    }

    #[test]
    fn hexadecimal_digits() {
        assert_eq!(hex(0xab, &mut [0; 16]), "00000000000000ab");
        assert_eq!(hex(u128::MAX, &mut [0; 32]), "f".repeat(32));
    }
}
