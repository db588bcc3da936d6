//! The configuration in effect as JSON, by the names of the file. Secrets are masked, and so is what a URL may hide.

mod identity;

use std::time::Duration;

use serde_json::{Value, json};

use crate::config::address::{Endpoint, EndpointAddress, Network};
use crate::config::canary::{Canary, Sticky};
use crate::config::defaults;
use crate::config::limits::{Limit, LimitStore, OnExhausted, OnStoreFailure};
use crate::config::otlp::OtlpProtocol;
use crate::config::prices::Priced;
use crate::config::secret::Secret;
use crate::config::settings::Shadow;
use crate::config::settings::{
    ContinueTraces, Cors, HostPolicy, Route, Server, Settings, Target, Telemetry, Timeouts, Upstream, UpstreamProtocol,
};
use crate::llm::Dialect;
use crate::llm::dialect::shape::Shape;
use crate::telemetry::sampler;

/// All of `settings`.
pub(super) fn settings(settings: &Settings) -> Value {
    json!({
        "server": server(&settings.server),
        "cors": settings.cors.as_ref().map(cors),
        "telemetry": telemetry(&settings.telemetry),
        "identity": settings.identity.as_ref().map(identity::identity),
        "upstream": settings.upstreams.iter().map(|upstream| self::upstream(upstream)).collect::<Vec<_>>(),
        "route": settings.routes.iter().map(|route| self::route(route)).collect::<Vec<_>>(),
        "limit": settings.limits.iter().map(|limit| self::limit(limit)).collect::<Vec<_>>(),
        "limits": limit_store(&settings.limit_store),
        "price": settings.prices.0.iter().map(price).collect::<Vec<_>>(),
    })
}

fn server(server: &Server) -> Value {
    json!({
        "listen": server.listen.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "admin": server.admin.to_string(),
        "admin_token": masked(server.admin_token.as_ref()),
        "max_body": server.max_body,
        "max_upload": server.max_upload,
        "max_buffered": server.max_buffered,
        "max_connections": server.max_connections,
        "max_streams": server.max_streams,
        "header_timeout": duration(server.header_timeout),
        "body_timeout": duration(server.body_timeout),
        "write_timeout": duration(server.write_timeout),
        "drain_timeout": duration(server.drain_timeout),
        "drain_websockets": duration(server.drain_websockets),
        "trusted_proxies": server.trusted_proxies.iter().map(network).collect::<Vec<_>>(),
        "continue_traces": match server.continue_traces {
            ContinueTraces::Trusted => "trusted",
            ContinueTraces::Always => "always",
            ContinueTraces::Link => "link",
        },
        "tls": server.tls.as_ref().map(|tls| json!({ "cert": tls.cert, "key": tls.key })),
        "state_dir": server.state_dir,
        "socket_mode": format!("{:04o}", server.socket_mode),
        "address_share": server.address_share,
        "min_body_rate": server.min_body_rate,
    })
}

fn cors(cors: &Cors) -> Value {
    json!({
        "origins": cors.origins,
        "origin_patterns": cors.origin_patterns.iter().map(|pattern| pattern.source.as_str()).collect::<Vec<_>>(),
        "credentials": cors.credentials,
        "headers": cors.headers,
        "max_age": duration(cors.max_age),
    })
}

fn telemetry(telemetry: &Telemetry) -> Value {
    json!({
        "service_name": telemetry.service_name,
        "otlp_endpoint": telemetry.otlp_endpoint.as_deref().map(without_secrets),
        "otlp_protocol": match telemetry.otlp_protocol {
            OtlpProtocol::HttpProtobuf => "http/protobuf",
            OtlpProtocol::Grpc => "grpc",
        },
        "signals": telemetry.signals.iter().map(|signal| signal.as_str()).collect::<Vec<_>>(),
        "sample_ratio": sampler::ratio(telemetry.sample_ratio),
        "slow_first_token": duration(telemetry.slow_first_token),
        "slow_gap": duration(telemetry.slow_gap),
        "capture_content": telemetry.capture_content,
    })
}

fn upstream(upstream: &Upstream) -> Value {
    json!({
        "name": &*upstream.name,
        "urls": upstream.endpoints.iter().map(url).collect::<Vec<_>>(),
        "host": match &upstream.host {
            HostPolicy::Keep => "keep",
            HostPolicy::Own => "own",
            HostPolicy::Name(name) => name,
        },
        "dialect": upstream.dialect.map_or("auto", Dialect::as_str),
        "provider": upstream.provider.as_deref(),
        "ask_usage": upstream.ask_usage.as_str(),
        "protocol": match upstream.protocol {
            UpstreamProtocol::Auto => "auto",
            UpstreamProtocol::Http1 => "http1",
            UpstreamProtocol::Http2 => "http2",
        },
        "ca": upstream.ca,
        "api_key": masked(upstream.api_key.as_ref()),
        "stream": upstream.stream.shape.as_ref().map(|shape| stream(shape)),
        "health": upstream.health.as_ref().map(|health| {
            json!({ "path": without_secrets(&health.path), "interval": duration(health.interval) })
        }),
    })
}

/// The rules of a stream, without those that were not written.
fn stream(shape: &Shape) -> Value {
    let mut rules = serde_json::to_value(shape.written()).unwrap_or_default();
    if let Some(fields) = rules.as_object_mut() {
        fields.retain(|key, value| {
            let says = match value {
                Value::Null | Value::Bool(false) => false,
                Value::String(text) => !text.is_empty(),
                Value::Array(items) => !items.is_empty(),
                Value::Object(members) => !members.is_empty(),
                Value::Bool(true) | Value::Number(_) => true,
            };
            says && key != "name"
        });
    }
    rules
}

fn route(route: &Route) -> Value {
    json!({
        "name": &*route.name,
        "path": route.path.0.source,
        "methods": route.methods,
        // A value may be the secret by which a route is chosen.
        "headers": route.headers.iter().map(|(name, _)| json!({ name.as_str(): "***" })).collect::<Vec<_>>(),
        "models": route.models.iter().map(|glob| glob.source.as_str()).collect::<Vec<_>>(),
        "targets": route.targets.iter().map(target).collect::<Vec<_>>(),
        "sticky": match route.sticky {
            Sticky::User => "user",
            Sticky::Address => "address",
            Sticky::None => "none",
        },
        "canary": route.canary.as_ref().map(canary),
        "shadow": route.shadow.as_ref().map(shadow),
        "fallback": route.fallback.iter().map(target).collect::<Vec<_>>(),
        "failover": route.failover.as_str(),
        "retries": json!({ "attempts": route.retries.attempts, "budget": route.retries.budget }),
        "hedge_after": route.hedge_after.map(duration),
        "kind": route.kind.as_str(),
        "timeouts": timeouts(&route.timeouts),
        "keepalive": duration(route.keepalive),
        "keepalive_before_headers": route.keepalive_before_headers,
        "limits": route.limits.iter().map(|limit| &*limit.name).collect::<Vec<_>>(),
    })
}

fn shadow(shadow: &Shadow) -> Value {
    json!({
        "target": target(&shadow.target),
        "percent": shadow.share * 100.0,
        "concurrent": shadow.concurrent,
        "tokens_per_minute": shadow.tokens_per_minute,
    })
}

fn limit(limit: &Limit) -> Value {
    let dollars = |nano: Option<u64>| nano.map(|nano| nano as f64 / 1e9);
    json!({
        "name": &*limit.name,
        "key": limit.key.as_str(),
        "tokens_per_minute": limit.tokens.map(|tokens| tokens.per_minute),
        "burst": limit.tokens.map(|tokens| tokens.burst),
        "debt": limit.tokens.map(|tokens| tokens.debt),
        "output_cap": limit.tokens.and_then(|tokens| tokens.output_cap),
        "requests_per_minute": limit.requests_per_minute,
        "concurrent": limit.concurrent,
        "cost_per_day": dollars(limit.cost_per_day),
        "cost_per_month": dollars(limit.cost_per_month),
        "on_exhausted": match limit.on_exhausted {
            OnExhausted::Finish => "finish",
            OnExhausted::Cut => "cut",
        },
    })
}

pub(super) fn price(priced: &Priced) -> Value {
    let dollars = |nano: u64| nano as f64 / 1e9;
    json!({
        "model": priced.model.source,
        "input": dollars(priced.price.base.input),
        "cached_input": dollars(priced.price.base.cached_input),
        "cache_write": dollars(priced.price.base.cache_write),
        "output": dollars(priced.price.base.output),
    })
}

fn limit_store(store: &LimitStore) -> Value {
    json!({
        "redis": store.redis.as_ref().map(|url| without_secrets(url.expose())),
        "redis_password": masked(store.password.as_ref()),
        "deadline": duration(store.deadline),
        "on_failure": match store.on_failure {
            OnStoreFailure::Local => "local",
            OnStoreFailure::Reject => "reject",
        },
    })
}

fn canary(canary: &Canary) -> Value {
    json!({
        "target": &*canary.target,
        "steps": canary.steps,
        "step_time": duration(canary.step_time),
        "min_requests": canary.min_requests,
        "alpha": canary.alpha,
        "first_token_objective": canary.first_token_objective.map(duration),
    })
}

fn target(target: &Target) -> Value {
    json!({
        "name": &*target.name,
        "upstream": &*target.upstream.name,
        "weight": target.weight,
        "path": target.path,
        "model": target.model,
    })
}

fn timeouts(timeouts: &Timeouts) -> Value {
    json!({
        "connect": duration(timeouts.connect),
        "first_token": timeouts.first_token.map(duration),
        "stall": duration(timeouts.stall.unwrap_or(defaults::STALL_TIMEOUT)),
        "total": duration(timeouts.total.unwrap_or(defaults::TOTAL_TIMEOUT)),
    })
}

fn url(endpoint: &Endpoint) -> String {
    match &endpoint.address {
        EndpointAddress::Unix(path) => format!("unix:{}{}", path.display(), endpoint.base_path),
        EndpointAddress::Tcp { .. } => {
            let scheme = if endpoint.tls { "https" } else { "http" };
            format!("{scheme}://{}{}", endpoint.authority, endpoint.base_path)
        }
    }
}

fn network(network: &Network) -> String {
    format!("{}/{}", network.address, network.prefix)
}

fn masked(secret: Option<&Secret>) -> Option<&'static str> {
    secret.map(|_| "***")
}

/// As the file would say it.
fn duration(duration: Duration) -> String {
    format!("{duration:?}")
}

/// A URL without what stands before `@` and after `?`.
fn without_secrets(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or("");
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = authority.rsplit('@').next().unwrap_or("");
            format!("{scheme}://{host}{path}")
        }
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_url_may_hide_is_left_out() {
        let cases = [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318"),
            ("https://me:pa@ss@otel.example/v1?token=x#y", "https://otel.example/v1"),
            ("https://otel.example/a@b", "https://otel.example/a@b"),
        ];
        for (url, shown) in cases {
            assert_eq!(without_secrets(url), shown);
        }
    }
}
