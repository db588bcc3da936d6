"""What a dashboard is made of: queries, panels, rows, and their JSON as Grafana reads it (classic schema)."""

import json
import pathlib
import re
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parent.parent
SCHEMA_VERSION = 42
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

# The names of labels that variables choose from; of each the first is asked for its values.
FILTERS = {"job": ["job"], "instance": ["instance"], "route": ["route"], "model": ["model", "gen_ai_request_model"]}


def _golden():
    lines = (ROOT / "tests/golden/metrics.txt").read_text().splitlines()
    found = (re.fullmatch(r"(\w+) (\w+) \{(.*)\}", line) for line in lines)
    return {one[1]: (one[2], one[3].split(",") if one[3] else []) for one in found}


# Metric -> kind and labels. The list is a contract with a test of its own; nothing else may be asked for.
METRICS = _golden()


# Queries. Each metric is filtered by the variables for which it has a label.


def of(metric, where=""):
    """The series of a metric that the dashboard's variables choose."""
    base = re.sub(r"_(bucket|sum|count)$", "", metric)
    labels = METRICS.get(metric, METRICS.get(base, ("", [])))[1]
    chosen = [f'{label}=~"${name}"' for name, names in FILTERS.items() for label in names if label in ["job", "instance", *labels]]
    return f"{metric}{{{','.join(chosen + ([where] if where else []))}}}"


def total(metric, by="", where=""):
    """The sum of gauges, by labels."""
    return f"sum by ({by}) ({of(metric, where)})"


def rate(metric, by="", where=""):
    """How much a counter grows a second, by labels. `where` may be alternatives that no series fits two of."""
    return _summed("rate", metric, by, where, "$__rate_interval")


def over_range(metric, by="", where=""):
    """How much a counter grew in the time shown."""
    return _summed("increase", metric, by, where, "$__range")


def _summed(function, metric, by, where, window):
    alternatives = [where] if isinstance(where, str) else where
    return f"sum by ({by}) ({' or '.join(f'{function}({of(metric, one)}[{window}])' for one in alternatives)})"


def mean(histogram, by="", where=""):
    return f"{rate(histogram + '_sum', by, where)} / {rate(histogram + '_count', by, where)}"


def quantile(q, histogram, by="", where=""):
    """The value that a share `q` of all observations stay below."""
    labels = f"{by}, le" if by else "le"
    return f"histogram_quantile({q}, {rate(histogram + '_bucket', labels, where)})"


def quantiles(histogram, by="", where=""):
    """Median, 95th and 99th percentile, as queries by legend."""
    legend = "".join(f"{{{{{label.strip()}}}}} " for label in by.split(",") if label.strip())
    return {f"{legend}p{100 * q:.0f}": quantile(q, histogram, by, where) for q in (0.5, 0.95, 0.99)}


# Panels. `queries` is a PromQL text, or texts by legend. The description says what is shown, and what to do when it is bad.


def _panel(kind, title, unit, description, queries, instant=False, exemplars=False, options=None, custom=None, **defaults):
    queries = queries if isinstance(queries, dict) else {"": queries}
    targets = [
        {
            "refId": chr(ord("A") + place),
            "datasource": DATASOURCE,
            "editorMode": "code",
            "expr": expression,
            "legendFormat": legend or "__auto",
            "instant": instant,
            "range": not instant,
            "exemplar": exemplars,
            **({"format": "heatmap"} if kind == "heatmap" else {"format": "table"} if kind == "table" else {}),
        }
        for place, (legend, expression) in enumerate(queries.items())
    ]
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": DATASOURCE,
        "targets": targets,
        "fieldConfig": {"defaults": {"unit": unit, "custom": custom or {}, **defaults}, "overrides": []},
        "options": options or {},
    }


_LEGEND = {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["lastNotNull", "max"]}


def line(title, unit, description, queries, stack=None, log=False, limits=(), traces=False, **more):
    """Lines over time. `stack` is "normal" or "percent"; `limits` are drawn as thresholds; `traces` gives exemplars and
    links to the traces that were slower than a point."""
    custom = {"fillOpacity": 30 if stack else 5, "showPoints": "auto", "lineWidth": 1, "axisSoftMin": 0}
    if stack:
        custom["stacking"] = {"mode": stack, "group": "A"}
    if log:
        custom = {**custom, "scaleDistribution": {"type": "log", "log": 10}}
        del custom["axisSoftMin"]
    if limits:
        custom["thresholdsStyle"] = {"mode": "dashed"}
        more["thresholds"] = _thresholds(limits)
    if traces:
        more["links"] = [_slower_traces(traces, re.findall(r"\{\{(\w+)\}\}", next(iter(queries))))]
    options = {"legend": _LEGEND, "tooltip": {"mode": "multi", "sort": "desc"}}
    return _panel("timeseries", title, unit, description, queries, exemplars=bool(traces), options=options, custom=custom, **more)


def stat(title, unit, description, query, limits=(), falling=False, **more):
    """One number, coloured: bad above `limits`, or below them where it is `falling`."""
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "background" if limits else "value",
        "graphMode": "none",
        "textMode": "auto",
    }
    return _panel("stat", title, unit, description, query, instant=True, options=options, thresholds=_thresholds(limits, falling), **more)


def heat(title, unit, description, histogram, by="", where=""):
    """How a histogram's values are spread, over time."""
    query = f"sum by (le) (increase({of(histogram + '_bucket', where)}[$__rate_interval]))"
    options = {"calculate": False, "color": {"mode": "scheme", "scheme": "Spectral", "steps": 64, "reverse": True}, "yAxis": {"unit": unit}, "legend": {"show": True}, "tooltip": {"mode": "single", "yHistogram": True}, "cellGap": 1, "exemplars": {"color": "rgba(255,0,255,0.7)"}}
    return _panel("heatmap", title, unit, description, {"{{le}}": query}, exemplars=True, options=options)


def table(title, unit, description, query):
    """The newest values, with their labels."""
    panel = _panel("table", title, unit, description, query, instant=True, options={"showHeader": True, "cellHeight": "sm"})
    panel["transformations"] = [{"id": "organize", "options": {"excludeByName": {"Time": True, "__name__": True}}}]
    return panel


def states(title, description, query, legend, mappings):
    """States over time; `mappings` gives each value its word and colour."""
    panel = _panel("state-timeline", title, "none", description, {legend: query}, options={"showValue": "never", "mergeValues": True, "rowHeight": 0.8})
    words = {str(value): {"text": word, "color": colour, "index": value} for value, (word, colour) in mappings.items()}
    panel["fieldConfig"]["defaults"]["mappings"] = [{"type": "value", "options": words}]
    return panel


def text(title, description, markdown):
    return {"type": "text", "title": title, "description": description, "options": {"mode": "markdown", "content": markdown}}


def _thresholds(limits, falling=False):
    colours = ["red", "yellow", "green"] if falling else ["green", "yellow", "red"]
    colours = [colours[0], colours[-1]] if len(limits) == 1 else colours
    return {"mode": "absolute", "steps": [{"color": colour, "value": value} for colour, value in zip(colours, [None, *limits])]}


# Labels of lines, and the span attributes that hold the same.
_SPANS = {"route": "streamgauge.route", "upstream": "streamgauge.upstream", "endpoint": "streamgauge.endpoint", "variant": "streamgauge.variant", "gen_ai_request_model": "gen_ai.request.model"}


def _slower_traces(attribute, labels):
    """A link from a point of a line to the traces in which `attribute` was at least as long, with the line's own `labels`."""
    # Several braces: the attributes need not be on one span.
    query = "".join(
        ["{ span.%s >= ${__value.numeric} }" % attribute]
        + [' && { span.%s = "${__field.labels.%s}" }' % (_SPANS[label], label) for label in labels]
    )
    tempo = {"type": "tempo", "uid": "${traces}"}
    asked = {"refId": "A", "datasource": tempo, "queryType": "traceql", "query": query}
    pane = {"a": {"datasource": "${traces}", "queries": [asked], "range": {"from": "${__from}", "to": "${__to}"}}}
    # Grafana fills in what stands in ${}; everything else must be encoded.
    panes = urllib.parse.quote(json.dumps(pane), safe="${}_.:")
    return {"title": "Traces at least as slow as this", "url": f"/explore?schemaVersion=1&panes={panes}", "targetBlank": True}


# Dashboards.


def drill(uid, title, panel):
    """Gives a panel a link to the dashboard that tells more."""
    panel["links"] = [{"title": title, "url": f"/d/{uid}?${{__url_time_range}}&${{__all_variables}}"}]
    return panel


def row(title, *panels, height=8):
    """A row of panels of equal widths; without a title it goes on the one before."""
    return title, panels, height


def dashboard(uid, title, description, rows, others):
    """The JSON of a dashboard; `others` are (uid, title) of all dashboards."""
    panels, y = [], 0
    for name, members, height in rows:
        if name:
            panels.append({"type": "row", "title": name, "collapsed": False, "panels": [], "gridPos": {"h": 1, "w": 24, "x": 0, "y": y}})
            y += 1
        width = 24 // len(members)
        for place, member in enumerate(members):
            panels.append({**member, "gridPos": {"h": height, "w": width, "x": place * width, "y": y}})
        y += height
    for number, panel in enumerate(panels, 1):
        panel["id"] = number
    link = {"type": "link", "icon": "dashboard", "includeVars": True, "keepTime": True, "targetBlank": False, "asDropdown": False, "tags": []}
    return {
        "uid": uid,
        "id": None,
        "title": title,
        "description": description,
        "tags": ["streamgauge"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "timezone": "browser",
        "time": {"from": "now-1h", "to": "now"},
        "fiscalYearStartMonth": 0,
        "liveNow": False,
        "weekStart": "",
        "links": [{**link, "title": other, "tooltip": other, "url": f"/d/{at}"} for at, other in others if at != uid],
        "annotations": {"list": _annotations()},
        "templating": {"list": _variables(json.dumps(panels))},
        "panels": panels,
    }


def _annotations():
    def one(name, colour, expression, title, more):
        return {"name": name, "enable": True, "hide": False, "iconColor": colour, "datasource": DATASOURCE, "expr": expression, "step": "30s", "titleFormat": title, **more}

    reloaded = of("streamgauge_config_last_reload_success_timestamp_seconds") + " * 1000"
    return [
        {"builtIn": 1, "datasource": {"type": "grafana", "uid": "-- Grafana --"}, "enable": True, "hide": True, "iconColor": "rgba(0, 211, 255, 1)", "name": "Annotations & Alerts", "type": "dashboard"},
        one("Alerts", "red", 'ALERTS{alertname=~"Streamgauge.+",alertstate="firing",job=~"$job|"}', "{{alertname}}", {"tagKeys": "severity,route,upstream,limit"}),
        one("Configuration taken over", "blue", reloaded, "Configuration taken over", {"useValueForTime": "on", "tagKeys": "instance"}),
        one("Canary decisions", "purple", f"sum by (route, decision) (increase({of('streamgauge_canary_decisions_total')}[$__rate_interval])) > 0", "Canary: {{decision}}", {"tagKeys": "route"}),
    ]


def _variables(panels):
    """Those that the panels use. Values come from series that are there from the first request on."""
    sources = {
        "job": "label_values(streamgauge_build_info, job)",
        "instance": 'label_values(streamgauge_build_info{job=~"$job"}, instance)',
        "route": 'label_values(streamgauge_requests_total{job=~"$job",instance=~"$instance"}, route)',
        "model": 'label_values(streamgauge_requests_total{job=~"$job",instance=~"$instance",route=~"$route"}, model)',
    }
    sources_needed = {name: query for name, query in sources.items() if f"${name}\\\"" in panels}
    found = [{"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "regex": "", "hide": 0, "multi": False, "includeAll": False, "refresh": 1, "current": {}, "options": []}]
    if "${traces}" in panels:
        found.append({**found[0], "name": "traces", "label": "Traces", "query": "tempo"})
    for name, query in sources_needed.items():
        found.append({"name": name, "label": name.capitalize(), "type": "query", "datasource": DATASOURCE, "query": {"query": query, "refId": name, "qryType": 1}, "definition": query, "regex": "", "refresh": 2, "sort": 1, "hide": 0, "multi": True, "includeAll": True, "allValue": ".*", "current": {"text": ["All"], "value": ["$__all"]}, "options": []})
    return found


def write(boards, directory, check):
    """Writes each dashboard, or tells which files are not what they would be."""
    others = [(uid, title) for uid, title, _, _ in boards]
    stale = []
    for uid, title, description, rows in boards:
        path = directory / f"{uid}.json"
        made = json.dumps(dashboard(uid, title, description, rows, others), indent=1, ensure_ascii=False) + "\n"
        if check and (not path.exists() or path.read_text() != made):
            stale.append(path.name)
        if not check:
            path.write_text(made)
    extra = {path.name for path in directory.glob("*.json")} - {f"{uid}.json" for uid, *_ in boards}
    return stale + sorted(extra)
