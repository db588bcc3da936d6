"""The chart and the plain manifests, without a cluster: what is rendered, what is refused, and whether the program does with it
what the manifests expect.

Usage: check.py HELM KUBECTL NODE BINARY    (from the project's root)
"""

import io
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request

import kubernetes_validate
import yaml

HELM, KUBECTL, NODE, BINARY = sys.argv[1:5]
CHART = "deploy/helm/streamgauge"
HERE = pathlib.Path("tests/kubernetes")
DASHBOARDS = sorted(pathlib.Path("dashboards/grafana").glob("*.json"))
RULES = {name: pathlib.Path(f"dashboards/prometheus/{name}.yml").read_text() for name in ("alerts", "slo")}
# The oldest that the chart takes, and the newest that there are schemas of.
VERSIONS = ["1.30", "1.37"]
OPERATORS = ("monitoring.coreos.com/", "keda.sh/")
VLLM = ["-f", "deploy/examples/vllm/values.yaml", "--set-file", "config=deploy/examples/vllm/streamgauge.toml"]
MINIMAL = ["--set-file", "config=config/minimal.toml"]
FULL = ["-f", str(HERE / "full.yaml"), "--set-file", f"config={HERE}/full.toml"]
RENDERS = {
    "minimal": MINIMAL,
    "the smallest": [*MINIMAL, "--set", "replicas=1,networkPolicy.clients=null,networkPolicy.monitoring=null"],
    "without a policy": [*MINIMAL, "--set", "networkPolicy.enabled=false"],
    "an adapter": [*MINIMAL, "--set", "autoscaling.engine=hpa"],
    "vllm": VLLM,
    "full": FULL,
}

# A configuration and values, and what the sentence must have.
UPSTREAM = '[[upstream]]\nurl = "http://app:8000"\n'
LIMIT = '[[limit]]\nname = "l"\nconcurrent = 3\n'
CANARY = (
    '[[route]]\nname = "r"\ntargets = [{ upstream = "app" }, { name = "n", upstream = "app" }]\n'
    'canary = { target = "n", steps = [1, 100] }\n'
)
REDIS = '[limits]\nredis = "redis://redis:6379"\n'
FLEET = '[fleet]\nname = "f"\n'
REFUSALS = [
    ("", [], "--set-file config=streamgauge.toml"),
    ("a = [", [], "run `streamgauge check`"),
    (UPSTREAM + LIMIT, [], "limits or budgets ([[limit]]), up to 2 replicas, and no Redis"),
    (UPSTREAM + LIMIT, [], "Add `redis = \"redis://HOST:6379\"` under [limits]"),
    (UPSTREAM + CANARY, [], "a canary, up to 2 replicas, and no Redis"),
    (UPSTREAM + LIMIT + CANARY, [], "limits or budgets ([[limit]]) and a canary"),
    (UPSTREAM + CANARY + REDIS, [], "a canary (route r), up to 2 replicas, and no name of a fleet"),
    (UPSTREAM + CANARY + REDIS, [], 'Add `name = "streamgauge"` under [fleet] of config'),
    (UPSTREAM + LIMIT, ["--set", "replicas=1,autoscaling.engine=hpa"], "up to 10 replicas, and no Redis"),
    (UPSTREAM + '[server]\ndrain_timeout = "ten minutes"\n', [], "write it as \"10m\""),
    (UPSTREAM + '[server]\nstate_dir = "/var/lib/x"\n', [], "server.state_dir is set: take it out"),
    (UPSTREAM, ["--set", "autoscaling.engine=keda"], "set autoscaling.prometheus"),
    (UPSTREAM, ["--set", "autoscaling.engine=hpa,autoscaling.maxReplicas=1"], "less than minReplicas"),
    (UPSTREAM, ["--set", "autoscaling.scaleDownWindowSeconds=599"], "scaleDownWindowSeconds"),
    (UPSTREAM, ["--set", "replicaCount=3"], "replicaCount"),
    (UPSTREAM, ["--kube-version", "1.29.0"], "kubeVersion"),
]
# What must not be refused: there is nobody to share with, or something to share by.
ACCEPTED = [
    (UPSTREAM + LIMIT + CANARY, ["--set", "replicas=1"]),
    (UPSTREAM + CANARY + REDIS, ["--set", "replicas=1"]),
    (UPSTREAM + LIMIT + REDIS, []),
    (UPSTREAM + LIMIT + CANARY + REDIS + FLEET, []),
    (UPSTREAM + '[limits]\non_failure = "local"\n', []),
]
# drain_timeout, and the grace period that follows.
GRACES = [("", 610), ("30s", 40), ("2h", 7210), ("1500ms", 12), ("1d", 86410), ("0s", 10)]


def run(*command, **more):
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **more)


def template(config, more):
    """The render of a configuration that is given as text."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(config)
        file.flush()
        return run(HELM, "template", "streamgauge", CHART, "--set-file", f"config={file.name}", *more)


def objects(text):
    return [found for found in yaml.safe_load_all(text) if found]


def rendered(arguments):
    done = run(HELM, "template", "streamgauge", CHART, "-n", "llm", *arguments)
    assert done.returncode == 0, done.stderr
    return objects(done.stdout)


def pick(found, kind, name=None):
    picked = [one for one in found if one["kind"] == kind and name in (None, one["metadata"]["name"])]
    assert len(picked) == 1, f"{len(picked)} of {kind} {name or ''}"
    return picked[0]


def of_operators(found):
    return [one for one in found if one["apiVersion"].startswith(OPERATORS)]


def ask_operators(found):
    """What their schemas complain of; empty when nothing. The program that knows them takes long to start."""
    done = run(NODE, str(HERE / "node/validate.mjs"), input=json.dumps(found))
    assert (done.returncode == 0) == (not done.stderr), done
    return done.stderr


def validate(what, found):
    """By Kubernetes' own schemas, unknown keys denied."""
    assert found, what
    seen = set()
    for one in found:
        place = (one["kind"], one["metadata"]["name"])
        assert place not in seen, f"{what}: {place} twice"
        seen.add(place)
        size = len(json.dumps(one))
        assert size < 900_000, f"{what}: {place} has {size} bytes, and etcd takes a mebibyte"
        if one["apiVersion"].startswith(OPERATORS):
            continue
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(one, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                sys.exit(f"{what}: {place} is none of Kubernetes {version}: {error}")


def validators_see_mistakes():
    """A validator that takes everything would make all of this worthless."""
    found = rendered(FULL)
    wrong = pick(found, "Deployment")
    wrong["spec"]["template"]["spec"]["containers"][0]["lifecycle"]["preStop"]["sleep"]["second"] = 5
    try:
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)
    except kubernetes_validate.ValidationError:
        pass
    else:
        sys.exit("an unknown key of a Deployment was not seen")
    mistakes = {"PodMonitor": ("podMetricsEndpoints", "all"), "ScaledObject": ("triggers", [{"typ": "x"}])}
    for kind, (path, value) in mistakes.items():
        pick(found, kind)["spec"][path] = value
    said = ask_operators(of_operators(found)).splitlines()
    assert [line.split()[0] for line in said] == list(mistakes), said


def chart_takes_what_the_project_has():
    """The chart's files are links, so nothing in it can go stale; a package has their contents."""
    for path in pathlib.Path(CHART, "files").iterdir():
        assert path.is_symlink() and path.exists(), f"{path} is a copy, or dangles"
    with tempfile.TemporaryDirectory() as to:
        done = run(HELM, "package", CHART, "-d", to)
        assert done.returncode == 0, done.stderr
        package = next(pathlib.Path(to).glob("*.tgz")).read_bytes()
    files = tarfile.open(fileobj=io.BytesIO(package))
    inside = {name for name in files.getnames() if "/files/" in name}
    expected = {f"streamgauge/files/dashboards/{path.name}": path.read_text() for path in DASHBOARDS}
    expected |= {f"streamgauge/files/{name}.yml": text for name, text in RULES.items()}
    assert inside == set(expected), inside ^ set(expected)
    for name, text in expected.items():
        assert files.extractfile(name).read().decode() == text, name
    chart = yaml.safe_load(pathlib.Path(CHART, "Chart.yaml").read_text())
    version = re.search(r'^version = "(.*)"$', pathlib.Path("Cargo.toml").read_text(), re.M)[1]
    assert chart["appVersion"] == version, f"the chart is of {chart['appVersion']}, the program of {version}"


def renders():
    all_of_them = []
    for name, arguments in RENDERS.items():
        found = rendered(arguments)
        validate(name, found)
        all_of_them += found
        done = run(HELM, "lint", "--strict", CHART, *arguments)
        assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"
    done = run(KUBECTL, "kustomize", "deploy/examples/vllm")
    assert done.returncode == 0, done.stderr
    plain = objects(done.stdout)
    validate("kustomize", plain)
    all_of_them += plain
    complaints = ask_operators(of_operators(all_of_them))
    assert not complaints, complaints
    same_pods(plain)
    print(f"{len(all_of_them)} objects are valid for Kubernetes {' and '.join(VERSIONS)} and for the operators")


def same_pods(plain):
    """Both ways of the vLLM example give the same pods, rules and dashboards."""
    chart = rendered([*VLLM, "--set", "monitoring.operator=true,monitoring.dashboards=true,autoscaling.engine=hpa"])
    pods = pick(plain, "Deployment", "streamgauge")["spec"]
    assert pods == pick(chart, "Deployment")["spec"]
    for kind in ("HorizontalPodAutoscaler", "PodDisruptionBudget", "PodMonitor"):
        assert pick(plain, kind)["spec"] == pick(chart, kind)["spec"], kind
    for name in RULES:
        name = f"streamgauge-{name}"
        assert pick(plain, "PrometheusRule", name)["spec"] == pick(chart, "PrometheusRule", name)["spec"]
    for path in DASHBOARDS:
        one, other = pick(plain, "ConfigMap", path.stem), pick(chart, "ConfigMap", path.stem)
        assert one["data"] == other["data"] and one["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert pick(plain, "ConfigMap", "streamgauge")["data"] == pick(chart, "ConfigMap", "streamgauge")["data"]


def pods_are_as_promised():
    found = rendered(FULL)
    deployment = pick(found, "Deployment")["spec"]
    assert "replicas" not in deployment, "the autoscaler decides"
    assert deployment["strategy"] == {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    pod = deployment["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False and pod["enableServiceLinks"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] == 65532
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert all(spread["matchLabelKeys"] == ["pod-template-hash"] for spread in pod["topologySpreadConstraints"])
    assert len(pod["topologySpreadConstraints"]) == 2 and len(pod["containers"]) == 1
    container = pod["containers"][0]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }
    assert container["lifecycle"]["preStop"] == {"sleep": {"seconds": 5}}
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert set(mounts) == {"/etc/streamgauge", "/etc/secrets/openai", "/var/lib/streamgauge"}
    assert not any("subPath" in mount for mount in mounts.values())
    written = [path for path, mount in mounts.items() if not mount.get("readOnly")]
    assert written == ["/var/lib/streamgauge"]
    assert not any("value" in one and re.search("TOKEN|PASSWORD|KEY", one["name"]) for one in container["env"])
    for one in found:
        assert one["kind"] != "Secret", "secrets are the cluster's, never the chart's"
        labels = one["metadata"]["labels"]
        assert (labels.get("release") == "kube-prometheus-stack") == (one["kind"] in ("PodMonitor", "PrometheusRule"))
    selector = deployment["selector"]["matchLabels"]
    assert selector.items() <= deployment["template"]["metadata"]["labels"].items()
    assert pick(found, "Service")["spec"]["selector"] == selector
    for kind, key in (("PodMonitor", "selector"), ("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
        assert pick(found, kind)["spec"][key]["matchLabels"] == selector, kind
    assert pick(found, "PodDisruptionBudget")["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    closed = pick(rendered(RENDERS["the smallest"]), "NetworkPolicy")["spec"]
    assert closed["ingress"] == [] and closed["policyTypes"] == ["Ingress", "Egress"], "nobody may come in"
    assert not any(one["kind"] == "NetworkPolicy" for one in rendered(RENDERS["without a policy"]))


def scales_slowly():
    """The metric is one that the program has, and replicas go no faster than they drain."""
    metrics = (pathlib.Path("tests/golden/metrics.txt")).read_text()
    scaled = pick(rendered(FULL), "ScaledObject")["spec"]
    query = scaled["triggers"][0]["metadata"]["query"]
    monitor = pick(rendered(FULL), "PodMonitor")["metadata"]["name"]
    assert f'job="llm/{monitor}"' in query, "the job of a PodMonitor is its namespace and name"
    adapter = yaml.safe_load(pathlib.Path("deploy/prometheus-adapter.yaml").read_text())["rules"]["custom"][0]["seriesQuery"]
    pods = pick(rendered(RENDERS["an adapter"]), "HorizontalPodAutoscaler")["spec"]
    for name in (query, adapter, pods["metrics"][0]["pods"]["metric"]["name"]):
        assert "streamgauge_requests_in_flight" in name and "\nstreamgauge_requests_in_flight gauge" in metrics, name
    config = '[[upstream]]\nurl = "http://app"\n[server]\ndrain_timeout = "%s"\n'
    for drain, seconds in (("30s", 600), ("20m", 1200), ("9h", 3600)):
        done = template(config % drain, ["--set", "autoscaling.engine=hpa"])
        down = pick(objects(done.stdout), "HorizontalPodAutoscaler")["spec"]["behavior"]["scaleDown"]
        assert down["stabilizationWindowSeconds"] == seconds, (drain, down)


def grace_follows_the_drain():
    for drain, seconds in GRACES:
        line = f'[server]\ndrain_timeout = "{drain}"\n' if drain else ""
        done = template(UPSTREAM + line, [])
        assert done.returncode == 0, done.stderr
        pod = pick(objects(done.stdout), "Deployment")["spec"]["template"]["spec"]
        assert pod["terminationGracePeriodSeconds"] == seconds, (drain, pod["terminationGracePeriodSeconds"])


def what_cannot_work_is_refused():
    for config, more, sentence in REFUSALS:
        done = template(config, more)
        # It breaks lines of the schema's messages, and escapes quotes of ours.
        said = done.stderr.replace('\\"', '"')
        assert done.returncode != 0 and sentence in said, f"{sentence!r} is not said of {config!r} {more}: {said}"
        assert not done.stdout.strip(), "nothing of it is rendered"
    for config, more in ACCEPTED:
        done = template(config, more)
        assert done.returncode == 0, done.stderr
    print(f"{len(REFUSALS)} renders are refused with a sentence that says what to do")


def rules_are_the_projects():
    """As an operator would hand them to Prometheus."""
    found = rendered(FULL)
    for name, text in RULES.items():
        spec = pick(found, "PrometheusRule", f"streamgauge-{name}")["spec"]
        assert spec == yaml.safe_load(text)
        with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
            yaml.safe_dump(spec, file)
            file.flush()
            done = run("promtool", "check", "rules", "--lint-fatal", file.name)
            assert done.returncode == 0, done.stderr
    for path in DASHBOARDS:
        board = pick(found, "ConfigMap", path.stem)
        assert board["data"] == {path.name: path.read_text()} and board["metadata"]["labels"]["grafana_dashboard"] == "1"
    print(f"{len(RULES)} files of rules and {len(DASHBOARDS)} dashboards are rendered as they are")


class Pod:
    """The program, with the files, the environment and the arguments of the rendered pod; addresses are loopback's."""

    def __init__(self, root, found):
        self.container = pick(found, "Deployment")["spec"]["template"]["spec"]["containers"][0]
        self.root = root
        self.config = root / "streamgauge"
        self.mount(pick(found, "ConfigMap", "streamgauge")["data"], "first")
        secret = root / "secrets/openai"
        secret.mkdir(parents=True)
        (secret / "key").write_text("sk-test")
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(root)}
        for one in self.container["env"]:
            self.environment[one["name"]] = one.get("value", "a-secret-of-the-cluster")
        self.environment["XDG_STATE_HOME"] = str(root / "state")

    def mount(self, data, version):
        """As the kubelet does it: the files in a directory of their own, behind a link that is replaced at once."""
        (self.config / version).mkdir(parents=True)
        for name, text in data.items():
            (self.config / version / name).write_text(text)
            if not (self.config / name).is_symlink():
                (self.config / name).symlink_to(f"..data/{name}")
        (self.config / "..data_new").symlink_to(version)
        (self.config / "..data_new").replace(self.config / "..data")

    def arguments(self):
        return [one.replace("/etc/streamgauge", str(self.config)) for one in self.container["args"]]

    def start(self):
        listen = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
        log = open(self.root / "log", "w")
        self.process = subprocess.Popen(
            [os.path.abspath(BINARY), *self.arguments(), *listen], env=self.environment, stdout=subprocess.PIPE, stderr=log, text=True, cwd=self.root
        )
        line = self.process.stdout.readline()
        assert line, (self.root / "log").read_text()
        self.admin = json.loads(line)["admin_url"]

    def get(self, path, token=None):
        headers = {"authorization": f"Bearer {token}"} if token else {}
        try:
            with urllib.request.urlopen(urllib.request.Request(self.admin + path, headers=headers), timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def until(self, what, condition):
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, f"in vain waited for {what}: {(self.root / 'log').read_text()}"
            time.sleep(0.02)


def program_does_what_the_manifests_expect():
    found = rendered(FULL)
    monitor = pick(found, "PodMonitor")["spec"]["podMetricsEndpoints"][0]
    with tempfile.TemporaryDirectory() as root:
        pod = Pod(pathlib.Path(root), found)
        done = run(BINARY, "check", "--config", pod.arguments()[-1], env=pod.environment)
        assert done.returncode == 0, done.stdout + done.stderr
        pod.start()
        try:
            # Its upstreams and its Redis are refused connections.
            pod.until("the upstreams to be down", lambda: pod.get("/readyz")[0] == 503)
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                asked = pod.container[probe]["httpGet"]
                assert asked["port"] == "admin" and pod.get(asked["path"])[0] == 200, probe
            assert monitor["port"] == "admin"
            status, metrics = pod.get(monitor["path"])
            assert status == 200 and "streamgauge_build_info" in metrics
            changed = pick(found, "ConfigMap", "streamgauge")["data"]["streamgauge.toml"].replace("60_000", "70_000")
            pod.mount({"streamgauge.toml": changed}, "second")
            token = pod.environment["STREAMGAUGE_ADMIN_TOKEN"]
            pod.until("the changed ConfigMap", lambda: json.loads(pod.get("/api/config", token)[1])["generation"] == 2)
            assert (pod.root / "state/streamgauge").stat().st_mode & 0o777 == 0o700
            pod.process.send_signal(signal.SIGTERM)
            assert pod.process.wait(20) == 0, (pod.root / "log").read_text()
        finally:
            pod.process.kill()
            pod.process.wait()
    for config in ("deploy/examples/vllm/streamgauge.toml",):
        assert run(BINARY, "check", "--config", config).returncode == 0, config
    print("the program runs as the pod would: configuration, probes, metrics, a changed ConfigMap, the end")


chart_takes_what_the_project_has()
validators_see_mistakes()
renders()
pods_are_as_promised()
grace_follows_the_drain()
scales_slowly()
what_cannot_work_is_refused()
rules_are_the_projects()
program_does_what_the_manifests_expect()
