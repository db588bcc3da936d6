//! Percentiles of a sample.

/// The `share` (0 to 1) percentile by nearest rank, sorting the sample. An empty sample has none.
pub fn percentile(sample: &mut [u64], share: f64) -> Option<u64> {
    sample.sort_unstable();
    let last = sample.len().checked_sub(1)?;
    // Sample sizes and ranks here are far below 2^52.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let rank = (last as f64 * share).round() as usize;
    sample.get(rank.min(last)).copied()
}

/// A percentile in nanoseconds as microseconds with one decimal, or `null`.
pub fn micros(nanos: Option<u64>) -> String {
    nanos.map_or_else(|| "null".to_owned(), |nanos| format!("{}.{}", nanos / 1_000, nanos % 1_000 / 100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_ranks() {
        let mut sample: Vec<u64> = (1..=101).rev().collect();
        assert_eq!(percentile(&mut sample, 0.5), Some(51));
        assert_eq!(percentile(&mut sample, 0.99), Some(100));
        assert_eq!(percentile(&mut sample, 1.0), Some(101));
        assert_eq!(percentile(&mut [], 0.5), None);
        assert_eq!(micros(Some(12_345)), "12.3");
        assert_eq!(micros(None), "null");
    }
}
