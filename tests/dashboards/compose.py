"""Looks compose.yaml over where no container engine runs: by the Compose specification, and by what ours promises.

Usage: compose.py (from the project's root)
"""

import pathlib
import re
import sys

import compose_spec
import yaml

# Its image has neither a shell nor a command that could be one.
NO_HEALTHCHECK = {"collector"}
# Its own Dockerfile has one.
IMAGE_HEALTHCHECK = {"streamgauge", "streamgauge-2"}

text = pathlib.Path("compose.yaml").read_text()
compose_spec.PyCompose.from_yaml(text)
compose = yaml.safe_load(text)
problems = []
for name, service in compose["services"].items():
    if not re.search(r":v?\d+\.\d+\.\d+(-[\w.]+)?$", service["image"]):
        problems.append(f"{name}: its image is not pinned to a whole version: {service['image']}")
    for port in service.get("ports", []):
        if not str(port).startswith("127.0.0.1:"):
            problems.append(f"{name}: publishes {port} beyond loopback")
    for volume in service.get("volumes", []):
        source = volume.split(":")[0]
        there = pathlib.Path(source).exists() if source.startswith(".") else source in compose["volumes"]
        if not there:
            problems.append(f"{name}: mounts {source}, which there is not")
    if name not in NO_HEALTHCHECK | IMAGE_HEALTHCHECK and not service.get("healthcheck", {}).get("test"):
        problems.append(f"{name}: has no health check")
    for other, how in service.get("depends_on", {}).items():
        if other not in compose["services"] or (how["condition"] == "service_healthy") == (other in NO_HEALTHCHECK):
            problems.append(f"{name}: cannot wait for {other} to be {how['condition']}")
    for key, value in (service.get("environment") or {}).items():
        if re.search("TOKEN|PASSWORD|SECRET", key) and not str(value).startswith("${"):
            problems.append(f"{name}: {key} is written into the file")
# Where services say they reach each other, in the configurations that they mount.
named = {}
for path in ("streamgauge/streamgauge.toml", "collector.yaml", "prometheus.yml", "haproxy.cfg"):
    text = pathlib.Path("examples/compose", path).read_text()
    named[path] = set(re.findall(r"(?:[\"'/]|targets: \[|, |endpoint: |server \w+ )([a-z][a-z0-9-]*):\d{4}", text))
    for host in named[path] - set(compose["services"]):
        problems.append(f"examples/compose/{path}: there is no service {host}")
replicas = {name for name, service in compose["services"].items() if service["image"].startswith("streamgauge:")}
if len(replicas) < 2:
    problems.append(f"there is one replica: {replicas}")
for path in ("prometheus.yml", "haproxy.cfg"):
    if not replicas <= named[path]:
        problems.append(f"examples/compose/{path}: does not name {replicas - named[path]}")
if problems:
    sys.exit("\n".join(problems))
print(f"compose.yaml is in order: {len(compose['services'])} services")
