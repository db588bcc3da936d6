//! `streamgauge reference`: pages of what the program declares, in Markdown, for the documentation site.

use std::fmt::Write as _;

use crate::telemetry::log_fields::log_fields;
use crate::telemetry::metrics;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Subcommand)]
pub(super) enum Page {
    /// Every metric of /metrics.
    Metrics,
    /// Every field of the log line.
    Log,
}

/// The page.
pub(super) fn page(page: Page) -> String {
    match page {
        Page::Metrics => metrics_page(),
        Page::Log => log_page(),
    }
}

fn metrics_page() -> String {
    let mut out = "# Metrics\n\nEvery metric of `/metrics`, as the program declares it. [Measurements](../docs/measurements.md#every-metric) says when each is \
                   added to.\n\n| metric | type | labels | help |\n|---|---|---|---|\n"
        .to_owned();
    for declared in metrics::declared() {
        let labels: Vec<String> = declared.labels.iter().map(|label| format!("`{label}`")).collect();
        row(&mut out, &[&format!("`{}`", declared.name), declared.kind.as_str(), &labels.join(", "), declared.help]);
    }
    out
}

fn log_page() -> String {
    let mut out = "# Fields of the log line\n\nEvery field of the JSON line that each request has on stdout, in its order; what does not apply is absent. Times \
                   are in seconds. `limit/by` is `by` in the object `limit`.\n\n| field | type | meaning |\n|---|---|---|\n"
        .to_owned();
    for field in log_fields() {
        row(&mut out, &[&format!("`{}`", field.name), field.kind, field.meaning]);
    }
    out
}

fn row(out: &mut String, cells: &[&str]) {
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|").replace('<', "&lt;")).collect();
    // A String takes what is written to it.
    let _ = writeln!(out, "| {} |", cells.join(" | "));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_has_the_cells_of_its_head() {
        for one in [Page::Metrics, Page::Log] {
            let text = page(one);
            let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| ")).collect();
            assert!(rows.len() > 60, "{one:?}: {}", rows.len());
            let cells = |row: &str| row.replace("\\|", "").matches('|').count();
            assert!(rows.iter().all(|row| cells(row) == cells(rows[0])), "{text}");
        }
        assert!(
            metrics_page()
                .contains("| `streamgauge_overhead_seconds` | histogram | `route` | What the proxy itself took")
        );
        assert!(log_page().contains("| `ttft_s` | seconds | to the first token |"));
    }
}
