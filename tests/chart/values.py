"""The schema refuses wrong values, and the templates refuse values that contradict each other."""

import copy
import json
import runpy
import tempfile
from pathlib import Path

import helm_python as helm
import yaml

from common import CHART, MATRIX, ROOT, TARGETS, example, main, refused, render


def objects(schema, path=()):
    """Yields every object of the schema with its path of properties."""
    if "properties" in schema:
        yield path, schema
        for name, part in schema["properties"].items():
            yield from objects(part, (*path, name))


def wrong_and_unknown_values_are_refused():
    schema = json.loads((CHART / "values.schema.json").read_text())
    known = [(path, part) for path, part in objects(schema) if path != ("global",)]
    assert len(known) > 30, len(known)
    for path, part in known + [((name,), part) for name, part in schema["$defs"].items() if "properties" in part]:
        assert part.get("additionalProperties") is False, path
    for path, _ in known:
        values = {"unknown": 1}
        for name in reversed(path):
            values = {name: values}
        refused(values, "unknown")
    for values in WRONG:
        refused(values, "- at '")


def null_values_are_refused_unless_optional():
    """Null removes a value. The rendered manifest would then be refused by the server, or have another meaning."""
    taken = set()
    for path in values_of(yaml.safe_load((CHART / "values.yaml").read_text())):
        values = None
        for name in reversed(path):
            values = {name: values}
        try:
            render(values)
            taken.add(".".join(path))
        except helm.HelmError as error:
            assert "- at '" in str(error), f"{path}: {error}"
    # These values may be null: vecho has a default, a container may have no limit, the platform chooses, or a
    # selector matches less.
    config = {name for name in taken if name.startswith("config.")}
    assert not config & {"config.fallback", "config.fallback.mode"}
    assert taken - config == MAY_GO, taken - config


MAY_GO = {
    "resources.requests",
    "resources.requests.cpu",
    "resources.requests.memory",
    "resources.limits",
    "resources.limits.memory",
    "runAsUser",
    "standalone.autoscaling.targetCPU",
    "standalone.autoscaling.targetRequestsPerSecond",
    "standalone.autoscaling.targetRequestsInFlight",
    "standalone.autoscaling.behavior.scaleDown",
    "standalone.autoscaling.behavior.scaleDown.stabilizationWindowSeconds",
    "standalone.service.nodePort",
    "standalone.revisionHistoryLimit",
    "injection.namespaceSelector.matchExpressions",
    "monitoring.dashboard.labels.grafana_dashboard",
}


def values_of(values, path=()):
    for name, value in values.items():
        yield (*path, name)
        if isinstance(value, dict):
            yield from values_of(value, (*path, name))


WRONG = [
    {"mode": "daemon"},
    {"mode": None},
    {"image": {"digest": "sha256:short"}},
    {"image": {"pullPolicy": "Sometimes"}},
    {"config": {"fallback": {"mode": "maybe"}}},
    {"config": {"fallback": {"mode": None}}},
    {"config": {"fallback": None}},
    {"config": {"cache": {"ttl": "long"}}},
    {"config": {"limits": {"max_body_bytes": "16M"}}},
    {"config": {"limits": {"max_body_bytes": -1}}},
    {"config": {"upstream": {"api_key": "sk-in-the-open"}}},
    {"config": {"upstream": {"api_key_file": "/somewhere"}}},
    {"config": {"redis": {"password": "in-the-open"}}},
    {"config": {"upstream": {"proxy": "http://me:in-the-open@proxy:3128"}}},
    {"config": {"upstream": {"http2": "on"}}},
    {"config": {"listen": "0.0.0.0:7861"}},
    {"config": {"disk": {"path": "/tmp"}}},
    {"secrets": {"upstream": {"api_key_file": {"name": "openai"}}}},
    {"secrets": {"upstream": {"api_key_file": "openai"}}},
    {"secrets": {"upstream": {}}},
    {"targets": [{"name": "a", "url": "https://h/v1", "api_key": "sk-in-the-open"}]},
    {"targets": [{"name": "a", "url": "https://h/v1", "api_key_file": "/somewhere"}]},
    {"targets": [{"name": "a/b", "url": "https://h/v1"}]},
    {"targets": [{"name": "a", "url": "mock:"}]},
    {"targets": [{"name": "a", "url": "https://me:in-the-open@h/v1"}]},
    {"targets": [{"name": "a", "url": "https://h/v1", "weight": 0}]},
    {"targets": [{"url": "https://h/v1"}]},
    {"config": {"targets": []}},
    {"disk": {"volume": "hostPath"}},
    {"disk": {"size": "3 GB"}},
    {"disk": {"size": 3}},
    {"image": {"repository": "Vecho image"}},
    {"configFile": {"configMap": "live", "key": "../vecho.toml"}},
    {"runAsUser": 2**31},
    {"standalone": {"podLabels": {"app.kubernetes.io/name": "other"}}},
    {"ports": {"public": 0}},
    {"ports": {"ops": "7862"}},
    {"listenHost": "127.0.0.1"},
    {"resources": {"limits": {"memory": "much"}}},
    {"runAsUser": 0},
    {"standalone": {"replicas": 0}},
    {"standalone": {"podDisruptionBudget": {"maxUnavailable": "0%"}}},
    {"standalone": {"networkPolicy": {"clients": [{}]}}},
    {"standalone": {"networkPolicy": {"clients": []}}},
    {"standalone": {"networkPolicy": {"dnsPorts": []}}},
    {"standalone": {"networkPolicy": {"dnsPorts": [70000]}}},
    {"standalone": {"tolerations": [{"operator": "Like"}]}},
    {"injection": {"apiVersion": "v2"}},
    {"injection": {"failurePolicy": "Warn"}},
    {"injection": {"variables": []}},
    {"injection": {"variables": ["OPENAI BASE URL"]}},
    {"global": {"imageRegistry": "https://mirror"}},
    {"global": {"imagePullSecrets": [{"secret": "pull"}]}},
    {"nameOverride": "Vecho"},
    {"fullnameOverride": "a" * 53},
    {"fullnameOverride": "1vecho"},
    {"commonLabels": {"app.kubernetes.io/instance": "other"}},
    {"commonLabels": {"team": 1}},
    {"commonAnnotations": {"a": True}},
    {"image": {"registry": "registry.example.com/"}},
    {"imagePullSecrets": [{"name": ""}]},
    {"extraEnv": {"A": "1"}},
    {"extraEnv": [{"name": "A", "value": 1}]},
    {"extraEnv": [{"name": "A", "value": "1", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]},
    {"extraEnvFrom": [{"configMapRef": {"name": "a"}, "secretRef": {"name": "a"}}]},
    {"extraVolumes": [{"name": "a"}]},
    {"extraVolumes": [{"name": "a", "emptyDir": {}, "configMap": {"name": "a"}}]},
    {"extraVolumeMounts": [{"name": "a", "mountPath": "relative"}]},
    {"serviceAccount": {"create": "yes"}},
    {"serviceAccount": {"name": "Vecho"}},
    {"standalone": {"autoscaling": {"targetCPU": 0}}},
    {"standalone": {"autoscaling": {"targetRequestsPerSecond": "100"}}},
    {"standalone": {"autoscaling": {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 3601}}}}},
    {"standalone": {"service": {"type": "ExternalName"}}},
    {"standalone": {"service": {"loadBalancerSourceRanges": ["anywhere"]}}},
    {"standalone": {"service": {"nodePort": 0}}},
    {"standalone": {"strategy": {"type": "OnDelete"}}},
    {"standalone": {"strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}}},
    {"standalone": {"revisionHistoryLimit": -1}},
    {"standalone": {"affinity": {"nodeAffinities": {}}}},
    {"standalone": {"topologySpreadConstraints": [{"topologyKey": "zone"}]}},
    {"standalone": {"dnsPolicy": "ClusterFirstWithHostNet"}},
    {"standalone": {"dnsConfig": {"servers": ["10.0.0.10"]}}},
    {"injection": {"noProxy": "no"}},
    {"monitoring": {"monitor": {"enabled": "yes"}}},
    {"monitoring": {"rules": {"labels": {"a": 1}}}},
]


def contradictory_values_are_refused():
    claim = {"volume": "claim", "claim": "vecho"}
    key = {"name": "tls", "key": "tls.crt"}
    volume = {"extraVolumes": [{"name": "a", "emptyDir": {}}]}
    for values, complaint in [
        ({"config": {"disk": {"max_mb": 2765}}}, "config.disk.max_mb is 2765.* has room for 2764"),
        ({"disk": {"size": "2G"}}, "max_mb is 2048, and a volume of disk.size 2G has room for 1716"),
        ({"config": {"memory": {"limit_mb": 513}}}, "limit_mb is 513.*640Mi leaves 512"),
        ({"config": {"memory": None}, "resources": {"limits": {"memory": "512Mi"}}}, "limit_mb is 500"),
        ({"ports": {"ops": 7861}}, "are the same"),
        ({"disk": claim}, "one replica"),
        ({"disk": claim, "standalone": {"replicas": 1, "autoscaling": {"enabled": True}}}, "one replica"),
        ({"disk": claim, "mode": "injection"}, "mode has to be standalone"),
        ({"disk": {"volume": "claim"}, "standalone": {"replicas": 1}}, "disk.claim has to name one"),
        ({"config": {"shutdown": {"grace": "31s"}}}, "terminationGracePeriodSeconds"),
        ({"config": {"shutdown": {"grace": "1m"}}}, "terminationGracePeriodSeconds"),
        ({"config": {"shutdown": {"grace": "1d"}}}, "terminationGracePeriodSeconds"),
        ({"resources": {"requests": {"memory": "1Gi"}}}, "requests.memory 1Gi is more than resources.limits.memory 640Mi"),
        ({"standalone": {"autoscaling": {"enabled": True, "minReplicas": 9}}}, "minReplicas is more than maxReplicas"),
        ({"standalone": {"autoscaling": {"enabled": True}}, "resources": {"requests": {"cpu": None}}}, "requests.cpu"),
        ({"monitoring": {"monitor": {"enabled": True}}}, "has to let Prometheus in"),
        ({"disk": {"claim": "vecho"}}, "disk.claim is set, and disk.volume is emptyDir"),
        ({"disk": claim, "standalone": {"replicas": 1, "strategy": {"type": "RollingUpdate"}}}, "two pods must not open one"),
        ({"resources": {"limits": {"ephemeral-storage": "2Gi"}}}, "ephemeral-storage is 2Gi.*emptyDir of disk.size 3Gi"),
        (
            {"resources": {"requests": {"ephemeral-storage": "5Gi"}, "limits": {"ephemeral-storage": "4Gi"}}},
            "requests.ephemeral-storage 5Gi is more than resources.limits.ephemeral-storage 4Gi",
        ),
        ({"image": {"registry": "a.example", "repository": "b.example/vecho"}}, "already has the registry b.example"),
        ({"global": {"imageRegistry": "a.example"}, "image": {"repository": "localhost/vecho"}}, "has the registry localhost"),
        ({"extraEnv": [{"name": "VECHO_LISTEN", "value": "[::]:1"}]}, "extraEnv sets VECHO_LISTEN, which the chart sets"),
        ({"extraEnv": [{"name": "OPENAI_API_KEY", "value": "sk-in-the-open"}]}, "OPENAI_API_KEY in the open"),
        ({"extraEnv": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}, "extraEnv sets A twice"),
        ({"extraVolumes": [{"name": "vecho-cache", "emptyDir": {}}]}, "the name vecho-cache is taken"),
        ({"extraVolumeMounts": [{"name": "a", "mountPath": "/a"}]}, "there is no volume a in extraVolumes"),
        ({**volume, "extraVolumeMounts": [{"name": "a", "mountPath": "/var/cache/vecho/"}]}, "the path /var/cache/vecho/ is taken"),
        ({**volume, "extraVolumeMounts": [{"name": "a", "mountPath": "/a"}] * 2}, "the path /a is taken already"),
        ({"serviceAccount": {"annotations": {"a": "b"}}}, "serviceAccount.annotations is set"),
        ({"serviceAccount": {"create": True}, "mode": "injection"}, "serviceAccount is for mode standalone"),
        ({"standalone": {"autoscaling": {"enabled": True, "targetCPU": None}}}, "set targetCPU, targetRequestsPerSecond or"),
        ({"standalone": {"autoscaling": {"enabled": True, "targetRequestsInFlight": 20}}}, "networkPolicy.monitoring has to let it in"),
        ({"standalone": {"service": {"nodePort": 30000}}}, "type has to be NodePort or LoadBalancer"),
        ({"standalone": {"service": {"type": "NodePort", "loadBalancerSourceRanges": ["10.0.0.0/8"]}}}, "type has to be LoadBalancer"),
        ({"standalone": {"service": {"type": "LoadBalancer"}}}, "type is LoadBalancer.*by an ipBlock"),
        ({"standalone": {"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}}}, "both zero"),
        ({"standalone": {"dnsPolicy": "None"}}, "nameservers has to name the servers"),
        ({"targets": TARGETS[:1] * 2}, "two have the name openai"),
        ({"targets": TARGETS, "config": {"upstream": {"url": "https://other/v1"}}}, "config.upstream.url is https://other/v1"),
        ({"targets": TARGETS, "extraEnv": [{"name": "VECHO_TARGETS", "value": "[]"}]}, "extraEnv sets VECHO_TARGETS, which the chart sets"),
        ({"mode": "injection", "secrets": {"tls": {"cert_file": key, "key_file": key}}}, "secrets.tls"),
    ]:
        refused(values, complaint)
    fits = copy.deepcopy(MATRIX["standalone"]) | {"config": {"disk": {"max_mb": 2764}, "memory": {"limit_mb": 512}}}
    render(fits)


def secrets_are_refused_in_the_open():
    script = runpy.run_path(str(ROOT / "scripts/chart"))
    for key in script["SECRET"]:
        variable = f"VECHO_{key.replace('.', '_').upper()}"
        refused({"extraEnv": [{"name": variable, "value": "in-the-open"}]}, f"{variable} in the open")
        render({"extraEnv": [{"name": variable, "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}]})


def an_application_must_use_the_sidecar_mode():
    with tempfile.TemporaryDirectory() as folder:
        chart = example(Path(folder))
        refused({"vecho": {"mode": "standalone"}}, "vecho.mode has to be sidecar", chart=chart)
        refused({"vecho": {"config": {"fallback": {"mode": "maybe"}}}}, "mode", chart=chart)


if __name__ == "__main__":
    main(globals())
