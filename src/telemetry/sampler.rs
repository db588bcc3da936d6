//! Head sampling by the standard `OTEL_TRACES_SAMPLER`, if the configuration does not set a share.

use std::sync::OnceLock;

use crate::config::defaults;

/// The share of traces to export, 0 to 1: what the configuration says, else the environment, else a tenth.
///
/// A trusted caller's own decision goes before it in any case, so that `always_on` and `parentbased_always_on` are the same
/// here.
pub fn ratio(configured: Option<f64>) -> f64 {
    static ENVIRONMENT: OnceLock<Option<f64>> = OnceLock::new();
    configured.or_else(|| *ENVIRONMENT.get_or_init(from_environment)).unwrap_or(defaults::SAMPLE_RATIO)
}

fn from_environment() -> Option<f64> {
    let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.trim().is_empty());
    let sampler = variable("OTEL_TRACES_SAMPLER")?;
    let ratio = parse(sampler.trim(), variable("OTEL_TRACES_SAMPLER_ARG").as_deref());
    if ratio.is_none() {
        tracing::warn!(
            event = "telemetry.sampler_ignored",
            "OTEL_TRACES_SAMPLER or its _ARG is not understood: use always_on, always_off or traceidratio with a share from 0 to \
             1, each with or without parentbased_ before it, or set [telemetry] sample_ratio"
        );
    }
    ratio
}

fn parse(sampler: &str, argument: Option<&str>) -> Option<f64> {
    match sampler.strip_prefix("parentbased_").unwrap_or(sampler) {
        "always_on" => Some(1.0),
        "always_off" => Some(0.0),
        // By the specification the share is 1 where none is given.
        "traceidratio" => match argument {
            None => Some(1.0),
            Some(text) => text.trim().parse().ok().filter(|share| (0.0..=1.0).contains(share)),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_goes_first() {
        assert_eq!(ratio(Some(0.25)), 0.25);
    }

    #[test]
    fn the_standard_samplers_are_known() {
        for (sampler, argument, share) in [
            ("always_on", None, Some(1.0)),
            ("parentbased_always_off", Some("0.7"), Some(0.0)),
            ("traceidratio", Some("0.25"), Some(0.25)),
            ("parentbased_traceidratio", Some(" 1 "), Some(1.0)),
            ("traceidratio", None, Some(1.0)),
            ("traceidratio", Some("2"), None),
            ("traceidratio", Some("NaN"), None),
            ("jaeger_remote", None, None),
            ("ALWAYS_ON", None, None),
        ] {
            assert_eq!(parse(sampler, argument), share, "{sampler} {argument:?}");
        }
    }
}
