"""Reads each dashboard with Grafana's own types, and complains of every key that they do not know or take otherwise.

Usage: schema.py (from the project's root)
"""

import json
import pathlib
import re
import sys

from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

# What Prometheus's plugin reads of annotations and variables, and Grafana's types leave to it; and a null.
PLUGINS_OWN = re.compile(r"\.annotations\.list\[\]\.(step|titleFormat|tagKeys|useValueForTime)|\.templating\.list\[\]\.definition|\.id")


def changed(ours, theirs, path=""):
    """The paths at which something of ours is gone or different."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in ours:
            yield from changed(ours[key], theirs[key], f"{path}.{key}") if key in theirs else [f"{path}.{key}"]
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for one, other in zip(ours, theirs):
            yield from changed(one, other, f"{path}[]")
    elif ours != theirs:
        yield path


plugins.register_default_plugins()
problems, read = set(), 0
for file in sorted(pathlib.Path("dashboards/grafana").glob("*.json")):
    ours = json.loads(file.read_text())
    theirs = json.loads(json.dumps(Dashboard.from_json(ours), cls=JSONEncoder))
    problems |= {f"{file.name}: Grafana's types do not take {path}" for path in changed(ours, theirs) if not PLUGINS_OWN.fullmatch(path)}
    read += 1
if problems:
    sys.exit("\n".join(sorted(problems)))
print(f"Grafana's own types take {read} dashboards as they are")
