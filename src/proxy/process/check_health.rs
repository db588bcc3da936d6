//! Active health checks: asks each endpoint of the upstreams that want it, over connections of their own.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use http::Version;
use pingora::http::RequestHeader;

use super::state::Shared;
use crate::config::settings::{HealthCheck, HostPolicy, Upstream};
use crate::policy::levers::Setting;
use crate::proxy::clock::every;
use crate::proxy::endpoints::endpoint::Member;
use crate::proxy::endpoints::endpoint_pool::EndpointPool;
use crate::telemetry::metrics::{CheckResult, EndpointOf};

/// A check that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(5);

impl Shared {
    /// Checks the endpoints of all upstreams that want it, at their intervals, under each configuration in turn. Never ends.
    pub async fn check_health(&self) {
        let mut generations = self.generations();
        loop {
            let generation = self.generation.load_full();
            let checks = generation.settings.upstreams.iter().filter_map(|upstream| {
                let (check, pool) = (upstream.health.as_ref()?, generation.pools.get(&upstream.name)?);
                Some(self.check_upstream(upstream, check, pool))
            });
            tokio::select! {
                _ = generations.changed() => {}
                () = async {
                    join_all(checks).await;
                    // No upstream wants checks.
                    std::future::pending().await
                } => {}
            }
        }
    }

    async fn check_upstream(&self, upstream: &Upstream, check: &HealthCheck, pool: &Arc<EndpointPool>) {
        tokio::join!(self.check_in_turn(upstream, check, pool), self.check_as_hinted(upstream, check, pool));
    }

    /// At the interval of the configuration.
    async fn check_in_turn(&self, upstream: &Upstream, check: &HealthCheck, pool: &Arc<EndpointPool>) {
        let mut again = every(check.interval);
        loop {
            again.tick().await;
            let wanted = |member: &Arc<Member>| member.out() != Some(Setting::Disabled);
            let members: Vec<Arc<Member>> = pool.members().filter(wanted).collect();
            join_all(members.iter().map(|member| {
                pool.check_begins(member);
                self.check(upstream, check, pool, member)
            }))
            .await;
        }
    }

    /// At once where another replica had trouble, once a second a place. Those that hang keep nobody else waiting.
    async fn check_as_hinted(&self, upstream: &Upstream, check: &HealthCheck, pool: &Arc<EndpointPool>) {
        let mut running = FuturesUnordered::new();
        loop {
            tokio::select! {
                wanted = pool.wanted_checks() => {
                    let in_service = wanted.into_iter().filter(|member| member.out() != Some(Setting::Disabled));
                    running.extend(in_service.map(|member| async move {
                        self.check(upstream, check, pool, &member).await;
                    }));
                }
                Some(()) = running.next() => {}
            }
        }
    }

    async fn check(&self, upstream: &Upstream, check: &HealthCheck, pool: &EndpointPool, member: &Member) {
        let asked = tokio::time::timeout(PATIENCE.min(check.interval), self.ask(upstream, check, member)).await;
        let result = match asked {
            Ok(Ok(200..=399)) => CheckResult::Healthy,
            Ok(Ok(_)) => CheckResult::Status,
            Ok(Err(_)) => CheckResult::Unreachable,
            Err(_) => CheckResult::Timeout,
        };
        let of = EndpointOf { upstream: &upstream.name, endpoint: &member.place.endpoint };
        self.telemetry.metrics().health_checked(of, result);
        pool.checked(member, result == CheckResult::Healthy);
    }

    /// The status that one endpoint answers a check with.
    async fn ask(&self, upstream: &Upstream, check: &HealthCheck, member: &Member) -> pingora::Result<u16> {
        let mut session = self
            .connector
            .fresh(&member.peer)
            .await
            .map_err(|unconnected| pingora::Error::explain(pingora::ErrorType::ConnectError, unconnected.cause))?;
        let head = request(upstream, check, member, session.as_http2().is_some())?;
        session.write_request_header(Box::new(head)).await?;
        session.finish_request_body().await?;
        loop {
            session.read_response_header().await?;
            match session.response_header().map(|head| head.status) {
                Some(status) if status.is_informational() => {}
                status => {
                    session.shutdown().await;
                    return Ok(status.map_or(0, |status| status.as_u16()));
                }
            }
        }
    }
}

fn request(upstream: &Upstream, check: &HealthCheck, member: &Member, h2: bool) -> pingora::Result<RequestHeader> {
    let endpoint = &member.endpoint;
    let path = format!("{}{}", endpoint.base_path, check.path);
    let host = match &upstream.host {
        HostPolicy::Name(name) => name,
        HostPolicy::Keep | HostPolicy::Own => &endpoint.authority,
    };
    let mut head = RequestHeader::build("GET", path.as_bytes(), Some(4))?;
    head.insert_header("user-agent", "streamgauge-health")?;
    if h2 {
        let uri = http::Uri::builder().scheme(endpoint.scheme()).authority(host.as_str()).path_and_query(path).build();
        let invalid = |_| pingora::Error::explain(pingora::ErrorType::InvalidHTTPHeader, "path of a health check");
        head.set_uri(uri.map_err(invalid)?);
        head.set_version(Version::HTTP_2);
    } else {
        head.insert_header("host", host.as_str())?;
    }
    Ok(head)
}
