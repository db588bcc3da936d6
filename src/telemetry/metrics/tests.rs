use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::*;
use crate::llm::UsageSource;
use crate::telemetry::record::{Cause, ErrorType, Outcome};
use crate::telemetry::records_for_tests::{attempt, chat, plain, websocket};

/// The sample lines of a scrape, by series. The process is left out.
fn scrape(metrics: &Metrics) -> BTreeMap<String, f64> {
    let (_, text) = metrics.encode(None);
    let samples: BTreeMap<_, _> = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.starts_with("process_"))
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(series, value)| (series.to_owned(), value.parse().unwrap()))
        .collect();
    assert!(!samples.is_empty());
    samples
}

fn scraped(record: Record) -> BTreeMap<String, f64> {
    let metrics = Metrics::new();
    metrics.observe(&record);
    scrape(&metrics)
}

fn place(endpoint: &str) -> EndpointOf<'_> {
    EndpointOf { upstream: "fastapi", endpoint }
}

const GENAI: &str = "route=\"chat\",upstream=\"fastapi\",variant=\"fastapi\",gen_ai_request_model=\"gpt-4o\",\
    gen_ai_operation_name=\"chat\",gen_ai_provider_name=\"openai\"";

#[test]
fn names_types_and_labels_are_a_contract() {
    let mut list = String::new();
    for family in Families::new().all() {
        let declaration = family.declaration();
        assert!(declaration.help.ends_with('.'), "{}", declaration.help);
        writeln!(list, "{} {} {{{}}}", declaration.name, declaration.kind.as_str(), declaration.labels.join(","))
            .unwrap();
    }
    let golden = include_str!("../../../tests/golden/metrics.txt");
    assert!(golden.lines().count() > 20);
    assert_eq!(list, golden, "if this change is meant, update tests/golden/metrics.txt, dashboards and alerts");
}

/// `docs/measurements.md` says of each metric what it counts, its unit, when it is added to, and the function that does it.
#[test]
fn every_metric_is_explained_once_and_its_source_is_there() {
    let page = include_str!("../../../docs/measurements.md");
    let (_, table) = page.split_once("\n## Every metric\n").unwrap();
    let table = table.split_once("\n## ").unwrap().0;
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let explained: Vec<Vec<&str>> = rows
        .map(|row| row.trim_matches('|').split(" | ").map(|cell| cell.trim().trim_matches('`')).collect())
        .collect();
    let names: Vec<&str> = explained.iter().map(|cells| cells[0]).collect();
    let families = Families::new();
    let declared: Vec<&str> = families.all().map(|family| family.declaration().name).collect();
    assert_eq!(names, declared, "in the order of their declaration");
    let sources = [
        ("mod.rs", include_str!("mod.rs")),
        ("state.rs", include_str!("state.rs")),
        ("endpoints.rs", include_str!("endpoints.rs")),
        ("mirror.rs", include_str!("mirror.rs")),
    ];
    for cells in explained {
        assert!(cells.len() == 5 && cells.iter().all(|cell| cell.len() > 3), "{cells:?}");
        let (file, function) = cells[4].split_once("` `").unwrap();
        let (_, text) = sources.into_iter().find(|(name, _)| *name == file).unwrap();
        let is_there = ["(", "<"].iter().any(|next| text.contains(&format!("fn {function}{next}")));
        assert!(is_there, "{file} has no {function}");
    }
}

/// Two labels of a family that change places do not compile, where no two of them have values of one type.
#[test]
fn no_two_labels_of_a_family_take_values_of_one_type() {
    let families = Families::new();
    let labelled = families.all().filter(|family| family.declaration().labels.len() > 1);
    let mut seen = 0;
    for family in labelled {
        let types = family.label_types();
        let distinct: std::collections::HashSet<_> = types.iter().collect();
        assert_eq!(types.len(), family.declaration().labels.len());
        assert_eq!(distinct.len(), types.len(), "{}", family.declaration().name);
        seen += 1;
    }
    assert!(seen > 20, "{seen}");
}

#[test]
fn a_chat_is_measured() {
    let samples = scraped(chat("gpt-4o"));
    let value = |series: &str| *samples.get(series).unwrap_or_else(|| panic!("{series} in {samples:#?}"));
    let genai = |name: &str| value(&format!("{name}{{{GENAI}}}"));
    assert_eq!(genai("gen_ai_server_time_to_first_token_seconds_sum"), 0.03);
    assert_eq!(genai("gen_ai_server_time_per_output_token_seconds_sum"), 0.01);
    assert_eq!(value(&format!("gen_ai_server_request_duration_seconds_sum{{{GENAI},error_type=\"\"}}")), 0.137);
    assert_eq!(value(&format!("gen_ai_client_token_usage_sum{{{GENAI},gen_ai_token_type=\"input\"}}")), 100.0);
    assert_eq!(value(&format!("gen_ai_client_token_usage_sum{{{GENAI},gen_ai_token_type=\"output\"}}")), 11.0);
    assert_eq!(
        value(
            "streamgauge_requests_total{route=\"chat\",upstream=\"fastapi\",variant=\"fastapi\",model=\"gpt-4o\",outcome=\"completed\",status=\"200\"}"
        ),
        1.0
    );
    assert_eq!(value("streamgauge_phase_seconds_sum{route=\"chat\",upstream=\"fastapi\",phase=\"generation\"}"), 0.12);
    assert_eq!(value("streamgauge_overhead_seconds_sum{route=\"chat\"}"), 0.003);
    let target = "{route=\"chat\",upstream=\"fastapi\",variant=\"fastapi\"}";
    assert_eq!(value(&format!("streamgauge_llm_first_byte_seconds_sum{target}")), 0.02);
    assert_eq!(value(&format!("streamgauge_llm_first_answer_seconds_sum{target}")), 0.04);
    assert_eq!(value(&format!("streamgauge_token_frame_gap_seconds_sum{target}")), 0.1);
    assert_eq!(value(&format!("streamgauge_token_frame_gap_seconds_count{target}")), 9.0);
    for (kind, count) in [("input", 100.0), ("output", 11.0)] {
        let series =
            format!("streamgauge_tokens_total{{route=\"chat\",upstream=\"fastapi\",model=\"gpt-4o\",type=\"{kind}\"}}");
        assert_eq!(value(&series), count);
    }
    for (part, count) in [("cache_read", 40.0), ("cache_write", 7.0), ("reasoning", 2.0)] {
        let series = format!("streamgauge_{part}_tokens_total{{route=\"chat\",upstream=\"fastapi\",model=\"gpt-4o\"}}");
        assert_eq!(value(&series), count);
    }
    for (name, count) in [
        ("input", 100.0),
        ("output", 11.0),
        ("cache_read_input", 40.0),
        ("cache_write_input", 7.0),
        ("reasoning_output", 2.0),
    ] {
        let counter = format!("gen_ai_client_inference_usage_{name}_tokens_total");
        assert_eq!(value(&format!("{counter}{{{GENAI},gen_ai_token_modality=\"unknown\"}}")), count);
    }
    for (name, sum) in [("input", 100.0), ("output", 11.0)] {
        let histogram = format!("gen_ai_client_inference_operation_{name}_tokens_sum");
        assert_eq!(value(&format!("{histogram}{{{GENAI},error_type=\"\"}}")), sum);
    }
    assert_eq!(
        value("streamgauge_llm_calls_total{route=\"chat\",upstream=\"fastapi\",usage_source=\"reported\"}"),
        1.0
    );
    assert_eq!(value("streamgauge_cost_usd_total{route=\"chat\",model=\"gpt-4o\",team=\"search\"}"), 0.0003605);
    assert_eq!(value("streamgauge_attempts_total{upstream=\"fastapi\",result=\"ok\"}"), 1.0);
    assert!(!samples.keys().any(|series| series.contains("slow_gaps") || series.contains("failed_attempts")));
}

#[test]
fn teams_are_labels_up_to_a_bound() {
    let metrics = Metrics::new();
    for team in 0..1_000 {
        let mut record = chat("gpt-4o");
        record.client.team = (team > 0).then(|| format!("team-{team}").into());
        metrics.observe(&record);
    }
    let samples = scrape(&metrics);
    let cost =
        |team: &str| samples[&format!("streamgauge_cost_usd_total{{route=\"chat\",model=\"gpt-4o\",team=\"{team}\"}}")];
    assert_eq!((cost("none"), cost("team-1"), cost("other")), (0.0003605, 0.0003605, 0.3240895));
    assert_eq!(samples.keys().filter(|series| series.contains("cost_usd")).count(), 102);
}

#[test]
fn what_is_no_llm_request_makes_no_llm_series() {
    let samples = scraped(plain());
    assert!(samples.contains_key("streamgauge_overhead_seconds_count{route=\"all\"}"));
    assert!(
        !samples.keys().any(|series| series.contains("gen_ai") || series.contains("token") || series.contains("usage"))
    );
}

#[test]
fn what_was_refused_before_routing_counts_too() {
    let mut record = plain();
    (record.route, record.served_by, record.status) = (None, None, Some(404));
    (record.outcome, record.error) = (Outcome::Rejected, Some(ErrorType::NoRoute));
    record.attempts.clear();
    let samples = scraped(record);
    let series = "streamgauge_requests_total{route=\"none\",upstream=\"none\",variant=\"none\",model=\"none\",outcome=\"rejected\",status=\"404\"}";
    assert_eq!(samples[series], 1.0);
}

#[test]
fn attempts_failovers_and_gaps_are_counted() {
    let mut record = chat("gpt-4o");
    let mut lost = attempt("primary", 0xa0);
    (lost.status, lost.error) = (None, Some(ErrorType::ConnectRefused));
    record.attempts[0].cause = Cause::Failover;
    record.attempts.insert(0, lost);
    let reading = &mut record.llm.as_mut().unwrap().reading;
    reading.slow_gap_count = 20;
    (reading.usage, reading.usage_source) = (crate::llm::Usage::default(), UsageSource::Missing);
    let samples = scraped(record);
    assert_eq!(samples["streamgauge_attempts_total{upstream=\"primary\",result=\"connect_refused\"}"], 1.0);
    assert_eq!(samples["streamgauge_attempts_total{upstream=\"fastapi\",result=\"ok\"}"], 1.0);
    assert_eq!(samples["streamgauge_failovers_total{from=\"primary\",to=\"fastapi\",reason=\"connect_refused\"}"], 1.0);
    assert_eq!(samples["streamgauge_slow_gaps_total{route=\"chat\",upstream=\"fastapi\"}"], 20.0);
    assert_eq!(
        samples["streamgauge_llm_calls_total{route=\"chat\",upstream=\"fastapi\",usage_source=\"missing\"}"],
        1.0
    );
    let told = |series: &String| series.contains("streamgauge_tokens_total") || series.contains("token_usage");
    assert!(!samples.keys().any(told));
    let unknown =
        format!("gen_ai_client_inference_usage_input_tokens_total{{{GENAI},gen_ai_token_modality=\"unknown\"}}");
    assert_eq!(samples[&unknown], 0.0, "by the conventions");
}

#[test]
fn more_results_than_handles_are_all_counted() {
    let metrics = Metrics::new();
    for status in 400..420 {
        for _ in 0..3 {
            let mut record = plain();
            record.status = Some(status);
            metrics.observe(&record);
        }
    }
    let samples = scrape(&metrics);
    let counts: Vec<_> =
        samples.iter().filter(|(series, _)| series.starts_with("streamgauge_requests_total")).collect();
    assert_eq!(counts.len(), 20);
    assert!(counts.iter().all(|(_, count)| **count == 3.0));
}

#[test]
fn guards_count_what_lasts() {
    let metrics = Metrics::new();
    let (one, two) = (metrics.in_flight("chat"), metrics.in_flight("chat"));
    let open = metrics.websocket_in_flight();
    let samples = scrape(&metrics);
    assert_eq!(samples["streamgauge_requests_in_flight{route=\"chat\"}"], 2.0);
    assert_eq!(samples["streamgauge_websockets_open"], 1.0);
    drop((one, two, open));
    let samples = scrape(&metrics);
    assert_eq!(samples["streamgauge_requests_in_flight{route=\"chat\"}"], 0.0);
    assert_eq!(samples["streamgauge_websockets_open"], 0.0);
}

#[test]
fn the_state_of_the_process_shows() {
    let metrics = Metrics::new();
    assert_eq!(scrape(&metrics)["streamgauge_config_reloads_total{result=\"rejected\"}"], 0.0);
    metrics.generation(7);
    metrics.reload_result(true);
    metrics.reload_result(false);
    metrics.endpoint_up(place("127.0.0.1:8000"), true);
    metrics.endpoint_up(place("127.0.0.1:8001"), false);
    metrics.endpoint_gone(place("127.0.0.1:8000"));
    let dropped = Dropped::default();
    metrics.watch_dropped("traces", &dropped);
    dropped.add(5);
    metrics.observe(&websocket());
    let samples = scrape(&metrics);
    assert_eq!(samples["streamgauge_config_generation"], 7.0);
    assert_eq!(samples["streamgauge_config_reloads_total{result=\"ok\"}"], 1.0);
    assert_eq!(samples["streamgauge_config_reloads_total{result=\"rejected\"}"], 1.0);
    assert_eq!(samples["streamgauge_config_last_reload_successful"], 0.0);
    metrics.reload_unchanged();
    assert_eq!(scrape(&metrics)["streamgauge_config_last_reload_successful"], 1.0);
    assert!(samples["streamgauge_config_last_reload_success_timestamp_seconds"] > 1.7e9);
    assert_eq!(samples["streamgauge_endpoint_ejections_total{upstream=\"fastapi\",endpoint=\"127.0.0.1:8001\"}"], 0.0);
    assert_eq!(samples["streamgauge_buffered_streams_total{upstream=\"fastapi\"}"], 0.0);
    assert_eq!(samples["streamgauge_endpoint_up{upstream=\"fastapi\",endpoint=\"127.0.0.1:8001\"}"], 0.0);
    assert!(!samples.keys().any(|series| series.contains("127.0.0.1:8000")));
    assert_eq!(samples["streamgauge_telemetry_dropped_total{signal=\"traces\"}"], 5.0);
    assert_eq!(samples["streamgauge_websocket_messages_total{route=\"all\",direction=\"from_client\"}"], 3.0);
    assert_eq!(samples["streamgauge_websocket_messages_total{route=\"all\",direction=\"to_client\"}"], 5.0);
    assert!(samples.keys().any(|series| series.starts_with("streamgauge_build_info{version=\"")));
}

#[test]
fn endpoints_have_series_of_their_own_up_to_a_bound() {
    let metrics = Metrics::new();
    let names: Vec<String> = (0..600).map(|number| format!("10.0.{}.{}:80", number / 250, number % 250)).collect();
    names.iter().for_each(|name| metrics.endpoint_up(place(name), true));
    for name in &names {
        let mut record = chat("gpt-4o");
        record.attempts[0].place.endpoint = name.as_str().into();
        metrics.observe(&record);
    }
    let samples = scrape(&metrics);
    let of = |family: &str, endpoint: &str, more: &str| {
        samples.get(&format!("{family}{{upstream=\"fastapi\",endpoint=\"{endpoint}\"{more}}}")).copied()
    };
    let attempts = |endpoint: &str| of("streamgauge_endpoint_attempts_total", endpoint, ",result=\"ok\"");
    assert_eq!((attempts("10.0.0.0:80"), attempts("10.0.1.249:80")), (Some(1.0), Some(1.0)));
    assert_eq!((attempts("10.0.2.0:80"), attempts("other")), (None, Some(100.0)));
    assert_eq!(of("streamgauge_endpoint_first_token_seconds_sum", "10.0.0.0:80", ""), Some(0.029), "of the attempt");
    assert_eq!(of("streamgauge_endpoint_attempt_duration_seconds_sum", "10.0.0.0:80", ""), Some(0.014));
    for name in ["10.0.0.0:80", "10.0.2.0:80", "10.0.2.1:80"] {
        metrics.health_checked(place(name), CheckResult::Status);
    }
    let samples = scrape(&metrics);
    let checks = |endpoint: &str, result: &str| {
        samples[&format!(
            "streamgauge_health_checks_total{{upstream=\"fastapi\",endpoint=\"{endpoint}\",result=\"{result}\"}}"
        )]
    };
    assert_eq!((checks("10.0.0.0:80", "status"), checks("10.0.0.0:80", "healthy")), (1.0, 0.0));
    assert_eq!((checks("other", "status"), checks("other", "timeout")), (2.0, 0.0));
    metrics.endpoint_gone(place(&names[0]));
    assert!(!scrape(&metrics).keys().any(|series| series.contains("\"10.0.0.0:80\"")), "its series are gone");
    metrics.endpoint_up(place("10.0.9.9:80"), true);
    assert!(scrape(&metrics).keys().any(|series| series.contains("attempts_total") && series.contains("10.0.9.9:80")));
}

#[test]
fn a_reload_takes_series_away_and_what_stays_goes_on() {
    let metrics = Metrics::new();
    metrics.observe(&chat("gpt-4o"));
    metrics.observe(&plain());
    let held = metrics.in_flight("all");
    let all = Names { routes: &["chat"], upstreams: &["fastapi"], variants: &["fastapi"], limits: &[] };
    metrics.retain(all);
    assert!(!scrape(&metrics).keys().any(|series| series.contains("route=\"all\"")));
    drop(held);
    metrics.observe(&chat("gpt-4o"));
    metrics.observe(&plain());
    drop(metrics.in_flight("all"));
    let samples = scrape(&metrics);
    assert!(!samples.keys().any(|series| series.contains("route=\"all\"")), "what began before ends as removed");
    assert_eq!(samples["streamgauge_overhead_seconds_count{route=\"removed\"}"], 1.0);
    assert_eq!(samples["streamgauge_overhead_seconds_count{route=\"chat\"}"], 2.0, "the old series is written to");
    assert_eq!(samples["streamgauge_attempts_total{upstream=\"fastapi\",result=\"ok\"}"], 4.0);
    metrics.retain(Names { upstreams: &[], ..all });
    assert!(!scrape(&metrics).keys().any(|series| series.contains("upstream=\"fastapi\"")));
}

#[test]
fn absurd_token_counts_do_not_spoil_the_counters() {
    let metrics = Metrics::new();
    for _ in 0..8 {
        let mut record = chat("gpt-4o");
        record.llm.as_mut().unwrap().reading.usage.output = Some(u64::MAX);
        metrics.observe(&record);
    }
    let series = "streamgauge_tokens_total{route=\"chat\",upstream=\"fastapi\",model=\"gpt-4o\",type=\"output\"}";
    assert_eq!(scrape(&metrics)[series], (8 * TOKENS_MAX) as f64);
}

#[test]
fn a_model_in_use_keeps_its_label_and_a_replaced_one_leaves_nothing() {
    let metrics = Metrics::new();
    let chat_at = |model: &str, user: &str, seconds: u64| {
        let mut record = chat(model);
        record.client.user = Some(user.into());
        record.started += Duration::from_secs(seconds);
        metrics.observe(&record);
    };
    for n in 0..49 {
        chat_at(&format!("old-{n}"), "bomber", 0);
    }
    chat_at("hot", "bomber", 0);
    chat_at("hot", "bomber", 3_000);
    chat_at("refused", "bomber", 3_000);
    assert!(!metrics.encode(None).1.contains("\"refused\""));
    for n in 0..49 {
        chat_at(&format!("new-{n}"), "bomber", 4_000);
    }
    let text = metrics.encode(None).1;
    assert!(text.contains("\"hot\"") && text.contains("\"new-48\"") && !text.contains("\"old-"));
    assert!(text.contains("model=\"other\""));
}

/// Whatever clients and upstreams write, there are only so many series.
#[test]
fn a_label_bomb_is_bounded() {
    let metrics = Metrics::new();
    let mut sizes = Vec::new();
    for n in 0..100_000_u32 {
        let mut record = chat(&format!("model-{n}"));
        record.request.path = format!("/v1/{n}/chat/completions").into();
        record.request.method = format!("M{n}").into();
        record.client.user = Some(format!("user-{n}").into());
        record.llm.as_mut().unwrap().reading.response_model = Some(format!("answer-{n}").into());
        if n % 2 == 0 {
            (record.status, record.outcome) = (Some((n % 1_000) as u16), Outcome::Rejected);
            record.llm.as_mut().unwrap().reading.first_token = None;
        }
        metrics.observe(&record);
        if n == 50_000 {
            sizes.push(metrics.series());
        }
    }
    sizes.push(metrics.series());
    assert_eq!(sizes[0], sizes[1], "the second half added nothing");
    assert!(sizes[1] < 2_500, "{}", sizes[1]);
    let text = metrics.encode(None).1;
    assert!(text.contains("gen_ai_request_model=\"other\""));
    assert!(!text.contains("model-99999") && !text.contains("user-") && !text.contains("/v1/"));
}
