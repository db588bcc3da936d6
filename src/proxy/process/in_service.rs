//! Who of a route takes requests, as far as people are concerned: what was taken out of service by hand is asked for nothing.

use std::sync::Arc;

use crate::config::settings::{Route, Target};
use crate::hashing::Map;
use crate::policy::failover::{self, Choice};
use crate::policy::levers::{Lever, Setting};
use crate::proxy::endpoints::endpoint_pool::EndpointPool;
use crate::proxy::endpoints::levers::{Flag, Levers};

/// The targets and fallbacks of one route, each with what may take it out of service.
pub(crate) struct InService {
    targets: Vec<Place>,
    fallback: Vec<Place>,
}

struct Place {
    flag: Arc<Flag>,
    pool: Option<Arc<EndpointPool>>,
}

impl Place {
    /// How it was taken out: by itself, or with every endpoint of its upstream.
    fn out(&self) -> Option<Setting> {
        self.flag.setting().or_else(|| self.pool.as_ref()?.out())
    }
}

impl InService {
    pub(crate) fn new(route: &Route, pools: &Map<Arc<str>, Arc<EndpointPool>>, levers: &Levers) -> Self {
        let place = |target: &Target| {
            let lever = Lever::Target { route: route.name.to_string(), target: target.name.to_string() };
            Place { flag: levers.flag(lever), pool: pools.get(&*target.upstream.name).cloned() }
        };
        Self {
            targets: route.targets.iter().map(place).collect(),
            fallback: route.fallback.iter().map(place).collect(),
        }
    }

    /// Whether the target at this place of the list may be asked.
    pub(crate) fn target(&self, at: usize) -> bool {
        self.takes(Choice::Target(at))
    }

    pub(crate) fn takes(&self, choice: Choice) -> bool {
        self.out(choice).is_none()
    }

    fn out(&self, choice: Choice) -> Option<Setting> {
        let place = match choice {
            Choice::Target(at) => self.targets.get(at),
            Choice::Fallback(at) => self.fallback.get(at),
        };
        place.and_then(Place::out)
    }

    /// Those that take requests of `route`; `share` is its canary's, in percent. Empty: nobody serves it.
    pub(crate) fn serving<'r>(&self, route: &'r Route, share: Option<u8>) -> Vec<&'r Target> {
        let takes_part = |(choice, target): &(Choice, &Target)| {
            self.takes(*choice) && (matches!(choice, Choice::Fallback(_)) || failover::takes_part(route, target, share))
        };
        Choice::all(route).filter(takes_part).map(|(_, target)| target).collect()
    }

    /// Those that were taken out, and how.
    pub(crate) fn taken_out<'r>(&self, route: &'r Route) -> Vec<(&'r Target, Setting)> {
        Choice::all(route).filter_map(|(choice, target)| Some((target, self.out(choice)?))).collect()
    }

    /// Why the route's canary can be compared with nothing: it was taken out, or all that it is compared with was.
    pub(crate) fn holds_canary(&self, route: &Route) -> Option<String> {
        let canary = route.canary.as_ref()?;
        let out = |at: usize| self.out(Choice::Target(at));
        let (canaries, baseline): (Vec<_>, Vec<_>) =
            route.targets.iter().enumerate().partition(|(_, target)| target.name == canary.target);
        if let Some((target, setting)) = canaries.iter().find_map(|(at, target)| Some((target, out(*at)?))) {
            return Some(format!("its target `{}` is {} by hand", target.name, setting.as_str()));
        }
        let mut baseline = baseline.iter().filter(|(_, target)| target.weight > 0);
        let all = baseline.all(|(at, _)| out(*at).is_some());
        all.then(|| "all that it is compared with is out of service by hand".to_owned())
    }
}
