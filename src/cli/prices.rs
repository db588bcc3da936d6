//! `streamgauge prices`: what the built-in catalogue lists, and where it is from.

use std::fmt::Write as _;

use crate::llm::price::{Listed, Rates, catalogue};

#[derive(clap::Args)]
pub(super) struct Options {
    /// Only models whose name contains this.
    #[arg(value_name = "MODEL")]
    model: Option<String>,
    /// Only this provider, by its name in telemetry or in the catalogue.
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
}

/// The table.
///
/// # Errors
/// Nothing is listed by these names.
pub(super) fn list(options: &Options) -> Result<String, String> {
    let catalogue = catalogue();
    let wanted = options.model.as_deref().unwrap_or_default().to_ascii_lowercase();
    let of = options.provider.as_deref().map(|name| catalogue.section_of(name).unwrap_or(name));
    let rows: Vec<&Listed> = catalogue
        .models()
        .filter(|listed| listed.model.contains(&wanted) && of.is_none_or(|provider| listed.provider == provider))
        .collect();
    if rows.is_empty() {
        return Err(
            "the catalogue lists no such model: its price can be written as [[price]] in the configuration".to_owned()
        );
    }
    let mut out = format!(
        "US dollars per million tokens, by {} of {}. A [[price]] in the configuration comes first.\n\n",
        catalogue.source, catalogue.day
    );
    let width = |length: fn(&Listed) -> usize| rows.iter().map(|row| length(row)).max().unwrap_or(0).max(8);
    let (providers, models) = (width(|row| row.provider.len()), width(|row| row.model.len()));
    let (read, write) = ("cache read", "cache write");
    let _ = writeln!(
        out,
        "{:providers$}  {:models$}  {:>11}  {read:>11}  {write:>11}  {:>11}",
        "provider", "model", "input", "output"
    );
    for row in rows {
        let _ = write!(out, "{:providers$}  {:models$}", row.provider, row.model);
        out.push_str(&rates(&row.price.base));
        if let Some(sound) = row.price.sound {
            let _ = write!(out, "  sound {}/{}", dollars(sound.input), dollars(sound.output));
        }
        out.push('\n');
        for (beyond, above) in row.price.steps.iter().flatten() {
            let _ = writeln!(out, "{:providers$}  {:>models$}{}", "", format!("over {beyond} tokens"), rates(above));
        }
    }
    Ok(out)
}

fn rates(rates: &Rates) -> String {
    let kinds = [rates.input, rates.cached_input, rates.cache_write, rates.output];
    kinds.iter().fold(String::new(), |line, kind| line + &format!("  {:>11}", dollars(*kind)))
}

fn dollars(nano: u64) -> String {
    crate::llm::price::Cost(nano).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(model: Option<&str>, provider: Option<&str>) -> Result<String, String> {
        list(&Options { model: model.map(str::to_owned), provider: provider.map(str::to_owned) })
    }

    #[test]
    fn a_model_is_listed_with_its_source_and_day() {
        let text = listed(Some("GPT-4o-mini"), Some("openai")).unwrap();
        let first = text.lines().next().unwrap();
        assert!(first.contains("genai-prices ") && first.contains(catalogue().day), "{first}");
        let row = text.lines().find(|line| line.contains(" gpt-4o-mini ")).unwrap();
        let words: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(words, ["openai", "gpt-4o-mini", "0.15", "0.075", "0.15", "0.6"]);
    }

    #[test]
    fn steps_and_sound_are_told() {
        assert!(listed(Some("gemini-2.5-pro"), Some("gcp.gemini")).unwrap().contains("over 200000 tokens"));
        assert!(listed(Some("gpt-realtime"), Some("openai")).unwrap().contains("sound 32/64"));
    }

    #[test]
    fn what_is_not_listed_is_said_to_be_unknown() {
        assert!(listed(Some("no-such-model"), None).unwrap_err().contains("[[price]]"));
        assert!(listed(None, Some("vllm")).is_err());
        assert!(listed(None, None).unwrap().lines().count() > 1_000);
    }
}
