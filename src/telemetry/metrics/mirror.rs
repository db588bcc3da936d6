//! Metrics of traffic mirroring. No series of requests includes copies.

use std::time::Duration;

use super::labels::{MirrorResult, Side};
use super::*;
use crate::telemetry::mirror::MirrorRecord;

impl Metrics {
    /// A copy's answer was compared.
    pub(crate) fn mirrored(&self, record: &MirrorRecord) {
        let known = self.known.read();
        let (of, route) = (&self.families, known.route(&record.route));
        of.shadow.get((route, MirrorResult::Compared(record.verdict))).add(1);
        for difference in &record.differences {
            of.mirror_differences.get((route, *difference)).add(1);
        }
        // Pairs only: two distributions of other requests would compare nothing.
        if let (Some(client), Some(copy)) = (record.client.first_token, record.copy.first_token) {
            let observe =
                |side, time: Duration| of.mirror_first_token.get((route, side)).observe(time.as_secs_f64(), None);
            observe(Side::Primary, client);
            observe(Side::Mirror, copy);
        }
        if let (Some(client), Some(copy)) = (record.client.output, record.copy.output) {
            of.mirror_output_tokens.get((route, Side::Primary)).add(client.min(TOKENS_MAX));
            of.mirror_output_tokens.get((route, Side::Mirror)).add(copy.min(TOKENS_MAX));
        }
        if let Some(cost) = record.cost {
            of.mirror_cost.get((route,)).add(cost);
        }
    }

    /// A request was drawn to be copied, and no copy of it was made or compared.
    pub fn mirror_skipped(&self, route: &str) {
        let known = self.known.read();
        self.families.shadow.get((known.route(route), MirrorResult::Skipped)).add(1);
    }
}
