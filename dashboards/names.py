"""The metrics that dashboards ask for, and what is chosen of them, by short names."""

TTFT = "gen_ai_server_time_to_first_token_seconds"
TPOT = "gen_ai_server_time_per_output_token_seconds"
DURATION = "gen_ai_server_request_duration_seconds"
USAGE = "gen_ai_client_token_usage"
REQUESTS = "streamgauge_requests_total"
PHASE = "streamgauge_phase_seconds"
GAP = "streamgauge_token_frame_gap_seconds"
ATTEMPTS = "streamgauge_attempts_total"
ENDPOINT_ATTEMPTS = "streamgauge_endpoint_attempts_total"
COST = "streamgauge_cost_usd_total"
UNPRICED = "streamgauge_unpriced_llm_calls_total"
TOKENS = "streamgauge_tokens_total"
DECISIONS = "streamgauge_limit_decisions_total"
RESERVED = "streamgauge_limit_reserved_tokens_total"
SETTLED = "streamgauge_limit_settled_tokens_total"
USED = "streamgauge_limit_used_tokens_total"

# Span attributes that hold the same times: a point on a line leads to the traces that were as slow.
TTFT_SPAN, TPOT_SPAN, GAP_SPAN = (f"streamgauge.{name}" for name in ("time_to_first_token", "time_per_output_token", "max_gap"))

# What the SLO counts: what callers got wrong or broke off, and what limits refused, is not held against the service; what we
# refuse for lack of our own is.
REFUSED_IN_NEED = 'outcome="rejected",status=~"5.."'
BAD = ['outcome!~"completed|client_cancelled|rejected"', REFUSED_IN_NEED]
SERVED = ['outcome!~"client_cancelled|rejected",status!~"4[013-9].|42[0-8]"', REFUSED_IN_NEED]
NOT_OURS = 'outcome!~"rejected|client_cancelled"'
RETURNED, INPUT, OUTPUT = 'result="returned"', 'type="input"', 'type="output"'
# A phase that every request enters: its count is the number of requests.
EVERY = 'phase="admit"'
FAILED = 'result!~"ok|hedge_lost|client_gone|draining"'


def share(part, whole):
    """A part of a whole, and nothing of it where the part has no series yet."""
    return f"(({part}) or 0 * ({whole})) / ({whole})"
