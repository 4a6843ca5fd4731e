"""Shared parts of the charts' checks: Helm's own engine, the rendered manifests, and the real binary."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import traceback
import urllib.error
import urllib.request
from pathlib import Path

import helm_python as helm
import yaml
from helm_python import _native

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts/vecho"
EXAMPLE = ROOT / "charts/example-app"
BINARY = os.environ["VECHO"]
SERVING = re.compile(r"public=([\d.:]+) admin=([\d.:]+)")
KEY = {"upstream": {"api_key_file": {"name": "openai", "key": "api-key"}}}

TARGETS = [
    {"name": "openai", "url": "https://api.openai.com/v1", "api_key_file": {"name": "openai", "key": "api-key"}},
    {
        "name": "azure-east.2",
        "url": "https://name.openai.azure.com:8443/openai/v1",
        "api_key_file": {"name": "azure", "key": "key"},
        "api_key_header": "api-key",
        "weight": 2,
        "requests_per_minute": 3000,
        "tokens_per_minute": 1000000,
        "concurrent": 40,
        "models": ["text-embedding-3-small=my-deployment"],
    },
]

# Each mode with its options. Every check that can do so runs with all entries.
MATRIX = {
    "standalone": {},
    "standalone with a key": {"secrets": KEY},
    "standalone, all of it": {
        "image": {"digest": "sha256:" + "0" * 64},
        "imagePullSecrets": ["pull"],
        "config": {
            "workers": 2,
            "limits": {"max_body_bytes": 16777216, "max_inflight_bytes": 67108864},
            "retry": {"budget_ratio": 0.1},
            "cache": {"key_headers": ["x-portkey-provider", "x-other"], "ttl": 3600},
            "redis": {"url": "rediss://redis:6380/0", "username": "vecho"},
        },
        "configFile": {"configMap": "vecho-live"},
        "secrets": KEY
        | {
            "admin": {"token_file": {"name": "admin", "key": "token"}},
            "redis": {"password_file": {"name": "redis", "key": "password"}},
        },
        "disk": {"volume": "ephemeral", "size": "4G", "storageClass": "fast"},
        "listenHost": "[::]",
        "resources": {"limits": {"cpu": 2, "memory": "1Gi"}},
        "standalone": {
            "autoscaling": {"enabled": True},
            "podDisruptionBudget": {"maxUnavailable": "25%"},
            "networkPolicy": {
                "clients": [{"namespaceSelector": {"matchLabels": {"team": "search"}}}, {"ipBlock": {"cidr": "10.0.0.0/8"}}],
                "monitoring": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "prometheus"}}}],
                "egressPorts": [7000],
            },
            "podAnnotations": {"a": "b"},
            "podLabels": {"team": "search"},
            "nodeSelector": {"disk": "ssd"},
            "tolerations": [{"key": "cache", "operator": "Exists", "effect": "NoSchedule"}],
            "priorityClassName": "high",
        },
        "monitoring": {
            "monitor": {"enabled": True, "labels": {"release": "prometheus"}},
            "rules": {"enabled": True, "labels": {"release": "prometheus"}},
            "dashboard": {"enabled": True},
        },
    },
    "standalone in production": yaml.safe_load((CHART / "values-production.yaml").read_text()),
    "standalone with targets": {"targets": TARGETS},
    "standalone with targets that share a key": {
        "config": {"upstream": {"url": "http://a/v1"}},
        "secrets": KEY,
        "targets": [{"name": name, "url": f"http://{name}/v1"} for name in ("a", "b")],
    },
    "standalone, bare": {
        "disk": {"enabled": False},
        "runAsUser": None,
        "standalone": {
            "podDisruptionBudget": {"enabled": False},
            "networkPolicy": {"enabled": False},
            "preStopSeconds": 0,
            "topologySpread": False,
        },
    },
    "standalone on a claim": {
        "disk": {"volume": "claim", "claim": "vecho", "size": "20Gi"},
        "config": {"disk": {"max_mb": 16384}},
        "standalone": {"replicas": 1},
    },
    "injection": {"mode": "injection"},
    "injection, all of it": {
        "mode": "injection",
        "secrets": KEY,
        "configFile": {"configMap": "vecho-live"},
        "disk": {"volume": "ephemeral"},
        "resources": {"limits": {"cpu": 1, "memory": "640Mi"}},
        "injection": {"failurePolicy": "Fail", "variables": ["OPENAI_BASE_URL", "OPENAI_API_BASE"]},
        "monitoring": {"monitor": {"enabled": True}},
    },
    "injection with targets": {"mode": "injection", "targets": TARGETS},
    "injection before 1.36": {"mode": "injection", "injection": {"apiVersion": "v1beta1"}, "disk": {"enabled": False}},
    "sidecar": {"mode": "sidecar", "monitoring": {"monitor": {"enabled": True}}},
}

# Values of the application's chart for its dependency.
APPLICATIONS = {
    "application": {},
    "application with a key": {"vecho": {"secrets": KEY, "monitoring": {"monitor": {"enabled": True}}}},
    "application with targets": {"vecho": {"targets": TARGETS}},
    "application without disk": {"vecho": {"disk": {"enabled": False}, "listenHost": "[::]"}},
    "application with an ephemeral claim": {"vecho": {"disk": {"volume": "ephemeral"}, "configFile": {"configMap": "live"}}},
    "application without vecho": {"vecho": {"enabled": False}},
}


def render(values, chart=CHART, name="cache", cluster=None):
    """Returns the manifests by template. Validates the values against the schema, as Helm does on install.

    `cluster` holds `kube_version` and `api_versions`, which Helm otherwise asks the cluster for.
    """
    with helm.Chart.load(chart) as loaded:
        loaded.validate_schema(values)
        if not cluster:
            return loaded.render(values, name=name, namespace="shop")
        # The engine takes these two options, but its Python method has no parameters for them.
        options = {"name": name, "namespace": "shop", **cluster}
        return json.loads(_native.call_string("helm_render", loaded._raw(), json.dumps(values), json.dumps(options)))


def parse(templates):
    texts = [text for path, text in templates.items() if path.endswith(".yaml")]
    # The safe loader in C: the one in Python takes longer than rendering.
    return [document for text in texts for document in yaml.load_all(text, yaml.CSafeLoader) if document]


def refused(values, complaint, **options):
    """Asserts that rendering fails with a message that matches."""
    try:
        render(values, **options)
    except helm.HelmError as error:
        assert re.search(complaint, str(error)), f"{values}: {error}"
        return
    raise AssertionError(f"{values} is taken")


def is_hook(document):
    return "helm.sh/hook" in document["metadata"].get("annotations", {})


def manifests(values, **options):
    """Returns the objects of the release, without the hooks of `helm test`."""
    return [document for document in parse(render(values, **options)) if not is_hook(document)]


def hooks(values, **options):
    """Returns the objects that exist during `helm test`."""
    return [document for document in parse(render(values, **options)) if is_hook(document)]


def example(folder):
    """Copies the application's chart and fetches vecho's chart into it, as `helm dependency update` does."""
    shutil.copytree(CHART, folder / "vecho")
    shutil.copytree(EXAMPLE, folder / "example-app", ignore=shutil.ignore_patterns("charts", "Chart.lock"))
    helm.dependency_update(folder / "example-app")
    return folder / "example-app"


def everything():
    """Yields every entry of both matrices with its manifests."""
    for label, values in MATRIX.items():
        yield label, manifests(values)
    with tempfile.TemporaryDirectory() as folder:
        chart = example(Path(folder))
        for label, values in APPLICATIONS.items():
            yield label, manifests(values, chart=chart, name="app")


def one(documents, kind):
    found = [document for document in documents if document["kind"] == kind]
    assert len(found) == 1, f"{len(found)} of {kind}"
    return found[0]


def pods(documents):
    """Returns the pod templates among manifests."""
    return [document["spec"]["template"] for document in documents if document["kind"] == "Deployment"]


def containers(pod):
    """Returns vecho's containers of a pod."""
    spec = pod["spec"]
    return [item for item in spec.get("initContainers", []) + spec["containers"] if item["name"] == "vecho"]


def metrics():
    """Returns the names in docs/METRICS.md, with the series of histograms."""
    names = set()
    for name, kind in re.findall(r"^\| `(\w+)` \| (\w+) ", (ROOT / "docs/METRICS.md").read_text(), re.M):
        names |= {f"{name}_{part}" for part in ("bucket", "sum", "count")} if kind == "histogram" else {name}
    assert len(names) > 40
    return names


def run(*command, **options):
    assert shutil.which(command[0]), f"{command[0]} is missing: run `bash scripts/setup-tests`"
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout


@contextlib.contextmanager
def started(line, environment):
    """Runs a vecho and yields its process id and the addresses from its log. It must stop gracefully at the end."""
    process = subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, text=True)
    ended = threading.Timer(180, process.kill)
    ended.start()
    try:
        log = ""
        for text in process.stderr:
            log += text
            if found := SERVING.search(text):
                break
        else:
            raise AssertionError(f"it ended with {process.wait()} before it listened: {log}")
        yield process.pid, *found.groups()
        process.terminate()
        assert process.wait() == 0, "it has to stop in order"
    finally:
        process.kill()
        ended.cancel()


def get(url):
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.status, answer.read().decode()


def embed(public, text="x"):
    body = json.dumps({"model": "tiny", "input": text}).encode()
    headers = {"content-type": "application/json", "authorization": "Bearer sk-test"}
    request = urllib.request.Request(f"http://{public}/v1/embeddings", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)["data"]
    except urllib.error.HTTPError as error:
        raise AssertionError(error.read().decode()) from None


def main(checks):
    """Runs the check that is named on the command line, and ends with the message of a failed assertion."""
    try:
        checks[sys.argv[1]]()
    except AssertionError as error:
        traceback.print_exc()
        sys.exit(f"{sys.argv[1]}: {error}")
    print(json.dumps({"check": sys.argv[1]}))
