//! Gauges and counters of the process, not of a request.

use super::labels::{FetchResult, Lever, LimiterMode, Settled};
use super::*;
use crate::policy::affinity::AffinityResult;
use crate::policy::canary::{Fact, Kind};
use crate::policy::limits::Totals;

impl Metrics {
    /// A reload was taken over, or rejected.
    pub fn reload_result(&self, ok: bool) {
        self.families.config_reloads.get((if ok { ReloadResult::Ok } else { ReloadResult::Rejected },)).add(1);
        self.families.config_last_ok.get(()).set(i64::from(ok));
        if ok {
            self.families.config_last_success.get(()).set(unix_seconds());
        }
    }

    /// The file says what is served already: if one was rejected before, it has been mended.
    pub fn reload_unchanged(&self) {
        self.families.config_last_ok.get(()).set(1);
    }

    /// The keys of tokens were fetched, or could not be.
    pub fn keys_fetched(&self, ok: bool) {
        // Both, so that an alert on the rate of failures finds a zero.
        let [good, failed] = FetchResult::ALL.map(|result| self.families.key_fetches.get((result,)));
        if ok { good.add(1) } else { failed.add(1) }
    }

    /// Somebody sent a wrong token to the admin address.
    pub fn admin_login_failed(&self) {
        self.families.admin_login_failures.get(()).add(1);
    }

    /// A client connection was turned away.
    pub fn connection_refused(&self, full: Full) {
        self.families.connections_refused.get((full,)).add(1);
    }

    /// A request's head was not complete in time.
    pub fn late_head(&self, received: Received) {
        self.families.late_heads.get((received,)).add(1);
    }

    /// The number of the configuration that is served now.
    pub fn generation(&self, number: u64) {
        self.families.config_generation.get(()).set(i64::try_from(number).unwrap_or(i64::MAX));
    }

    /// Whether an endpoint takes requests.
    pub fn endpoint_up(&self, of: EndpointOf<'_>, up: bool) {
        let (upstream, endpoint) = of.labels();
        self.families.endpoint_up.get((upstream, endpoint)).set(i64::from(up));
        // There from the start: a rate needs a zero before the first one.
        self.families.endpoint_ejections.get((upstream, endpoint));
        self.endpoints.admit(&self.families, upstream, endpoint);
        self.families.buffered.get((upstream,));
    }

    /// One address of an endpoint was asked whether it is well.
    pub fn health_checked(&self, of: EndpointOf<'_>, result: CheckResult) {
        let known = self.known.read();
        self.endpoints.checked(&self.families, of, result, &known);
    }

    /// Whether people let an endpoint have requests.
    pub fn endpoint_in_service(&self, of: EndpointOf<'_>, in_service: bool) {
        self.families.endpoint_in_service.get(of.labels()).set(i64::from(in_service));
    }

    /// How many levers of one kind are set.
    pub fn levers_set(&self, kind: &'static str, count: usize) {
        self.families.levers_set.get((Lever(kind),)).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// A decision about a route's canary.
    pub fn canary_decision(&self, route: &str, decision: Kind) {
        self.families.canary_decisions.get((configured(route), decision)).add(1);
    }

    /// How all canaries stand: the shares of a route's variants, and the evidence by fact. What is not named is gone.
    pub fn canaries<'a>(
        &self,
        shares: impl Iterator<Item = TrafficShare<'a>>,
        evidence: impl Iterator<Item = (&'a str, Fact, f64)>,
    ) {
        self.families.canary_weight.retain(&|_, _| false);
        self.families.canary_evidence.retain(&|_, _| false);
        for TrafficShare { route, variant, share } in shares {
            self.families.canary_weight.get((configured(route), Named::bounded(variant))).set(share);
            self.families.canary_decisions.get((configured(route), Kind::RollBack));
        }
        for (route, fact, value) in evidence {
            self.families.canary_evidence.get((configured(route), fact)).set(value);
        }
    }

    /// What went through a limit since the start, and the share in use of its fullest holder.
    pub fn limit_usage(&self, limit: &str, tokens: Totals, utilization: f64) {
        let (of, limit) = (&self.families, Named::bounded(limit));
        of.limit_reserved.get((limit,)).set(tokens.held);
        of.limit_settled.get((limit, Settled::Charged)).set(tokens.debited);
        of.limit_settled.get((limit, Settled::Returned)).set(tokens.released);
        of.limit_used.get((limit,)).set(tokens.used);
        of.limit_utilization.get((limit,)).set(utilization);
    }

    /// Where limits are kept from now on, out of all `modes`.
    pub fn limiter_mode(&self, modes: &[&'static str], now: &str) {
        for mode in modes {
            self.families.limiter_mode.get((LimiterMode(mode),)).set(i64::from(*mode == now));
        }
    }

    /// An endpoint was taken out.
    pub fn endpoint_ejected(&self, of: EndpointOf<'_>) {
        self.families.endpoint_ejections.get(of.labels()).add(1);
    }

    /// A request was hedged.
    pub fn hedged(&self, route: &str, result: HedgeResult) {
        self.families.hedges.get((configured(route), result)).add(1);
    }

    /// A request of an upstream with session affinity has its first place.
    pub fn affinity(&self, upstream: &str, result: AffinityResult) {
        self.families.affinity.get((configured(upstream), result)).add(1);
    }

    /// The configuration names this endpoint no more.
    pub fn endpoint_gone(&self, of: EndpointOf<'_>) {
        let (upstream, endpoint) = of.labels();
        self.families.endpoint_up.remove((upstream, endpoint));
        self.families.endpoint_in_service.remove((upstream, endpoint));
        self.families.endpoint_ejections.remove((upstream, endpoint));
        self.endpoints.remove(&self.families, upstream, endpoint);
    }
}

/// The label of a route that the configuration names: what a reload takes away, [`Metrics::retain`] removes.
fn configured<L>(name: &str) -> Named<'_, L> {
    Named::bounded(name)
}
