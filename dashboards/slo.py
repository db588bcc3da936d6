#!/usr/bin/env python3
"""What is promised to users, and the Prometheus rules that tell when the promise is being broken. Change the objectives
here, then write the rules anew (and the dashboards, which show them):

    dashboards/slo.py            writes dashboards/prometheus/slo.yml
    dashboards/slo.py --check    fails if that file is not what this would write
"""

import pathlib
import sys

from names import BAD, REQUESTS, SERVED, TTFT

# Share of requests that must end well, by route.
ANSWERED = 0.995
# Share of first tokens that must come within so many seconds; the seconds must be a bucket of the histogram.
IN_TIME, FIRST_TOKEN = 0.95, "2.5"
# Below so many bad requests in the longer window nothing is told, so that little traffic wakes nobody.
BAD_MIN = 10

# Budget burnt so many times as fast as may be, over a long window and a short one, for so long: how urgent that is.
BURNS = [
    (14.4, "1h", "5m", "2m", "page"),
    (6, "6h", "30m", "5m", "page"),
    (3, "1d", "2h", "15m", "ticket"),
    (1, "3d", "6h", "30m", "ticket"),
]
SECONDS = {"5m": 300, "30m": 1800, "1h": 3600, "2h": 7200, "6h": 21_600, "1d": 86_400, "3d": 259_200}
SHORT = ("5m", "30m", "1h", "2h")

HEADER = """\
# Made by dashboards/slo.py, where the objectives stand. Callers' own mistakes (4xx), what they broke off, and what limits
# refused burn nothing. 429 of an upstream and 5xx of our own do.
"""

# What is counted, by the names of the rules that count it.
COUNTS = {
    "requests": (REQUESTS, SERVED),
    "requests_bad": (REQUESTS, BAD),
    "first_tokens": (f"{TTFT}_count", [""]),
    "first_tokens_in_time": (f"{TTFT}_bucket", [f'le="{FIRST_TOKEN}"']),
}


def recorded(window):
    """The rules for one window: how many requests a second there were by route, and how many of them were bad."""
    for name, (metric, alternatives) in COUNTS.items():
        expression = " or ".join(f"rate({metric}{f'{{{where}}}' if where else ''}[{window}])" for where in alternatives)
        yield f"      - record: streamgauge:slo_{name}:rate{window}\n        expr: sum by (job, route) ({expression})\n"


def bad(kind, window):
    if kind == "requests":
        return f"streamgauge:slo_requests_bad:rate{window}"
    return f"(streamgauge:slo_first_tokens:rate{window} - streamgauge:slo_first_tokens_in_time:rate{window})"


def alert(name, kind, objective, burn, uid, summary, description):
    factor, long, short, lasting, severity = burn
    budget = f"{factor} * {1 - objective:.4g}"
    ratio = lambda window: f"{bad(kind, window)} / streamgauge:slo_{kind}:rate{window} > {budget}"
    return f"""\
      - alert: {name}
        expr: |
          {ratio(long)}
            and {ratio(short)}
            and {bad(kind, long)} * {SECONDS[long]} >= {BAD_MIN}
        for: {lasting}
        labels: {{ severity: {severity}, burn: "{factor}" }}
        annotations:
          summary: {summary}
          description: >-
            {description} over {long}, {factor} times what the objective of {objective * 100:g} % allows.
          runbook_url: '{{{{ with $externalLabels.source_url }}}}{{{{ . }}}}/{{{{ end }}}}docs/runbooks/{name}.md'
          dashboard_url: '{{{{ with $externalLabels.grafana_url }}}}{{{{ . }}}}{{{{ end }}}}/d/{uid}?var-job={{{{ $labels.job }}}}&var-route={{{{ $labels.route }}}}'
"""


def made():
    yield HEADER + "groups:\n"
    for group, windows, interval in [
        ("streamgauge-slo", SHORT, "30s"),
        ("streamgauge-slo-long", [window for window in SECONDS if window not in SHORT], "2m"),
    ]:
        yield f"  - name: {group}\n    interval: {interval}\n    rules:\n"
        for window in windows:
            yield from recorded(window)
    yield "  - name: streamgauge-slo-alerts\n    rules:\n"
    for burn in BURNS:
        yield alert(
            "StreamgaugeErrorBudgetBurn", "requests", ANSWERED, burn, "streamgauge-overview",
            "'Requests of route {{ $labels.route }} fail'",
            "{{ $value | humanizePercentage }} of the requests of route {{ $labels.route }} ended badly",
        )
    for burn in BURNS:
        yield alert(
            "StreamgaugeFirstTokenBudgetBurn", "first_tokens", IN_TIME, burn, "streamgauge-latency",
            "'First tokens of route {{ $labels.route }} are late'",
            f"{{{{ $value | humanizePercentage }}}} of the first tokens of route {{{{ $labels.route }}}} took more than {FIRST_TOKEN} s",
        )


if __name__ == "__main__":
    path = pathlib.Path(__file__).resolve().parent / "prometheus/slo.yml"
    text = "".join(made())
    if sys.argv[1:] != ["--check"]:
        path.write_text(text)
    elif not path.exists() or path.read_text() != text:
        sys.exit("dashboards/prometheus/slo.yml is not what dashboards/slo.py makes: run it and commit")
