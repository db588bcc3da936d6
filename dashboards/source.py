#!/usr/bin/env python3
"""Grafana's dashboards, a panel an entry. Change them here, then write the JSON anew:

    dashboards/source.py            writes dashboards/grafana/*.json
    dashboards/source.py --check    fails if those files are not what this would write

Rows stand in the order in which an operator asks: is it up, is it slow, who is slow, since when, for whom, what does it cost.
"""

import pathlib
import sys

from grafana import drill, heat, line, mean, of, over_range, quantile, quantiles, rate, row, stat, states, table, text, total, write
from names import (
    ATTEMPTS, BAD, COST, DECISIONS, DURATION, ENDPOINT_ATTEMPTS, EVERY, FAILED, GAP, GAP_SPAN, INPUT, NOT_OURS, OUTPUT, PHASE, REQUESTS, RESERVED, RETURNED, SERVED,
    SETTLED, TOKENS, UNPRICED, USED,
    TPOT, TPOT_SPAN, TTFT, TTFT_SPAN, USAGE, share,
)
from slo import ANSWERED, FIRST_TOKEN

# Where the objectives are drawn.
LATE, FAILING = [float(FIRST_TOKEN)], [round(1 - ANSWERED, 6)]

OVERVIEW, LATENCY, BACKENDS, CANARY, LIMITS, PROXY = (
    f"streamgauge-{name}" for name in ("overview", "latency", "backends", "canary", "limits", "proxy")
)


def overview():
    good = f"1 - {share(over_range(REQUESTS, where=BAD), over_range(REQUESTS, where=SERVED))}"
    return [
        row(
            "Is it up?",
            stat("Proxies up", "none", "Instances that answer scrapes. Fewer than you run: see the runbook TargetAbsent.",
                 f"sum({of('up')})", limits=[1], falling=True),
            drill(BACKENDS, "Backends and failover", stat("Endpoints down", "none",
                  "Endpoints of upstreams that are taken out now. Above 0: open Backends and failover, and see which and since when.",
                  f"count({of('streamgauge_endpoint_up')}) - sum({of('streamgauge_endpoint_up')})", limits=[1])),
            stat("Answered well", "percentunit", "Requests of the time shown that got their whole answer. What callers got wrong, broke off, or were "
                 "refused by limits does not count. Low: look below for how requests end, then for the upstream.",
                 good, limits=[0.99, ANSWERED], falling=True, decimals=2),
            stat("In flight", "none", "Requests that are being served now. Growing without more requests: answers take longer, or hang.",
                 f"sum({of('streamgauge_requests_in_flight')})"),
            table("Alerts", "none", "Alerts that are pending or firing. Each names its runbook; start with the upstream or route in its labels.",
                  'ALERTS{alertname=~"Streamgauge.+"}'),
            height=6,
        ),
        row(
            None,
            line("How requests end", "reqps", "All requests by outcome. truncated, stalled, error_in_stream, timeout and upstream_error are the backend's "
                 "doing; rejected is ours, client_cancelled the caller's.", {"{{outcome}}": rate(REQUESTS, "outcome")}, stack="normal"),
            line("Errors by status", "reqps", "Requests that were not answered with success. 429 and 401 are mostly the callers' own; 5xx: who, is below.",
                 {"{{status}}": rate(REQUESTS, "status", 'status!~"2..|1..|3.."')}, stack="normal"),
        ),
        row(
            "Is it slow?",
            drill(LATENCY, "Latency and streams", line("Time to first token", "s", "As users see it, failed attempts included. High: the panel of phases "
                  "tells where the time goes, the next row with whom. A point leads to traces as slow.", quantiles(TTFT), limits=LATE, traces=TTFT_SPAN)),
            line("Time per output token", "s", "How fast answers flow after the first token. High: the model decodes slowly; more load or a larger batch.",
                 quantiles(TPOT), traces=TPOT_SPAN),
            line("Where the time goes", "percentunit", "Share of all requests' time by phase. upstream_wait and preamble: queue and prefill of the backend; "
                 "generation: decoding; client_blocked: callers that do not read; admit and proxy: us; failed_attempts: failover.",
                 {"{{phase}}": rate(PHASE + "_sum", "phase")}, stack="percent"),
        ),
        row(
            "Who is slow?",
            line("First token by upstream, p95", "s", "One line stands out: that upstream. All of them: something they share, or the load.",
                 {"{{upstream}}": quantile(0.95, TTFT, "upstream")}, traces=TTFT_SPAN),
            line("First token by model, p95", "s", "One model is slow at every upstream: the model, or longer prompts (Limits, users and cost).",
                 {"{{gen_ai_request_model}}": quantile(0.95, TTFT, "gen_ai_request_model")}, traces=TTFT_SPAN),
            drill(BACKENDS, "Backends and failover", line("Failed attempts by upstream", "reqps", "Attempts that gave no usable answer, those that failover "
                  "repaired included: users may have noticed nothing yet.", {"{{upstream}}: {{result}}": rate(ATTEMPTS, "upstream, result", FAILED)})),
        ),
        row(
            "Since when?",
            heat("First tokens over time", "s", "How many first tokens came how late, over time. A second band above the first: some backend or model is slow.", TTFT),
            line("Configuration and version", "none", "The number of the configuration each instance serves. A step that fits the moment it went bad: look at "
                 "that change first. Instances apart: one did not reload.", {"{{instance}}": of("streamgauge_config_generation")}),
        ),
        row(
            "For whom?",
            line("Failures by route", "percentunit", "Share of a route's requests that ended badly, callers' own mistakes aside.",
                 {"{{route}}": share(rate(REQUESTS, "route", BAD), rate(REQUESTS, "route", SERVED))}, limits=FAILING),
            line("Failures by model", "percentunit", "The same by model: one that stands out fails wherever it is served.",
                 {"{{model}}": share(rate(REQUESTS, "model", BAD), rate(REQUESTS, "model", SERVED))}, limits=FAILING),
            line("Requests by route", "reqps", "Who asks how much. A jump explains latency at the backends; a fall to nothing means callers cannot reach us.",
                 {"{{route}}": rate(REQUESTS, "route")}, stack="normal"),
        ),
        row(
            "What does it cost?",
            drill(LIMITS, "Limits, users and cost", line("Dollars an hour by model", "currencyUSD", "What tokens cost, for models with a price. A jump: see by "
                  "whom on Limits, users and cost.", {"{{model}}": f"3600 * {rate(COST, 'model')}"}, stack="normal")),
            line("Tokens a second", "short", "Input and output tokens; what was read from a cache is input, reasoning is output.",
                 {"{{type}}": rate(TOKENS, "type")}, stack="normal"),
            stat("Spent in the time shown", "currencyUSD", "Dollars, by the prices in the configuration. 0 with traffic: no [[price]] matches the model.",
                 f"sum({over_range(COST)})", decimals=4),
        ),
    ]


def latency():
    by_upstream = ("upstream", "{{upstream}}")
    return [
        row(
            "First token",
            line("Time to first token", "s", "As users see it, failed attempts included. Above the dashed line for long, the SLO burns.",
                 quantiles(TTFT), limits=LATE, traces=TTFT_SPAN),
            line("By upstream, p95", "s", "Which upstream is slow to begin.", {by_upstream[1]: quantile(0.95, TTFT, by_upstream[0])}, traces=TTFT_SPAN),
            heat("Spread", "s", "Two bands are two kinds of requests or backends; one that moves up is a queue that grows.", TTFT),
        ),
        row(
            None,
            line("First byte, token and answer, p95", "s", "First byte early and first token late: the backend answers, then thinks or queues. First answer later "
                 "than first token: reasoning.", {
                     "first byte": quantile(0.95, "streamgauge_llm_first_byte_seconds"),
                     "first token": quantile(0.95, TTFT),
                     "first answer": quantile(0.95, "streamgauge_llm_first_answer_seconds"),
                 }, traces=TTFT_SPAN),
            line("By route, p95", "s", "Which route's users wait.", {"{{route}}": quantile(0.95, TTFT, "route")}, traces=TTFT_SPAN),
            line("By model, p95", "s", "Which model is slow to begin.", {"{{gen_ai_request_model}}": quantile(0.95, TTFT, "gen_ai_request_model")}, traces=TTFT_SPAN),
        ),
        row(
            "Pace",
            line("Time per output token", "s", "After the first token, per request. Readers notice above about 0.1 s.", quantiles(TPOT), traces=TPOT_SPAN),
            line("By upstream, p95", "s", "One upstream slower than its peers: its load, its batch size, its hardware.",
                 {"{{upstream}}": quantile(0.95, TPOT, "upstream")}, traces=TPOT_SPAN),
            line("By model, p95", "s", "Larger models are slower; compare with last week, not with each other.",
                 {"{{gen_ai_request_model}}": quantile(0.95, TPOT, "gen_ai_request_model")}, traces=TPOT_SPAN),
        ),
        row(
            "Gaps",
            line("Gaps between tokens, p99", "s", "The pauses that users see inside answers. High with a good time per token: the backend works in bursts.",
                 {"{{upstream}}": quantile(0.99, GAP, "upstream")}, traces=GAP_SPAN),
            line("Slow gaps", "ops", "Gaps longer than telemetry.slow_gap; streams that went on after them. The backend paused inside streams: preemption, swapping, an overloaded GPU.",
                 {"{{route}} {{upstream}}": rate("streamgauge_slow_gaps_total", "route, upstream")}),
            line("Streams held back", "ops", "Streams that something collected before it let them go. Any: runbook BufferingUpstream names the usual culprits.",
                 {"{{upstream}}": rate("streamgauge_buffered_streams_total", "upstream")}),
        ),
        row(
            "Streams that are no LLM's",
            line("First event, p95", "s", "Notifications, MCP, progress: how long they take to begin. They are in no panel above.",
                 {"{{upstream}}": quantile(0.95, "streamgauge_non_llm_stream_first_event_seconds", "upstream")}),
            line("Gaps between events, p99", "s", "Silences inside them. Nothing ends a silent stream; where nobody wants that, set kind = \"stream\" and its times.",
                 {"{{upstream}}": quantile(0.99, "streamgauge_non_llm_stream_gap_seconds", "upstream")}),
            line("How they end", "ops", "client_cancelled is how most end. truncated: the upstream broke off.",
                 {"{{upstream}}: {{outcome}}": rate("streamgauge_non_llm_stream_duration_seconds_count", "upstream, outcome")}),
        ),
        row(
            "Where the time goes",
            line("By phase, mean", "s", "Seconds a request spends in each phase on average: the tallest part is the first to look at.",
                 {"{{phase}}": f"{rate(PHASE + '_sum', 'phase')} / scalar({rate(PHASE + '_count', where=EVERY)})"}, stack="normal"),
            line("Queue and prefill, p95", "s", "From the request's last byte to the answer's head. High: the backend queues; add replicas or limit callers.",
                 {"{{upstream}}": quantile(0.95, PHASE, "upstream", 'phase="upstream_wait"')}),
            line("Waiting for the caller, p95", "s", "Time in which callers took no bytes. High: slow clients or a proxy before us; the backend is not to blame.",
                 {"{{route}}": quantile(0.95, PHASE, "route", 'phase="client_blocked"')}),
        ),
        row(
            "Whole answers",
            line("Duration", "s", "From the request's head to the answer's end. Long answers are long: judge by first token and pace before this.", quantiles(DURATION)),
            line("Duration of failures, p95", "s", "How long callers waited for a failure, by what failed. Near a timeout of the route: lower it, or let it hedge.",
                 {"{{error_type}}": quantile(0.95, DURATION, "error_type", 'error_type!=""')}),
            line("Output tokens a request", "short", "Answers that grow make durations grow.", quantiles(USAGE, where='gen_ai_token_type="output"')),
        ),
        row(
            "How streams end",
            line("Without their normal end", "reqps", "Broken off, stalled, ended by an error or a time limit, by upstream. Find one in the log by its outcome.",
                 {"{{upstream}}: {{outcome}}": rate(REQUESTS, "upstream, outcome", 'outcome=~"truncated|stalled|error_in_stream|timeout"')}),
            line("Left by their callers", "percentunit", "Share of requests that callers broke off. It rises when answers come too late for people.",
                 {"{{route}}": share(rate(REQUESTS, "route", 'outcome="client_cancelled"'), rate(REQUESTS, "route"))}),
        ),
        row(
            "WebSockets",
            line("Messages", "ops", "Messages passed, from callers and to them.", {"{{route}} {{direction}}": rate("streamgauge_websocket_messages_total", "route, direction")}),
            line("Open", "none", "WebSockets that are open. A sawtooth is a restart or a deployment; a fall to 0 is a lost backend.",
                 {"{{instance}}": total("streamgauge_websockets_open", "instance")}),
        ),
    ]


def backends():
    failed = rate(ATTEMPTS, "upstream", FAILED)
    return [
        row(
            "Are they up?",
            states("Endpoints", "Which endpoints take requests. Down: it failed five times in a row, half of its requests, or its health check.",
                   f"min by (upstream, endpoint) ({of('streamgauge_endpoint_up')})", "{{upstream}} {{endpoint}}", {0: ("down", "red"), 1: ("up", "green")}),
            line("Taken out", "ops", "How often an endpoint is taken out for failing. Again and again: it comes back and fails again; look at its own log.",
                 {"{{upstream}} {{endpoint}}": rate("streamgauge_endpoint_ejections_total", "upstream, endpoint")}),
            line("Health checks", "ops", "Active checks by result, for upstreams with a health key. status: it answers that it is ill; timeout: it hangs; unreachable: nobody listens.",
                 {"{{upstream}} {{endpoint}}: {{result}}": rate("streamgauge_health_checks_total", "upstream, endpoint, result")}),
            states("Out of service by hand", "Which endpoints a person drained or disabled (streamgauge drain lists who and why). That is no failure.",
                   f"min by (upstream, endpoint) ({of('streamgauge_endpoint_in_service')})", "{{upstream}} {{endpoint}}", {0: ("out", "orange"), 1: ("in service", "green")}),
            line("Levers set", "short", "How many endpoints and targets are drained or disabled, and keys revoked, by hand. Good is none that is forgotten: streamgauge drain lists them.",
                 {"{{lever}}": f"max by (lever) ({of('streamgauge_levers_set')})"}),
        ),
        row(
            "Do they answer?",
            line("Failed attempts", "percentunit", "Share of attempts at an upstream that gave no usable answer. Failover may hide it from users, at a price.",
                 {"{{upstream}}": share(failed, rate(ATTEMPTS, "upstream"))}, limits=[0.05]),
            line("What was wrong", "reqps", "connect_*: not there; upstream_status: 429 or 5xx; first_token_timeout: too slow; upstream_body_reset, missing_end: it "
                 "broke off.", {"{{upstream}}: {{result}}": rate(ATTEMPTS, "upstream, result", FAILED)}, stack="normal"),
            line("Attempts", "reqps", "Who is asked how often: the split of the load, failover and hedges included.", {"{{upstream}}": rate(ATTEMPTS, "upstream")}, stack="normal"),
        ),
        row(
            "Which replica is it?",
            line("Failed attempts by endpoint", "percentunit", "Share of an endpoint's attempts that gave no usable answer, broken-off streams included. One line "
                 "above the others is the guilty replica: its own log, and jq on the log by server.address.",
                 {"{{upstream}} {{endpoint}}": share(rate(ENDPOINT_ATTEMPTS, "upstream, endpoint", FAILED), rate(ENDPOINT_ATTEMPTS, "upstream, endpoint"))}, limits=[0.05]),
            line("First token by endpoint, p95", "s", "From the attempt's beginning, without what failed before it. One line above the others is the slow replica.",
                 {"{{upstream}} {{endpoint}}": quantile(0.95, "streamgauge_endpoint_first_token_seconds", "upstream, endpoint")}, traces=TTFT_SPAN),
            line("Duration of attempts by endpoint, p95", "s", "From the attempt's beginning to its end. One that is shorter than its peers breaks answers off.",
                 {"{{upstream}} {{endpoint}}": quantile(0.95, "streamgauge_endpoint_attempt_duration_seconds", "upstream, endpoint")}),
        ),
        row(
            "What is repaired?",
            line("Failovers", "reqps", "Attempts that another upstream or endpoint replaced. The first name is the guilty one.",
                 {"{{from}} → {{to}}: {{reason}}": rate("streamgauge_failovers_total", "from, to, reason")}, stack="normal"),
            line("Time lost to failed attempts, p95", "s", "What failover costs those whose request needed it. Near a timeout: lower timeouts.first_token or hedge.",
                 {"{{route}}": quantile(0.95, PHASE, "route", 'phase="failed_attempts"')}),
            line("Hedges", "reqps", "Requests asked a second time while the first was silent. Mostly won: the first choice is slow; mostly lost: hedge_after is too short.",
                 {"{{route}}: {{result}}": rate("streamgauge_hedges_total", "route, result")}),
        ),
        row(
            "Who is slow?",
            line("Connecting, p95", "s", "Getting a connection. Above a few ms in one data centre: a full backlog, DNS, or the network.",
                 {"{{upstream}}": quantile(0.95, PHASE, "upstream", 'phase="connect"')}),
            line("First token, p95", "s", "As users see it, by who answered in the end.", {"{{upstream}}": quantile(0.95, TTFT, "upstream")}, traces=TTFT_SPAN),
            line("Generating, p95", "s", "From the first token on, waiting for the backend.", {"{{upstream}}": quantile(0.95, PHASE, "upstream", 'phase="generation"')}),
        ),
        row(
            "What reaches users?",
            line("Answers by upstream and outcome", "reqps", "Where answers came from, and how they ended.",
                 {"{{upstream}}: {{outcome}}": rate(REQUESTS, "upstream, outcome", NOT_OURS)}, stack="normal"),
            line("Routes without an answer", "reqps", "Failures of routes where all upstreams were asked in vain. Any for long: runbook NoBackend.",
                 {"{{route}}": rate(REQUESTS, "route", 'outcome=~"upstream_error|timeout",status=~"5.."')}),
        ),
    ]


def canary():
    return [
        row(
            "Where does it stand?",
            line("Share", "percentunit", "Each variant's share of the requests. A fall to 0: rolled back; `streamgauge canary` tells why.",
                 {"{{route}}: {{variant}}": f"max by (route, variant) ({of('streamgauge_canary_traffic_ratio')})"}, max=1),
            line("Evidence of harm", "none", "E-values by fact, on a log scale: 1 is nothing, 10 holds the next step, 526 (at alpha = 0.01) rolls back.",
                 {"{{route}}: {{fact}}": f"max by (route, fact) ({of('streamgauge_canary_harm_e_value')})"}, log=True, limits=[10, 526]),
            table("Decisions", "none", "Decisions since the start of each instance, of the judge and of operators. The log has each with its reason.",
                  total("streamgauge_canary_decisions_total", "route, decision")),
        ),
        row(
            "Is it worse?",
            line("Failures by variant", "percentunit", "Share of requests that ended badly. What failover repaired is not in here, but is in the evidence.",
                 {"{{variant}}": share(rate(REQUESTS, "variant", BAD), rate(REQUESTS, "variant", SERVED))}),
            line("First token by variant, p95", "s", "The canary's line above the others': late first tokens.", {"{{variant}}": quantile(0.95, TTFT, "variant")}, traces=TTFT_SPAN),
            line("Requests by variant", "reqps", "How much each comparison rests on.", {"{{variant}}": rate(REQUESTS, "variant")}, stack="normal"),
        ),
        row(
            None,
            line("Time per output token by variant, p95", "s", "Pace after the first token.", {"{{variant}}": quantile(0.95, TPOT, "variant")}, traces=TPOT_SPAN),
            line("Gaps by variant, p99", "s", "Pauses inside answers.", {"{{variant}}": quantile(0.99, GAP, "variant")}, traces=GAP_SPAN),
            line("First answer by variant, p95", "s", "After reasoning, where there is any.",
                 {"{{variant}}": quantile(0.95, "streamgauge_llm_first_answer_seconds", "variant")}, traces=TTFT_SPAN),
            line("Output tokens by variant, p50", "short", "Answers of another length are a change in what users get.",
                 {"{{variant}}": quantile(0.5, USAGE, "variant", 'gen_ai_token_type="output"')}),
        ),
        row(
            "Shadow: copies of requests that no user waits for",
            line("Copies", "reqps", "same, differs: compared; failed: the copy alone failed; skipped: not sent, for its own bounds. Users never notice.",
                 {"{{route}}: {{result}}": rate("streamgauge_shadow_requests_total", "route, result")}, stack="normal"),
            line("Differences", "reqps", "In what the copies' answers differ. status: the new one refuses or fails; length: it says more or less.",
                 {"{{route}}: {{fact}}": rate("streamgauge_shadow_differences_total", "route, fact")}),
            line("First token, p95", "s", "Of the same requests. shadow above primary: the new one would make users wait that much longer.",
                 {"{{route}}: {{side}}": quantile(0.95, "streamgauge_shadow_compared_first_token_seconds", "route, side")}, limits=LATE),
            line("Output tokens", "short", "Tokens a second of the same requests: the same lengths give the same lines.",
                 {"{{route}}: {{side}}": rate("streamgauge_shadow_compared_output_tokens_total", "route, side")}),
            line("Dollars an hour", "currencyUSD", "What copies cost on top. Too much: a smaller percent or tokens_per_minute of the shadow.",
                 {"{{route}}": f"3600 * {rate('streamgauge_shadow_cost_usd_total', 'route')}"}),
        ),
    ]


def limits():
    refused = rate(DECISIONS, "limit", 'decision!="admitted"')
    return [
        row(
            "Are callers refused?",
            line("Refused", "percentunit", "Share of decisions that refused, by limit. One user over a limit is the limit's purpose; a tenth of all is not.",
                 {"{{limit}}": share(refused, rate(DECISIONS, "limit"))}, limits=[0.1]),
            line("Refused by cap", "reqps", "Which cap of the limit refused: tokens, requests, concurrent, too_large, cost_held, cost_per_day, cost_per_month, store.",
                 {"{{limit}}: {{decision}}": rate(DECISIONS, "limit, decision", 'decision!="admitted"')}, stack="normal"),
            line("Fullest holder", "percentunit", "The share in use of each limit's fullest holder; above 1 it is in debt. /api/limits names the holders.",
                 {"{{limit}}": f"max by (limit) ({of('streamgauge_limit_max_utilization_ratio')})"}, limits=[1]),
            states("Where limits are kept", "local or reject: the shared store is away. Runbook LimiterWithoutStore.",
                   f"max by (mode) ({of('streamgauge_limiter_mode')})", "{{mode}}", {0: ("", "transparent"), 1: ("in use", "blue")}),
        ),
        row(
            "Tokens of limits",
            line("Reserved and used", "short", "Tokens a second: reserved before answers, and used in all. Used above reserved: answers are longer than clients say.",
                 {"{{limit}}: reserved": rate(RESERVED, "limit"), "{{limit}}: used": rate(USED, "limit")}),
            line("Reserved now", "short", "Tokens that requests in flight have reserved. Above 0 with nothing in flight would be a leak.",
                 {"{{limit}}": f"{total(RESERVED, 'limit')} - {total(SETTLED, 'limit')}"}),
            line("Reserved in vain", "percentunit", "Share of reserved tokens that were returned. High: clients ask for far more max_tokens than they use; set output_cap.",
                 {"{{limit}}": share(rate(SETTLED, "limit", RETURNED), rate(SETTLED, "limit"))}),
        ),
        row(
            "For whom?",
            text("Users", "Where to look for single users.", "Users are never labels of metrics: they would be without bound.\n\n"
                 "- who holds how much of a limit: `GET /api/limits?user=alice` on the admin address\n"
                 "- what runs now, and the last 1,000: `GET /api/streams`\n- traces: `{ span.user.id = \"alice\" }`\n- log lines: `user.id`"),
            line("Requests by model", "reqps", "What is asked for, and how that shifts; none: requests that name no model.", {"{{model}}": rate(REQUESTS, "model")}, stack="normal"),
            line("Dollars an hour by team", "currencyUSD", "Teams come from keys and tokens; none: not known.", {"{{team}}": f"3600 * {rate(COST, 'team')}"}, stack="normal"),
        ),
        row(
            "What does it cost?",
            line("Dollars an hour by model", "currencyUSD", "By the [[price]]s in the configuration, else by the built-in catalogue.", {"{{model}}": f"3600 * {rate(COST, 'model')}"}, stack="normal"),
            line("Dollars an hour by route", "currencyUSD", "Which product spends it.", {"{{route}}": f"3600 * {rate(COST, 'route')}"}, stack="normal"),
            line("Saved by routing", "currencyUSD", "Dollars an hour, for routes chosen by what a request is: what its tokens cost less, or more, than at the first target.",
                 {f"{{{{route}}}}: {word}": f"3600 * {rate(f'streamgauge_cost_{word}_usd_total', 'route')}" for word in ("saved", "added")}),
            table("Spent in the time shown", "currencyUSD", "By team and model, dearest first.", f"sort_desc({over_range(COST, 'team, model')})"),
            line("Answers without a price", "reqps", "Their model has no [[price]], and the catalogue does not list it: what they cost is in no number here.",
                 {"{{upstream}}: {{model}}": rate(UNPRICED, "upstream, model")}),
            stat("Dollars per million output tokens", "currencyUSD", "What an output token costs in all, its prompt included. It rises with longer prompts.",
                 f"1e6 * {over_range(COST)} / {over_range(TOKENS, where=OUTPUT)}"),
        ),
        row(
            "Tokens",
            line("Tokens by type", "short", "Tokens a second. Input that grows alone: longer prompts; output alone: longer answers.", {"{{type}}": rate(TOKENS, "type")}, stack="normal"),
            line("Cached and reasoning tokens", "short", "Parts of the above, a second: of the input what the provider read from its cache or wrote to it, of the output "
                 "what was reasoning.", {part.replace("_", " "): rate(f"streamgauge_{part}_tokens_total") for part in ("cache_read", "cache_write", "reasoning")}),
            line("Cached share of the input", "percentunit", "By upstream: input tokens that were read from a cache. With session affinity it stays as high with several replicas.",
                 {"{{upstream}}": f"{rate('streamgauge_cache_read_tokens_total', 'upstream')} / {rate(TOKENS, 'upstream', INPUT)}"}),
            line("Session affinity", "reqps", "Where requests were sent first. second: the home is down, refused, or is slow; spilled: it is busy; none: nothing names their session.",
                 {"{{upstream}}: {{result}}": rate("streamgauge_affinity_total", "upstream, result")}, stack="normal"),
            line("Input tokens a request", "short", "Prompts that grow make first tokens late and dear.", quantiles(USAGE, where='gen_ai_token_type="input"')),
            line("By upstream", "short", "Input and output tokens a second.", {"{{upstream}}": rate(TOKENS, "upstream")}, stack="normal"),
            line("Who counted them", "percentunit", "reported: the upstream; counted and estimated: we did; missing: nobody, as of failed requests. Runbook UsageMissing.",
                 {"{{upstream}}: {{usage_source}}": rate("streamgauge_llm_calls_total", "upstream, usage_source")}, stack="percent"),
            line("Under the conventions' names", "short", "Tokens a second as OpenTelemetry's GenAI conventions count them.",
                 {kind.replace("_", " "): rate(f"gen_ai_client_inference_usage_{kind}_tokens_total")
                  for kind in ("input", "output")}),
            line("Cached and reasoning tokens, by the conventions", "short", "Parts of the input that were read from or written to a cache, and of the output that was reasoning, a second.",
                 {kind.replace("_", " "): rate(f"gen_ai_client_inference_usage_{kind}_tokens_total")
                  for kind in ("cache_read_input", "cache_write_input", "reasoning_output")}),
            line("A call under the conventions' names, p95", "short", "Tokens of one call. Long prompts make first tokens late, long answers make durations grow.",
                 {kind: quantile(0.95, f"gen_ai_client_inference_operation_{kind}_tokens") for kind in ("input", "output")}),
        ),
    ]


def proxy():
    overhead = "streamgauge_overhead_seconds"
    return [
        row(
            "Is it well?",
            table("Builds", "none", "Which version each instance runs.", f"max by (instance, version, commit) ({of('streamgauge_build_info')})"),
            stat("Up since", "dateTimeFromNow", "The youngest instance's start. Just now, and nobody deployed: it crashed; see its log.",
                 f"1000 * max({of('process_start_time_seconds')})"),
            stat("Last reload", "none", "1: taken over by all. 0: an instance rejected its file and serves the last good one; runbook ReloadFailed.",
                 f"min({of('streamgauge_config_last_reload_successful')})", limits=[1], falling=True),
            stat("Configuration taken over", "dateTimeFromNow", "When the youngest configuration was taken over.",
                 f"1000 * max({of('streamgauge_config_last_reload_success_timestamp_seconds')})"),
            height=5,
        ),
        row(
            "Is it slow?",
            line("Overhead", "s", "What the proxy itself takes of a request: admission and its work on the stream. Above 10 ms: large bodies, or no CPU left.",
                 quantiles(overhead), limits=[0.05]),
            line("Overhead by route, p99", "s", "A route with large JSON bodies takes longer to admit.", {"{{route}}": quantile(0.99, overhead, "route")}),
            line("Own phases, mean", "s", "receive: callers' uploads; admit: reading, routing, limits; proxy: passing on.",
                 {"{{phase}}": mean(PHASE, "phase", 'phase=~"receive|admit|proxy"')}),
        ),
        row(
            "What does it use?",
            line("CPU", "none", "Cores in use. At the number it may use: overhead grows; give it more, or more instances.", {"{{instance}}": rate("process_cpu_seconds_total", "instance")}),
            line("Memory", "bytes", "Resident memory. It follows the streams in flight; growing without them would be a leak.",
                 {"{{instance}}": total("process_resident_memory_bytes", "instance"), "{{instance}} address space": total("process_virtual_memory_bytes", "instance")}),
            line("Open files", "percentunit", "Share of the files that the process may open; each stream needs two. Near 1: raise the limit (LimitNOFILE).",
                 {"{{instance}}": f"{total('process_open_fds', 'instance')} / {total('process_max_fds', 'instance')}"}, limits=[0.8]),
            line("Threads", "none", "Constant after the start.", {"{{instance}}": total("process_threads", "instance")}),
        ),
        row(
            "How much does it serve?",
            line("In flight", "none", "Requests being served, by route. Up to server.max_streams.", {"{{route}}": total("streamgauge_requests_in_flight", "route")}, stack="normal"),
            line("Connections", "none", "Client connections that are open. At server.max_connections new ones are turned away.", {"{{instance}}": total("streamgauge_connections_open", "instance")}),
            line("Connections opened", "ops", "Many for few requests: clients or a proxy before us that keep none.", {"{{instance}}": rate("streamgauge_connections_opened_total", "instance")}),
            line("Refused by us", "reqps", "429: limits; 401 and 403: identity; 404: no route; 503: overloaded or draining.",
                 {"{{status}}": rate(REQUESTS, "status", 'outcome="rejected"')}, stack="normal"),
            line("Own failures", "reqps", "internal_error should never be there: report it with a request id from the log.",
                 {"{{route}}": share(rate(REQUESTS, "route", 'outcome="internal_error"'), rate(REQUESTS, "route"))}),
        ),
        row(
            "Is it configured and seen?",
            line("Reloads", "ops", "rejected: a bad file; the last good one stays.", {"{{instance}} {{result}}": rate("streamgauge_config_reloads_total", "instance, result")}),
            line("Fetches of token keys", "ops", "failed: the identity provider's jwks_url does not answer; the last keys stay, and new ones are not known. The log says why.",
                 {"{{instance}} {{result}}": rate("streamgauge_jwks_fetches_total", "instance, result")}),
            line("Turned away", "ops", "Wrong tokens at the admin address: the log names who sent them. Connections beyond server.max_connections, or beyond what one address may take of them: the log names addresses (connection.refused), /api/streams counts them by address. Heads that were not complete in server.header_timeout; nothing: connections on which nothing was sent.",
                 {"{{instance}} wrong admin token": rate("streamgauge_admin_login_failures_total", "instance"),
                  "{{instance}} connection, {{reason}}": rate("streamgauge_connections_refused_total", "instance, reason"),
                  "{{instance}} late head, {{received}} received": rate("streamgauge_late_heads_total", "instance, received")}),
            line("Configuration", "none", "Its number by instance; they need not be equal, but should step together.", {"{{instance}}": of("streamgauge_config_generation")}),
            line("Telemetry dropped", "ops", "Spans or log lines lost because their destination was slow or gone. Requests are not slowed by it.",
                 {"{{instance}} {{signal}}": rate("streamgauge_telemetry_dropped_total", "instance, signal")}),
            line("Failed exports of metrics", "ops", "The collector does not take metrics. Nothing is lost while a later export succeeds; /metrics is complete all the same.",
                 {"{{instance}}": rate("streamgauge_metric_exports_failed_total", "instance")}),
            line("Scrapes", "s", "How long /metrics takes; with the number of series it grows.", {"{{instance}}": of("scrape_duration_seconds"), "{{instance}} samples": of("scrape_samples_scraped")}),
        ),
    ]


BOARDS = [
    (OVERVIEW, "Streamgauge · Overview", "Is it up, is it slow, who is slow, since when, for whom, what does it cost.", overview()),
    (LATENCY, "Streamgauge · Latency and streams", "First tokens, pace, gaps, and where the time of requests goes.", latency()),
    (BACKENDS, "Streamgauge · Backends and failover", "How upstreams fare, and what is repaired behind users' backs.", backends()),
    (CANARY, "Streamgauge · Canary and shadow", "New versions beside old ones.", canary()),
    (LIMITS, "Streamgauge · Limits, users and cost", "Who uses how much, who is refused, and what it costs.", limits()),
    (PROXY, "Streamgauge · The proxy itself", "What Streamgauge takes, and whether it is well.", proxy()),
]

if __name__ == "__main__":
    checking = sys.argv[1:] == ["--check"]
    stale = write(BOARDS, pathlib.Path(__file__).resolve().parent / "grafana", checking)
    if stale:
        sys.exit(f"not what dashboards/source.py makes: {', '.join(stale)}. Run dashboards/source.py and commit; delete what it does not make.")
