"""Looks the dashboards and rules over: what Grafana and Prometheus would take without a word, and an operator would curse.

Usage: lint.py    (with PyYAML; from anywhere)
"""

import json
import pathlib
import re
import sys
import urllib.parse

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCHEMA_VERSION = 42
# Not ours, and there for every target that Prometheus scrapes, or made by Prometheus.
FOREIGN = {
    "up": [], "scrape_duration_seconds": [], "scrape_samples_scraped": [],
    "ALERTS": ["alertname", "alertstate", "severity", "route", "upstream", "limit"],
}
PROCESS = ("cpu_seconds_total", "resident_memory_bytes", "virtual_memory_bytes", "threads", "open_fds", "max_fds", "start_time_seconds")
# Labels that every scraped series has.
TARGET = ["job", "instance"]
# Labels that a variable chooses values of.
CHOSEN = {"job": "job", "instance": "instance", "route": "route", "model": "model", "gen_ai_request_model": "model"}

problems = []


def complain(where, what):
    problems.append(f"{where}: {what}")


def golden():
    found = dict(FOREIGN)
    found.update({f"process_{name}": [] for name in PROCESS})
    for line in (ROOT / "tests/golden/metrics.txt").read_text().splitlines():
        name, kind, labels = re.fullmatch(r"(\w+) (\w+) \{(.*)\}", line).groups()
        labels = labels.split(",") if labels else []
        endings = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
        found.update({name + ending: labels + (["le"] if ending == "_bucket" else []) for ending in endings})
    return found


# What may be filtered: a name, then matchers in braces.
SELECTOR = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\{([^}]*)\}")
MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"')
GROUPING = re.compile(r"\b(?:by|on|ignoring|without)\s*\(([^)]*)\)")


def check_query(where, query, metrics, recorded):
    """Only names and labels that there are."""
    used = set()
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', '""', query)
    bare = re.sub(r"\{[^}]*\}", "{}", GROUPING.sub("", bare))
    for name in set(re.findall(r"[a-zA-Z_:][a-zA-Z0-9_:]*(?=\s*[\[{])|\b(?:streamgauge|gen_ai|process|scrape)[a-zA-Z0-9_:]+", bare)):
        if name in recorded:
            continue
        if name not in metrics:
            complain(where, f"there is no metric {name}")
        used.add(name)
    for name, matchers in SELECTOR.findall(query):
        for label in MATCHER.findall(matchers):
            if label not in metrics.get(name, recorded.get(name, [label])) + TARGET:
                complain(where, f"{name} has no label {label}")
    labels = {label for name in used | {name for name in recorded if name in query} for label in metrics.get(name, recorded.get(name, []))}
    made = set(re.findall(r'label_replace\([^"]*"(\w+)"', query))
    for grouped in GROUPING.findall(query):
        for label in filter(None, (label.strip() for label in grouped.split(","))):
            if label not in labels | made | set(TARGET):
                complain(where, f"groups by {label}, which none of its metrics has")
    return used


def check_asked(where, target, metrics):
    """A query of a panel or an annotation: of the source, the time and the series that are chosen at the top."""
    query = target["expr"]
    if target["datasource"]["uid"] != "${datasource}":
        complain(where, f"asks {target['datasource']}, not ${{datasource}}")
    if re.search(r"\[\d", re.sub(r'"[^"]*"', '""', query)):
        complain(where, f"a fixed range: {query}")
    for name, matchers in SELECTOR.findall(query):
        # Of alerts only those of the job are told apart: some have neither an instance nor a route.
        for label in [] if name == "ALERTS" else TARGET + metrics.get(name, []):
            if label in CHOSEN and f'{label}=~"${CHOSEN[label]}"' not in matchers:
                complain(where, f"{name} is not filtered by ${CHOSEN[label]}")
    return check_query(where, query, metrics, {})


def check_panel(where, panel, ids, metrics):
    if panel["id"] in ids:
        complain(where, f"id {panel['id']} is taken")
    ids.add(panel["id"])
    if not panel.get("title"):
        complain(where, "no title")
    if panel["type"] == "row":
        return set()
    if len(panel.get("description", "")) < 20:
        complain(where, "says too little: what it means, and what to do when it is bad")
    if panel["type"] == "text":
        return set()
    if not panel["fieldConfig"]["defaults"].get("unit"):
        complain(where, "no unit")
    used = set()
    if panel["datasource"]["uid"] != "${datasource}":
        complain(where, f"asks {panel['datasource']}, not ${{datasource}}")
    for target in panel["targets"]:
        used |= check_asked(where, target, metrics)
    if panel["type"] == "timeseries" and panel["fieldConfig"]["defaults"].get("links") and not panel["targets"][0]["exemplar"]:
        complain(where, "links to traces, and shows no exemplars")
    for link in panel["fieldConfig"]["defaults"].get("links", []):
        check_trace_link(where, link["url"], panel["targets"][-1]["expr"])
    latency = re.search(r"time_to_first_token|time_per_output_token|token_gap", json.dumps(panel["targets"]))
    if latency and panel["type"] == "timeseries" and not panel["targets"][0]["exemplar"]:
        complain(where, "a latency without exemplars")
    return used


def check_trace_link(where, url, query):
    """Decodes as Grafana does, and asks for labels that the panel's lines have."""
    pane = json.loads(urllib.parse.unquote(url.partition("&panes=")[2]))["a"]
    asked = pane["queries"][0]
    if asked["queryType"] != "traceql" or not re.match(r"\{ span\.[\w.]+ >= \$\{__value\.numeric\} \}", asked["query"]):
        complain(where, f"asks for no slower traces: {asked['query']}")
    for label in re.findall(r"__field\.labels\.(\w+)", asked["query"]):
        if label not in " ".join(GROUPING.findall(query)):
            complain(where, f"links to traces of a {label}, which its lines have not")


def check_layout(where, panels):
    taken = {}
    for panel in panels:
        at = panel["gridPos"]
        if at["x"] + at["w"] > 24:
            complain(where, f"{panel['title']} sticks out")
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                if (x, y) in taken:
                    complain(where, f"{panel['title']} lies over {taken[x, y]}")
                    return
                taken[x, y] = panel["title"]


def check_board(path, uids, metrics):
    board = json.loads(path.read_text())
    where = path.name
    if board["id"] is not None or board["schemaVersion"] != SCHEMA_VERSION or board["uid"] != path.stem:
        complain(where, f"id must be null, schemaVersion {SCHEMA_VERSION}, uid the file's name")
    ids, used = set(), set()
    for panel in board["panels"]:
        used |= check_panel(f"{where}: {panel.get('title')}", panel, ids, metrics)
    check_layout(where, board["panels"])
    whole = json.dumps(board)
    declared = {variable["name"] for variable in board["templating"]["list"]}
    asked = set(re.findall(r"\$\{?(datasource|traces|job|instance|route|model)\b", json.dumps([board["panels"], board["annotations"]])))
    if declared != asked:
        complain(where, f"declares the variables {sorted(declared)}, uses {sorted(asked)}")
    for uid in re.findall(r'"/d/([\w-]+)', whole):
        if uid not in uids:
            complain(where, f"links to {uid}, which there is not")
    linked = {link["url"].removeprefix("/d/") for link in board["links"]}
    if linked != uids - {board["uid"]}:
        complain(where, f"must link to all other dashboards, not to {sorted(linked)}")
    if not all(link["includeVars"] and link["keepTime"] for link in board["links"]):
        complain(where, "its links lose variables or time")
    for annotation in board["annotations"]["list"]:
        if "expr" in annotation:
            check_asked(f"{where}: annotation {annotation['name']}", annotation, metrics)
    return used


def check_rules(uids, metrics):
    recorded, used = {}, set()
    files = sorted((ROOT / "dashboards/prometheus").glob("*.yml"))
    rules = [rule for path in files for group in yaml.safe_load(path.read_text()).get("groups", []) for rule in group["rules"]]
    for rule in rules:
        if "record" in rule:
            used |= check_query(rule["record"], rule["expr"], metrics, {})
            recorded[rule["record"]] = [label.strip() for label in GROUPING.search(rule["expr"])[1].split(",")]
    tests = "".join(path.read_text() for path in (ROOT / "dashboards/prometheus/tests").glob("*.yml"))
    names = {rule["alert"] for rule in rules if "alert" in rule}
    for rule in rules:
        if "alert" not in rule:
            continue
        name, notes = rule["alert"], rule["annotations"]
        used |= check_query(name, rule["expr"], metrics, recorded)
        if not {"summary", "description", "runbook_url", "dashboard_url"} <= notes.keys() or rule["labels"].get("severity") not in ("page", "ticket"):
            complain(name, "needs summary, description, runbook_url, dashboard_url and the severity page or ticket")
        if not notes["runbook_url"].endswith(f"docs/runbooks/{name}.md") or not (ROOT / f"docs/runbooks/{name}.md").exists():
            complain(name, f"has no runbook docs/runbooks/{name}.md")
        if re.search(r"/d/([\w-]+)", notes["dashboard_url"])[1] not in uids:
            complain(name, "links to no dashboard of ours")
        if "$value" not in notes["description"] or "$labels" not in notes["description"]:
            complain(name, "must name whom it is about, and the value")
        if f'"{name}"' not in tests and f"alertname: {name}\n" not in tests:
            complain(name, "has no unit test")
    for page in (ROOT / "docs/runbooks").glob("Streamgauge*.md"):
        if page.stem not in names:
            complain(page.name, "is the runbook of no alert")
    return used


def main():
    metrics = golden()
    boards = sorted((ROOT / "dashboards/grafana").glob("*.json"))
    uids = {path.stem for path in boards}
    used = set().union(*(check_board(path, uids, metrics) for path in boards))
    used_in_rules = check_rules(uids, metrics)
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in used}
    for name in sorted({re.sub(r"_(bucket|sum|count)$", "", name) for name in metrics} - shown):
        complain("dashboards", f"nobody shows {name}")
    if problems:
        sys.exit("\n".join(problems))
    print(f"{len(boards)} dashboards and {len(used_in_rules)} metrics of rules are in order; {len(shown)} metrics are shown")


main()
