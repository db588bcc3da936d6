//! Numbers by chance that are the same in every run, and what is to be said of a rate that was counted.

/// SplitMix64: small, fast, and the same everywhere.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        // Two steps, so that seeds beside each other begin apart.
        let mut random = Self(seed.wrapping_mul(0xd134_2543_de82_ef95));
        random.next_u64();
        random
    }

    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in (0, 1).
    pub fn unit(&mut self) -> f64 {
        ((self.next_u64() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    pub fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// Log-normal: what latencies and lengths look like.
    pub fn log_normal(&mut self, median: f64, sigma: f64) -> f64 {
        let normal = (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos();
        median * (sigma * normal).exp()
    }

    /// The time to the next of events that come `rate` times a second, in seconds.
    pub fn gap(&mut self, rate: f64) -> f64 {
        -self.unit().ln() / rate
    }
}

/// The upper end of the exact (Clopper-Pearson) one-sided 99 % confidence interval of a probability.
pub fn upper_bound(hits: u64, of: u64) -> f64 {
    // P(at most `hits` of `of`) at probability p falls as p grows: bisected to where it is 1 %.
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if at_most(hits, of, middle) > 0.01 { low = middle } else { high = middle }
    }
    high
}

/// The most hits of `of` that are no surprise at probability `p`: more come by chance once in ten thousand.
pub fn no_surprise(of: u64, p: f64) -> u64 {
    (0..of).find(|hits| at_most(*hits, of, p) > 0.9999).unwrap_or(of)
}

/// P(at most `hits` of `of`) at probability `p`.
fn at_most(hits: u64, of: u64, p: f64) -> f64 {
    let mut term = of as f64 * (1.0 - p).ln();
    let mut sum = term.exp();
    for k in 0..hits {
        term += ((of - k) as f64).ln() - ((k + 1) as f64).ln() + p.ln() - (1.0 - p).ln();
        sum += term.exp();
    }
    sum
}

#[test]
fn bounds_are_those_of_the_tables() {
    assert!((upper_bound(0, 100) - 0.045_007).abs() < 1e-5, "{}", upper_bound(0, 100));
    assert!((upper_bound(8, 10_000) - 0.001_745).abs() < 1e-4, "{}", upper_bound(8, 10_000));
    assert_eq!(no_surprise(100, 0.01), 6);
}
