//! `/api/affinity?upstream=NAME&key=HEX`: at which endpoint a session lives, and where its next request would be sent.

use serde_json::{Value, json};

use super::answer::Answer;
use crate::llm::request::form::FormKind;
use crate::policy::affinity::Key;
use crate::proxy::{SessionPlace, SessionView, Shared};

pub(super) fn answer(shared: &Shared, query: &str) -> Answer {
    match view(shared, query) {
        Ok(view) => Answer::json(200, &view),
        Err((status, message)) => Answer::error(status, message),
    }
}

fn view(shared: &Shared, query: &str) -> Result<Value, (u16, &'static str)> {
    let form = FormKind::UrlEncoded.read(query.as_bytes());
    let field = |name: &str| {
        let value =
            form.iter().flat_map(|form| &form.fields).find(|field| field.name == name).map(|field| &field.value);
        value.map(|value| String::from_utf8_lossy(value).into_owned())
    };
    let asked = field("upstream").zip(field("key"));
    let key = |text: &str| u64::from_str_radix(text, 16).ok().map(Key);
    let Some((name, key)) = asked.and_then(|(name, text)| Some((name, key(&text)?))) else {
        return Err((400, "ask for ?upstream=NAME&key=HEX; `streamgauge explain` tells the key of a session"));
    };
    let generation = shared.generation.load();
    let upstream = generation.settings.upstreams.iter().find(|upstream| *upstream.name == *name);
    let affinity = upstream.and_then(|upstream| upstream.affinity.as_ref());
    let (Some(pool), Some(affinity)) = (generation.pools.get(&*name), affinity) else {
        return Err((404, "there is no upstream of this name with `affinity`"));
    };
    let Some(SessionView { places, goes_to, result, most }) = pool.session(key, affinity.spill) else {
        return Err((503, "none of its endpoints is in service"));
    };
    let told = |SessionPlace { endpoint, address, usable, in_flight }: &SessionPlace| json!({ "endpoint": &**endpoint, "address": address, "usable": usable, "in_flight": in_flight });
    Ok(json!({
        "upstream": name,
        "key": format!("{:016x}", key.0),
        "result": result.as_str(),
        "goes_to": places.get(goes_to).map(told),
        "in_flight_max": most,
        "places": places.iter().map(told).collect::<Vec<_>>(),
    }))
}
