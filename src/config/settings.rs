//! The whole file: as written, and checked. Checked settings are what the rest of the program works with. Nothing in them can
//! be invalid, and the only way to them is `check`.

use std::path::PathBuf;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::checker::{Checker, Moment};
use super::tables::conditions::Nameable;
use super::tables::cors::CorsTable;
use super::tables::dialect::StreamTable;
use super::tables::fleet::{Fleet, FleetTable};
use super::tables::identity::{IdentityRules, IdentityTable};
use super::tables::limits::{Limit, LimitStore, LimitTable, LimitsTable};
use super::tables::prices::{PriceTable, Prices};
use super::tables::route::{Declarations, RouteTable};
use super::tables::server::ServerTable;
use super::tables::telemetry::TelemetryTable;
use super::tables::upstream::UpstreamTable;
use super::units::Table;
use super::view::Shown;

pub use super::tables::affinity::Affinity;
pub use super::tables::cors::{Cors, OriginPattern};
pub use super::tables::mirror::Mirror;
pub use super::tables::route::{Failover, Retries, Route, RouteKind, Timeouts};
pub use super::tables::server::{ContinueTraces, Server, Tls};
pub use super::tables::target::Target;
pub use super::tables::telemetry::Telemetry;
pub use super::tables::upstream::{AskUsage, HealthCheck, HostPolicy, Upstream, UpstreamProtocol};

/// Streamgauge: a reverse proxy that measures every stream of an LLM backend.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Streamgauge configuration")]
pub struct File {
    pub server: Option<Table<ServerTable>>,
    /// Absent: the backend's own CORS headers pass untouched.
    pub cors: Option<Table<CorsTable>>,
    pub telemetry: Option<Table<TelemetryTable>>,
    pub identity: Option<Table<IdentityTable>>,
    /// The backends.
    #[serde(default)]
    pub upstream: Vec<Table<UpstreamTable>>,
    /// Which requests go where; the first that matches wins. Absent: everything goes to the only upstream.
    #[serde(default)]
    pub route: Vec<Table<RouteTable>>,
    /// What each user, team, key, address or route may use.
    #[serde(default)]
    pub limit: Vec<Table<LimitTable>>,
    /// Where the counts of all limits are kept.
    pub limits: Option<Table<LimitsTable>>,
    /// Several replicas that act as one. Absent: each judges canaries by its own requests.
    pub fleet: Option<Table<FleetTable>>,
    /// Streams of shapes of your own, which are recognised wherever they come.
    #[serde(default)]
    pub dialect: Vec<Table<StreamTable>>,
    /// What models cost; the first that matches counts.
    #[serde(default)]
    pub price: Vec<Table<PriceTable>>,
}

/// The tables of which there is one.
pub(super) const ONE: [&str; 6] = ["server", "cors", "telemetry", "identity", "limits", "fleet"];

/// The tables of which there may be several.
pub(super) const SEVERAL: [&str; 5] = ["upstream", "route", "limit", "dialect", "price"];

/// One whole configuration.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Settings {
    pub server: Server,
    /// Absent: the backend's own CORS passes untouched.
    pub cors: Option<Cors>,
    pub telemetry: Telemetry,
    /// Absent: trusted proxies alone say who calls, in `x-user-id`.
    pub identity: Option<IdentityRules>,
    #[serde(rename = "upstream", serialize_with = "Shown::shown")]
    pub upstreams: Vec<Arc<Upstream>>,
    /// In file order; the first that matches wins. Never empty.
    #[serde(rename = "route", serialize_with = "Shown::shown")]
    pub routes: Vec<Arc<Route>>,
    #[serde(rename = "limit", serialize_with = "Shown::shown")]
    pub limits: Vec<Arc<Limit>>,
    #[serde(rename = "limits")]
    pub limit_store: LimitStore,
    /// Absent: this replica acts for itself.
    pub fleet: Option<Fleet>,
    #[serde(rename = "price")]
    pub prices: Prices,
    /// The files that the configuration names (certificates, keys): a change of one is a change of the configuration.
    #[serde(skip)]
    pub files: Vec<PathBuf>,
}

impl Settings {
    /// Every problem goes to the checker. Where there is one, the settings are to be thrown away.
    pub(super) fn check(file: &File, mut checker: Checker<'_>) -> Self {
        let server = checker.server(file.server.as_ref());
        let cors = file.cors.as_ref().map(|cors| checker.cors(cors));
        let telemetry = checker.telemetry(file.telemetry.as_ref());
        let identity = file.identity.as_ref().map(|identity| checker.identity(identity));
        if checker.moment == Moment::Start {
            way_in(file, &mut checker);
        }
        let upstreams = checker.upstreams(&file.upstream, &file.dialect);
        let limits = checker.limits(&file.limit);
        let limit_store = checker.limit_store(file.limits.as_ref());
        let fleet = file.fleet.as_ref().and_then(|fleet| checker.fleet(fleet, file.limits.as_ref()));
        let prices = checker.prices(&file.price);
        if file.price.is_empty() && !checker.lost.is_table_lost("price") {
            budgets_without_prices(file, &mut checker);
        }
        let declared = Declarations {
            upstreams: &upstreams,
            limit_tables: &file.limit,
            limits: &limits,
            prices: &prices,
            nameable: nameable(file, &checker),
        };
        let routes = checker.routes(&file.route, &declared);
        let upstreams = upstreams.into_iter().map(|declared| declared.upstream).collect();
        let files = checker.files;
        Self { server, cors, telemetry, identity, upstreams, routes, limits, limit_store, fleet, prices, files }
    }

    /// The fleet that judges canaries: one that has a Redis to do it over.
    pub fn judging_fleet(&self) -> Option<&Fleet> {
        self.fleet.as_ref().filter(|_| self.limit_store.redis.is_some())
    }

    /// Who runs the models of the upstream of this name, where that is known.
    pub fn provider_of(&self, upstream: &str) -> Option<Arc<str>> {
        self.upstreams.iter().find(|known| *known.name == *upstream)?.provider.clone()
    }
}

/// Whom requests can be known to come from. A reload may take the last one who is known away, and mean it.
fn nameable(file: &File, checker: &Checker<'_>) -> Nameable {
    let lost = &checker.lost;
    let identity = file.identity.as_ref();
    let may_have_lost_one = checker.moment == Moment::Reload
        || ["identity", "server"].iter().any(|table| lost.is_table_lost(table))
        || identity.is_some_and(|table| lost.may_have_lost(&table.span, &["jwt", "key"]))
        || file.server.as_ref().is_some_and(|table| lost.may_have_lost(&table.span, &["trusted_proxies"]));
    let proxies = file.server.as_ref().is_some_and(|server| !server.value.trusted_proxies.is_empty());
    let jwt = identity.and_then(|table| table.value.jwt.as_ref());
    let keys = || identity.iter().flat_map(|table| &table.value.key);
    Nameable {
        users: may_have_lost_one || proxies || jwt.is_some() || keys().any(|key| key.value.user.is_some()),
        teams: may_have_lost_one
            || jwt.is_some_and(|jwt| jwt.value.team_claim.is_some())
            || keys().any(|key| key.value.team.is_some()),
    }
}

/// Says so where nobody could call: a caller must be known, and nothing makes one known.
fn way_in(file: &File, checker: &mut Checker<'_>) {
    let Some(table) = &file.identity else { return };
    let Some(required) = table.value.required.as_ref().filter(|at| at.value) else { return };
    let (server, lost) = (file.server.as_ref(), &checker.lost);
    let is_known_somehow = table.value.jwt.is_some()
        || !table.value.key.is_empty()
        || server.is_some_and(|server| !server.value.trusted_proxies.is_empty());
    let may_have_lost_one = lost.may_have_lost(&table.span, &["jwt", "key"])
        || lost.is_table_lost("server")
        || server.is_some_and(|server| lost.may_have_lost(&server.span, &["trusted_proxies"]));
    if !is_known_somehow && !may_have_lost_one {
        let message = "`required`: nobody could call, for nothing says who anybody is: add [[identity.key]] \
                       (`streamgauge key new --user NAME` prints one), [identity.jwt], or `server.trusted_proxies` \
                       for a proxy that names the user";
        checker.problem(&required.span, message);
    }
}

/// A budget in dollars would never run out where nothing has a price. Whether the catalogue lists what a route takes is
/// told there.
fn budgets_without_prices(file: &File, checker: &mut Checker<'_>) {
    let is_used = |name: &str| {
        let limits = file.route.iter().filter_map(|route| route.value.limits.as_ref());
        limits.flat_map(|limits| &limits.value).any(|limit| limit.value == name)
    };
    let budget =
        |limit: &LimitTable| limit.cost_per_day.as_ref().or(limit.cost_per_month.as_ref()).map(|at| at.span.clone());
    let unused = file.limit.iter().map(|table| &table.value);
    let unused = unused.filter(|limit| !limit.name.as_ref().is_some_and(|name| is_used(&name.value)));
    for span in unused.filter_map(budget) {
        checker.problem(&span, "a limit in dollars needs to know what tokens cost: add a [[price]]");
    }
}
