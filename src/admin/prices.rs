//! `GET /api/prices`: whose prices count, and what has none.

use serde_json::{Value, json};

use crate::llm::price::catalogue;
use crate::proxy::Shared;

pub(super) fn view(shared: &Shared) -> Value {
    let generation = shared.generation.load();
    let catalogue = catalogue();
    let unpriced = shared.telemetry.metrics().unpriced().into_iter().map(|([route, upstream, model], requests)| {
        json!({ "route": route, "upstream": upstream, "model": model, "requests": requests })
    });
    json!({
        "own": generation.settings.prices,
        "catalogue": {
            "source": catalogue.source,
            "date": catalogue.day,
            "models": catalogue.models().count(),
        },
        "unpriced": unpriced.collect::<Vec<_>>(),
    })
}
