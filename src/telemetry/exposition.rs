//! Writes metrics for scrapers: the Prometheus text format 0.0.4, or OpenMetrics 1.0.0 with exemplars where the scraper
//! asks for it.

use std::fmt::{Display, Write as _};
use std::time::UNIX_EPOCH;

use super::ids;
use super::metrics::family::{Declaration, Exemplar, Kind};

/// What a scraper is answered in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    OpenMetrics,
}

impl Format {
    /// The format that an `Accept` header prefers among ours; the plain one when it has no preference.
    pub(crate) fn accepted(accept: Option<&str>) -> Self {
        let (mut open_metrics, mut text) = (0.0, 0.0);
        for range in accept.unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let mut quality = 1.0_f32;
            let mut known_version = true;
            for (name, value) in parts.filter_map(|part| part.split_once('=')) {
                match name.trim() {
                    "q" => quality = value.trim().parse().unwrap_or(0.0),
                    "version" => known_version = matches!(value.trim().trim_matches('"'), "1.0.0" | "0.0.1"),
                    _ => {}
                }
            }
            if media.eq_ignore_ascii_case("application/openmetrics-text") && known_version {
                open_metrics = quality.max(open_metrics);
            } else if ["text/plain", "text/*", "*/*"].iter().any(|known| media.eq_ignore_ascii_case(known)) {
                text = quality.max(text);
            }
        }
        if open_metrics > 0.0 && open_metrics >= text { Self::OpenMetrics } else { Self::Text }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// A scrape's answer as it grows.
pub(crate) struct Exposition {
    format: Format,
    text: String,
}

impl Exposition {
    pub(crate) fn new(format: Format) -> Self {
        Self { format, text: String::with_capacity(64 * 1024) }
    }

    /// Begins a family; its samples follow.
    pub(crate) fn family(&mut self, family: &Declaration) {
        let name = match self.format {
            // There a counter's name is without the `_total` that its samples have.
            Format::OpenMetrics => family.name.strip_suffix("_total").unwrap_or(family.name),
            Format::Text => family.name,
        };
        let _ = write!(self.text, "# HELP {name} ");
        self.escaped(family.help, self.format == Format::OpenMetrics);
        let _ = writeln!(self.text, "\n# TYPE {name} {}", family.kind.as_str());
    }

    /// One sample of a series: the family's name and `suffix`.
    pub(crate) fn sample(&mut self, family: &Declaration, suffix: &str, labels: &[&str], value: impl Display) {
        self.series(family, suffix, labels, None);
        let _ = writeln!(self.text, " {value}");
    }

    /// One bucket of a histogram: all values up to `bound`.
    pub(crate) fn bucket(
        &mut self,
        family: &Declaration,
        labels: &[&str],
        bound: f64,
        count: u64,
        exemplar: Option<Exemplar>,
    ) {
        self.series(family, "_bucket", labels, Some(bound));
        let _ = write!(self.text, " {count}");
        if let Some(exemplar) = exemplar.filter(|_| self.format == Format::OpenMetrics) {
            let mut digits = [0; 32];
            let trace_id = ids::hex(exemplar.trace_id, &mut digits);
            let at = exemplar.at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
            let (seconds, millis) = (at / 1_000, at % 1_000);
            let _ = write!(self.text, " # {{trace_id=\"{trace_id}\"}} {} {seconds}.{millis:03}", exemplar.value);
        }
        self.text.push('\n');
    }

    /// A family of one sample without labels.
    pub(crate) fn single(&mut self, name: &'static str, help: &'static str, kind: Kind, value: Option<impl Display>) {
        let Some(value) = value else { return };
        let family = Declaration { name, help, kind, labels: &[] };
        self.family(&family);
        self.sample(&family, "", &[], value);
    }

    pub(crate) fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }

    fn series(&mut self, family: &Declaration, suffix: &str, labels: &[&str], bound: Option<f64>) {
        self.text.push_str(family.name);
        self.text.push_str(suffix);
        let mut separator = '{';
        for (label, value) in family.labels.iter().zip(labels) {
            let _ = write!(self.text, "{separator}{label}=\"");
            self.escaped(value, true);
            self.text.push('"');
            separator = ',';
        }
        if let Some(bound) = bound {
            // `1.0` and not `1` in both formats: OpenMetrics asks for it, and the two must not make two series.
            let _ = match bound {
                f64::INFINITY => write!(self.text, "{separator}le=\"+Inf\""),
                bound => write!(self.text, "{separator}le=\"{bound:?}\""),
            };
            separator = ',';
        }
        if separator == ',' {
            self.text.push('}');
        }
    }

    fn escaped(&mut self, text: &str, quotes: bool) {
        for character in text.chars() {
            match character {
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '"' if quotes => self.text.push_str("\\\""),
                other => self.text.push(other),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::{Duration, SystemTime};

    use proptest::prelude::*;

    use super::*;
    use crate::telemetry::Metrics;
    use crate::telemetry::records_for_tests::{chat, plain};

    /// A sample as a scraper reads it back.
    #[derive(Debug, PartialEq)]
    struct Sample {
        name: String,
        labels: BTreeMap<String, String>,
        value: f64,
        exemplar: Option<(String, f64, f64)>,
    }

    /// Reads `{name="value",…}` off the front of `text`.
    fn labels(text: &str) -> (BTreeMap<String, String>, &str) {
        let (mut found, Some(mut rest)) = (BTreeMap::new(), text.strip_prefix('{')) else {
            return (BTreeMap::new(), text);
        };
        while !rest.starts_with('}') {
            let (name, value) = rest.split_once("=\"").unwrap();
            let (mut read, mut characters) = (String::new(), value.char_indices());
            let end = loop {
                match characters.next().unwrap() {
                    (_, '\\') => match characters.next().unwrap().1 {
                        'n' => read.push('\n'),
                        escaped @ ('\\' | '"') => read.push(escaped),
                        other => panic!("\\{other} is no escape"),
                    },
                    (at, '"') => break at,
                    (_, '\n') => panic!("a line end inside a value"),
                    (_, other) => read.push(other),
                }
            };
            assert!(found.insert(name.to_owned(), read).is_none(), "{name} is there twice");
            rest = value[end + 1..].trim_start_matches(',');
        }
        (found, &rest[1..])
    }

    fn sample(line: &str) -> Sample {
        let name_end = line.find(['{', ' ']).unwrap();
        let (labels_read, rest) = labels(&line[name_end..]);
        let (value, exemplar) = match rest.split_once(" # ") {
            Some((value, exemplar)) => {
                let (names, rest) = labels(exemplar);
                let (observed, at) = rest.trim().split_once(' ').unwrap();
                let exemplar = (names["trace_id"].clone(), observed.parse().unwrap(), at.parse().unwrap());
                (value, Some(exemplar))
            }
            None => (rest, None),
        };
        Sample {
            name: line[..name_end].to_owned(),
            labels: labels_read,
            value: value.trim().parse().unwrap(),
            exemplar,
        }
    }

    /// The types by family and all samples, after a look at the order that both formats ask for.
    fn parse(text: &str) -> (BTreeMap<String, String>, Vec<Sample>) {
        let (mut types, mut samples, mut current) = (BTreeMap::new(), Vec::new(), String::new());
        for line in text.lines().filter(|line| *line != "# EOF") {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} comes twice");
                current = name.to_owned();
            } else if !line.starts_with("# HELP ") {
                let read = sample(line);
                assert!(read.name.starts_with(&current), "{line} stands under {current}");
                samples.push(read);
            }
        }
        assert!(!types.is_empty() && !samples.is_empty());
        (types, samples)
    }

    fn metrics() -> Metrics {
        let metrics = Metrics::new();
        metrics.observe(&chat("gpt-4o"));
        metrics.observe(&chat("a\"b\\c\nd"));
        let mut unsampled = plain();
        unsampled.trace.sampled = false;
        metrics.observe(&unsampled);
        metrics
    }

    const OPEN_METRICS: &str =
        "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";

    #[test]
    fn the_format_is_the_one_that_is_asked_for() {
        for (accept, format) in [
            (None, Format::Text),
            (Some(""), Format::Text),
            (Some("*/*"), Format::Text),
            (Some("text/html,application/xhtml+xml,*/*;q=0.8"), Format::Text),
            (Some("application/openmetrics-text"), Format::OpenMetrics),
            (Some(OPEN_METRICS), Format::OpenMetrics),
            (
                Some("application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;q=0.4"),
                Format::OpenMetrics,
            ),
            (Some("application/openmetrics-text;version=2.0.0"), Format::Text),
            (Some("application/openmetrics-text;q=0"), Format::Text),
            (Some("application/openmetrics-text;q=0.2,text/plain"), Format::Text),
            (Some("application/openmetrics-text;q=x"), Format::Text),
            (Some("application/vnd.google.protobuf;q=0.9"), Format::Text),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept:?}");
        }
    }

    #[test]
    fn the_text_format_reads_back() {
        let (content_type, text) = metrics().encode(None);
        assert_eq!(content_type, "text/plain; version=0.0.4; charset=utf-8");
        assert!(!text.contains("# EOF") && text.ends_with('\n'));
        let (types, samples) = parse(&text);
        assert_eq!(types["streamgauge_requests_total"], "counter");
        assert_eq!(types["gen_ai_server_time_to_first_token_seconds"], "histogram");
        assert!(samples.iter().all(|sample| sample.exemplar.is_none()));
        let model = samples.iter().filter_map(|sample| sample.labels.get("model")).find(|model| model.contains('"'));
        assert_eq!(model.unwrap(), "a\"b\\c\nd");
    }

    #[test]
    fn open_metrics_reads_back_with_exemplars() {
        let (content_type, text) = metrics().encode(Some(OPEN_METRICS));
        assert_eq!(content_type, "application/openmetrics-text; version=1.0.0; charset=utf-8");
        assert!(text.ends_with("\n# EOF\n") && text.matches("# EOF").count() == 1);
        let (types, samples) = parse(&text);
        assert_eq!(types["streamgauge_requests"], "counter", "a counter family's name has no _total");
        for sample in &samples {
            let family =
                types.iter().filter(|(name, _)| sample.name.starts_with(*name)).max_by_key(|(name, _)| name.len());
            if family.unwrap().1 == "counter" {
                assert!(sample.name.ends_with("_total"), "{sample:?}");
            }
        }
        let exemplars: Vec<_> =
            samples.iter().filter_map(|sample| sample.exemplar.as_ref().map(|e| (sample, e))).collect();
        assert!(!exemplars.is_empty());
        for (sample, (trace_id, value, at)) in exemplars {
            assert!(sample.name.ends_with("_bucket"));
            assert_eq!(trace_id, &format!("{:032x}", 0xabc));
            let le: f64 = sample.labels["le"].parse().unwrap();
            assert!(*value <= le);
            assert_eq!(*at, 1_700_000_000.26);
        }
    }

    #[test]
    fn requests_that_are_not_sampled_leave_no_exemplar() {
        let metrics = Metrics::new();
        let mut record = chat("gpt-4o");
        record.trace.sampled = false;
        metrics.observe(&record);
        assert!(!metrics.encode(Some(OPEN_METRICS)).1.contains("trace_id"));
    }

    #[test]
    fn buckets_are_cumulative_and_end_in_the_count() {
        for accept in [None, Some(OPEN_METRICS)] {
            let (_, samples) = parse(&metrics().encode(accept).1);
            let mut histograms = 0;
            for count in samples.iter().filter(|sample| sample.name.ends_with("_count")) {
                let name = format!("{}_bucket", count.name.strip_suffix("_count").unwrap());
                let buckets: Vec<_> = samples
                    .iter()
                    .filter(|sample| {
                        let mut labels = sample.labels.clone();
                        sample.name == name && labels.remove("le").is_some() && labels == count.labels
                    })
                    .collect();
                assert!(buckets.len() > 5 && buckets.is_sorted_by(|a, b| a.value <= b.value));
                assert!(
                    buckets
                        .iter()
                        .all(|bucket| bucket.labels["le"] == "+Inf" || bucket.labels["le"].contains(['.', 'e']))
                );
                let last = buckets.last().unwrap();
                assert_eq!((last.labels["le"].as_str(), last.value), ("+Inf", count.value));
                histograms += 1;
            }
            assert!(histograms > 5);
        }
    }

    proptest! {
        #[test]
        fn any_label_value_reads_back(value: String, help: String) {
            let declaration = Declaration {
                name: "m",
                help: Box::leak(help.into_boxed_str()),
                kind: Kind::Histogram,
                labels: &["a", "b"],
            };
            for format in [Format::Text, Format::OpenMetrics] {
                let mut out = Exposition::new(format);
                let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_050);
                out.family(&declaration);
                out.bucket(&declaration, &["x", &value], 1.0, 7, Some(Exemplar { trace_id: 1, value: 0.5, at }));
                let text = out.finish();
                let lines: Vec<_> = text.split('\n').filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
                prop_assert_eq!(lines.len(), 1);
                let read = sample(lines[0]);
                prop_assert_eq!(&read.labels["b"], &value);
                prop_assert_eq!(read.value, 7.0);
                prop_assert_eq!(read.exemplar.is_some(), format == Format::OpenMetrics);
            }
        }
    }
}
