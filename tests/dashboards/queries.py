"""Asks a Prometheus every query of the dashboards, as Grafana would, and of the rules. Each must find
something, and panels more than zeros.

Usage: queries.py PROMETHEUS_URL
"""

import json
import math
import pathlib
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Seconds: how often Prometheus scrapes here, what part of time is shown, and how wide a panel is in points.
SCRAPE_INTERVAL, SHOWN, POINTS = 1, 60, 1000

# Panels whose good value is 0, of which nothing else may come in a run: by title, and why.
ZERO = {
    "Last reload": "the run ends with a rejected one",
    "Own failures": "a panic of ours would be a bug",
    "Turned away": "it takes an address off loopback to guess tokens at, and more connections than this run makes; tests/proxy/shares.rs counts them",
    "Levers set": "this run pulls none; tests/proxy/levers.rs counts them",
    "Failed exports of metrics": "this run exports none; tests/proxy/otlp.rs counts them",
    "Telemetry dropped": "it takes a reader that hangs for as long as thousands of lines take",
}
# Alerts that must be pending or firing after this run; others need more requests or time than it has.
EXPECTED = {
    "StreamgaugeErrorBudgetBurn", "StreamgaugeNoBackend", "StreamgaugeEndpointDown", "StreamgaugeEndpointFailing", "StreamgaugeFailovers", "StreamgaugeTruncatedStreams",
    "StreamgaugeBufferingUpstream", "StreamgaugeCanaryRolledBack", "StreamgaugeLimiterWithoutStore", "StreamgaugeReloadFailed",
}


class Grafana:
    """Fills variables in and asks as Grafana does."""

    def __init__(self, prometheus, values):
        self.prometheus, self.values = prometheus, values
        self.end = time.time()
        interval = max(SHOWN / POINTS, SCRAPE_INTERVAL)
        rate_interval = max(interval + SCRAPE_INTERVAL, 4 * SCRAPE_INTERVAL)
        self.step = interval
        self.built_in = {"__rate_interval": f"{rate_interval:g}s", "__interval": f"{interval:g}s", "__range": f"{SHOWN}s"}

    def filled(self, query):
        known = {**self.built_in, **self.values}
        return re.sub(r"\$(\w+)", lambda found: known[found[1]], query)

    def get(self, path, **parameters):
        url = f"{self.prometheus}/api/v1/{path}?" + urllib.parse.urlencode(parameters, doseq=True)
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise SystemExit(f"{parameters}: {error.read().decode()}") from None

    def finds(self, query, instant):
        """Numbers that there are."""
        query = self.filled(query)
        if instant:
            series = self.get("query", query=query, time=self.end)["result"]
            points = [one["value"] for one in series]
        else:
            series = self.get("query_range", query=query, start=self.end - SHOWN, end=self.end, step=self.step)["result"]
            points = [point for one in series for point in one["values"]]
        return [float(value) for _, value in points if math.isfinite(float(value))]

    def exemplars(self, query):
        return self.get("query_exemplars", query=self.filled(query), start=self.end - SHOWN, end=self.end)

    def choices(self, definition):
        """What `label_values(selector, label)` gives a variable to choose from."""
        selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", definition).groups()
        return self.get(f"label/{label}/values", **{"match[]": self.filled(selector), "start": self.end - SHOWN, "end": self.end})


def escaped(values):
    """Several chosen values, as Grafana writes them into a regular expression."""
    texts = [re.sub(r"([.*+?^${}()|[\]\\/])", r"\\\\\1", value) for value in values]
    return texts[0] if len(texts) == 1 else f"({'|'.join(texts)})"


def board_queries(board):
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"], target["instant"], target["exemplar"]
    for annotation in board["annotations"]["list"]:
        if "expr" in annotation:
            yield f"annotation {annotation['name']}", annotation["expr"], False, False


def check_board(path, prometheus, pool):
    """Problems of a dashboard: with everything chosen, and with each value ticked one by one."""
    board = json.loads(path.read_text())
    everything = {variable["name"]: ".*" for variable in board["templating"]["list"] if variable["type"] == "query"}
    grafana = Grafana(prometheus, everything)
    ticked = {}
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            choices = grafana.choices(variable["definition"])
            if not choices:
                yield f"{path.name}: ${variable['name']} has nothing to choose from"
            ticked[variable["name"]] = escaped(choices or [""])
    for asked in (grafana, Grafana(prometheus, ticked)):
        def ask(one, asked=asked):
            title, query, instant, exemplars = one
            found = asked.finds(query, instant)
            if not found:
                return f"{path.name}: {title} finds nothing: {asked.filled(query)}"
            if not any(found) and title not in ZERO:
                return f"{path.name}: {title} finds nothing but zeros: {asked.filled(query)}"
            if exemplars and not asked.exemplars(query):
                return f"{path.name}: {title} has no exemplars: {asked.filled(query)}"
            return None
        yield from filter(None, pool.map(ask, board_queries(board)))


def rule_queries():
    """Each recording rule as it is; of an alert the series that it looks at, since it is silent on a good day."""
    for path in sorted((ROOT / "dashboards/prometheus").glob("*.yml")):
        for group in yaml.safe_load(path.read_text()).get("groups", []):
            for rule in group["rules"]:
                if "record" in rule:
                    yield rule["record"], rule["expr"]
                    yield rule["record"], rule["record"]
                    continue
                for selector in re.findall(r"\b(?:streamgauge[_:]\w+|gen_ai_\w+|up\b)(?::\w+)*(?:\{[^}]*\})?(?:\[\w+\])?", rule["expr"]):
                    yield rule["alert"], f"rate({selector})" if selector.endswith("]") else selector


def main(prometheus):
    problems, asked = [], 0
    with ThreadPoolExecutor(8) as pool:
        for path in sorted((ROOT / "dashboards/grafana").glob("*.json")):
            asked += len(list(board_queries(json.loads(path.read_text()))))
            problems += check_board(path, prometheus, pool)
        grafana = Grafana(prometheus, {})
        rules = sorted(set(rule_queries()))
        for (name, query), found in zip(rules, pool.map(lambda rule: grafana.finds(rule[1], True), rules)):
            if not found:
                problems.append(f"{name} finds nothing: {query}")
    groups = grafana.get("rules")["groups"]
    problems += [f"{rule['name']}: {rule['lastError']}" for group in groups for rule in group["rules"] if rule.get("lastError")]
    told = {one["metric"]["alertname"] for one in grafana.get("query", query="ALERTS", time=grafana.end)["result"]}
    problems += [f"{name} should be pending or firing" for name in sorted(EXPECTED - told)]
    if problems:
        sys.exit("\n".join(problems))
    print(f"{asked} queries of dashboards and {len(rules)} of rules find data; pending or firing: {len(told)} alerts")


if __name__ == "__main__":
    main(sys.argv[1])
