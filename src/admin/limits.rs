//! Who stands where under the limits.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use serde_json::{Value, json};

use crate::config::grammar::percent_decoded;
use crate::policy::limits::{Allowance, HolderView, Refusals, Standing};
use crate::proxy::{Mode, Shared};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::timestamp;

/// Holders that are listed when nobody in particular is asked for: the fullest.
const LISTED: usize = 100;

/// Puts what went through each limit into the metrics.
pub(super) fn tell(shared: &Shared, metrics: &Metrics) {
    let modes = Mode::ALL.map(Mode::as_str);
    metrics.limiter_mode(&modes, shared.limiter.mode().as_str());
    for (limit, tokens, utilization) in shared.limiter.usage() {
        metrics.limit_usage(&limit, tokens, utilization);
    }
}

/// `/api/limits?user=alice`: also `team`, `key`, `ip` and `route`, or `holder` with a name as it stands in `holders`. Without
/// any, the fullest holders of this process. What a shared store says of a holder stands in `in_store`; which limits refuse
/// somebody, since when and how often, in `refusing`.
///
/// # Errors
/// What is wrong with the query.
pub(super) async fn view(shared: &Shared, query: &str) -> Result<Value, &'static str> {
    let holder = holder(query)?;
    let settings_limits = shared.generation.load().settings.limits.clone();
    let in_store = match &holder {
        Some(holder) => shared.limiter.look(holder, &settings_limits).await,
        None => None,
    };
    let views = shared.limiter.view(holder.as_deref(), LISTED);
    let limits: Vec<&str> = settings_limits.iter().map(|limit| &*limit.name).collect();
    Ok(json!({
        "mode": shared.limiter.mode().as_str(),
        "store_trouble": shared.limiter.trouble(),
        "limits": limits,
        "refusing": refusing(shared),
        "holder": holder,
        "in_store": in_store.map(|standings| standings.iter().map(standing_view).collect::<Vec<_>>()),
        "holders": views.iter().map(holder_view).collect::<Vec<_>>(),
    }))
}

/// The fullest holders of this process.
pub(super) fn tightest(shared: &Shared, most: usize) -> Value {
    let holders: Vec<Value> = shared.limiter.view(None, most).iter().map(holder_view).collect();
    json!({ "mode": shared.limiter.mode().as_str(), "refusing": refusing(shared), "holders": holders })
}

fn refusing(shared: &Shared) -> Vec<Value> {
    let row = |(limit, refusals): &(Arc<str>, Refusals)| with(refused(refusals), json!({ "limit": &**limit }));
    shared.limiter.refusing().iter().map(row).collect()
}

/// An object, and the keys of another beside its own.
pub(super) fn with(mut object: Value, more: Value) -> Value {
    if let (Value::Object(object), Value::Object(more)) = (&mut object, more) {
        object.extend(more);
    }
    object
}

fn refused(refusals: &Refusals) -> Value {
    json!({
        "reason": refusals.reason,
        "first": timestamp(UNIX_EPOCH + refusals.first),
        "last": timestamp(UNIX_EPOCH + refusals.last),
        "count": refusals.count,
    })
}

fn holder(query: &str) -> Result<Option<String>, &'static str> {
    let Some((key, value)) = query.split('&').find_map(|pair| pair.split_once('=')) else { return Ok(None) };
    if !["user", "team", "key", "ip", "route", "holder"].contains(&key) {
        return Err("ask for ?user=, ?team=, ?key=, ?ip=, ?route= or ?holder=, or for nobody in particular");
    }
    let Some(value) = decoded(value) else { return Err("the value is not percent-encoded UTF-8") };
    Ok(Some(if key == "holder" { value } else { format!("{key}:{value}") }))
}

/// A percent-encoded value of a query.
pub(super) fn decoded(text: &str) -> Option<String> {
    percent_decoded(&text.replace('+', " "))
}

fn standing_view((limit, standing): &(Arc<str>, Standing)) -> Value {
    with(taken(standing), json!({ "limit": &**limit }))
}

fn holder_view(view: &HolderView) -> Value {
    let more = json!({
        "limit": &*view.limit,
        "holder": &*view.holder,
        "utilization": view.utilization,
        "running": view.running,
        "budget_usd_24h": view.budget_day.map(dollars),
        "budget_usd_30d": view.budget_month.map(dollars),
        "refused": view.refused.as_ref().map(refused),
    });
    with(taken(&view.standing), more)
}

/// What is left, and what is spent and held, apart.
fn taken(standing: &Standing) -> Value {
    let taken = &standing.taken;
    json!({
        "tokens": allowance(standing.tokens),
        "tokens_spent": taken.tokens_spent,
        "tokens_held": taken.tokens_held,
        "requests": allowance(standing.requests),
        "cost_usd_24h": dollars(taken.cost_day),
        "cost_usd_30d": dollars(taken.cost_month),
        "cost_usd_held": dollars(taken.cost_held),
    })
}

fn dollars(nano: u64) -> f64 {
    nano as f64 / 1e9
}

fn allowance(allowance: Option<Allowance>) -> Value {
    json!(allowance.map(|allowance| {
        json!({ "limit": allowance.limit, "remaining": allowance.remaining, "reset_s": allowance.reset.as_secs_f64() })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_asked_for_by_its_kind() {
        assert_eq!(holder("user=alice"), Ok(Some("user:alice".to_owned())));
        assert_eq!(holder("ip=2001%3Adb8%3A%3A%2F64"), Ok(Some("ip:2001:db8::/64".to_owned())));
        assert_eq!(holder("team=a+b"), Ok(Some("team:a b".to_owned())));
        assert_eq!(holder("holder=global"), Ok(Some("global".to_owned())));
        assert_eq!(holder(""), Ok(None));
        assert!(holder("name=alice").is_err() && holder("user=%f").is_err() && holder("user=%ff").is_err());
    }
}
