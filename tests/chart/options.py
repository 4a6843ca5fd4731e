"""The values that platform teams set: each changes the manifests as its description says, and they stay valid."""

import copy
import json
import tempfile
from pathlib import Path

import helm_python as helm
import yaml

from common import CHART, KEY, MATRIX, TARGETS, containers, everything, example, hooks, main, manifests, one, pods, render
from manifests import OPERATOR, assert_operator, assert_valid


def put(values, path, value):
    """Returns a copy of the values in which one of them is changed."""
    values = copy.deepcopy(values)
    *parents, last = path.split(".")
    inner = values
    for name in parents:
        inner = inner.setdefault(name, {})
    inner[last] = value
    return values


# A value for each leaf of values.yaml outside of `config`, with the values that it needs to have an effect.
HPA = {"standalone": {"autoscaling": {"enabled": True}, "networkPolicy": {"monitoring": [{"namespaceSelector": {}}]}}}
OUTSIDE = {"standalone": {"networkPolicy": {"clients": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}}}
DRIVER = {"driver": "secrets.example", "volumeAttributes": {"a": "b"}}
VOLUME = [{"name": "ca", "configMap": {"name": "corporate-ca"}}, {"name": "csi", "csi": DRIVER}]
MOUNT = [{"name": "ca", "mountPath": "/etc/ca", "readOnly": True}]
TERMS = {"matchExpressions": [{"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64", "arm64"]}]}
AFFINITY = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [TERMS]}}}
SPREAD = [{"topologyKey": "kubernetes.io/hostname", "maxSkew": 2, "whenUnsatisfiable": "DoNotSchedule"}]
ENV = [
    {"name": "VECHO_UPSTREAM_API_KEY", "valueFrom": {"secretKeyRef": {"name": "openai", "key": "api-key"}}},
    {"name": "TZ", "value": "Europe/Vienna"},
]
SAMPLES = {
    "mode": ("injection", {}),
    "global.imageRegistry": ("mirror.example:5000", {}),
    "global.imagePullSecrets": (["mirror", {"name": "other"}], {}),
    "nameOverride": ("embeddings", {}),
    "fullnameOverride": ("embeddings-cache", {}),
    "commonLabels": ({"team": "search"}, {}),
    "commonAnnotations": ({"example.com/owner": "search"}, {}),
    "image.registry": ("registry.example/team", {}),
    "image.repository": ("registry.example/team/vecho", {}),
    "image.tag": ("0.2.0", {}),
    "image.digest": ("sha256:" + "1" * 64, {}),
    "image.pullPolicy": ("Always", {}),
    "imagePullSecrets": ([{"name": "pull"}, "pull", "second"], {}),
    "configFile.configMap": ("live", {}),
    "configFile.key": ("other.toml", {"configFile": {"configMap": "live"}}),
    "secrets": (KEY, {}),
    "targets": (TARGETS, {}),
    "extraEnv": (ENV, {}),
    "extraEnvFrom": ([{"secretRef": {"name": "variables", "optional": True}}, {"prefix": "A_", "configMapRef": {"name": "a"}}], {}),
    "extraVolumes": (VOLUME, {}),
    "extraVolumeMounts": (MOUNT, {"extraVolumes": VOLUME}),
    "disk.enabled": (False, {}),
    "disk.volume": ("ephemeral", {}),
    "disk.size": ("4Gi", {}),
    "disk.storageClass": ("fast", {"disk": {"volume": "ephemeral"}}),
    "disk.claim": ("other", MATRIX["standalone on a claim"]),
    "ports.public": (8080, {}),
    "ports.ops": (8081, {}),
    "listenHost": ("[::]", {}),
    "resources.requests.cpu": (1, {}),
    "resources.requests.memory": ("300Mi", {}),
    "resources.limits.memory": ("1Gi", {}),
    "runAsUser": (None, {}),
    "serviceAccount.create": (True, {}),
    "serviceAccount.name": ("existing", {}),
    "serviceAccount.annotations": ({"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/a"}, {"serviceAccount": {"create": True}}),
    "serviceAccount.automount": (True, {}),
    "standalone.replicas": (3, {}),
    "standalone.autoscaling.enabled": (True, {}),
    "standalone.autoscaling.minReplicas": (3, HPA),
    "standalone.autoscaling.maxReplicas": (9, HPA),
    "standalone.autoscaling.targetCPU": (None, put(HPA, "standalone.autoscaling.targetRequestsInFlight", 20)),
    "standalone.autoscaling.targetRequestsPerSecond": (1000000, HPA),
    "standalone.autoscaling.targetRequestsInFlight": (20, HPA),
    "standalone.autoscaling.behavior.scaleDown.stabilizationWindowSeconds": (300, HPA),
    "standalone.podDisruptionBudget.enabled": (False, {}),
    "standalone.podDisruptionBudget.maxUnavailable": ("50%", {}),
    "standalone.networkPolicy.enabled": (False, {}),
    "standalone.networkPolicy.clients": ([{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}], {}),
    "standalone.networkPolicy.monitoring": ([{"namespaceSelector": {}}], {}),
    "standalone.networkPolicy.dnsPorts": ([53], {}),
    "standalone.networkPolicy.egressPorts": ([7000], {}),
    "standalone.service.type": ("LoadBalancer", OUTSIDE),
    "standalone.service.annotations": ({"a": "b"}, {}),
    "standalone.service.nodePort": (30080, put(OUTSIDE, "standalone.service.type", "NodePort")),
    "standalone.service.loadBalancerSourceRanges": (
        ["10.0.0.0/8", "fd00::/8"],
        put(OUTSIDE, "standalone.service.type", "LoadBalancer"),
    ),
    "standalone.strategy": ({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}, {}),
    "standalone.revisionHistoryLimit": (0, {}),
    "standalone.preStopSeconds": (0, {}),
    "standalone.terminationGracePeriodSeconds": (60, {}),
    "standalone.topologySpread": (False, {}),
    "standalone.topologySpreadConstraints": (SPREAD, {}),
    "standalone.affinity": (AFFINITY, {}),
    "standalone.podAnnotations": ({"a": "b"}, {}),
    "standalone.podLabels": ({"a": "b"}, {}),
    "standalone.nodeSelector": ({"kubernetes.io/arch": "arm64"}, {}),
    "standalone.tolerations": ([{"key": "a", "operator": "Exists"}], {}),
    "standalone.priorityClassName": ("high", {}),
    "standalone.dnsPolicy": ("None", {"standalone": {"dnsConfig": {"nameservers": ["10.0.0.10"]}}}),
    "standalone.dnsConfig": ({"nameservers": ["10.0.0.10"], "searches": ["a"], "options": [{"name": "ndots", "value": "1"}]}, {}),
    "injection.apiVersion": ("v1beta1", {"mode": "injection"}),
    "injection.failurePolicy": ("Fail", {"mode": "injection"}),
    "injection.namespaceSelector.matchExpressions": ([{"key": "a", "operator": "Exists"}], {"mode": "injection"}),
    "injection.variables": (["OPENAI_API_BASE"], {"mode": "injection"}),
    "injection.noProxy": (False, {"mode": "injection"}),
    "monitoring.monitor.enabled": (True, HPA),
    "monitoring.monitor.labels": ({"a": "b"}, MATRIX["standalone, all of it"]),
    "monitoring.monitor.interval": ("10s", MATRIX["standalone, all of it"]),
    "monitoring.rules.enabled": (True, {}),
    "monitoring.rules.labels": ({"a": "b"}, MATRIX["standalone, all of it"]),
    "monitoring.dashboard.enabled": (True, {}),
    "monitoring.dashboard.labels.grafana_dashboard": ("yes", MATRIX["standalone, all of it"]),
}


def leaves(values, path=()):
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*path, name))
        else:
            yield ".".join((*path, name))


def every_value_changes_the_manifests_and_keeps_them_valid():
    known = {path for path in leaves(yaml.safe_load((CHART / "values.yaml").read_text())) if not path.startswith("config.")}
    assert set(SAMPLES) == known, f"without a sample, or unknown: {set(SAMPLES) ^ known}"
    for path, (value, base) in SAMPLES.items():
        values = put(base, path, value)
        before, after = manifests(base), manifests(values)
        changed = [document for document in after if document not in before]
        assert changed or len(after) < len(before), f"{path} has no effect"
        # The matrix covers documents without a change.
        for document in changed:
            if document["apiVersion"] == OPERATOR:
                assert_operator(document)
            else:
                assert_valid(path, document)
        report = helm.lint(CHART, values, strict=True)
        faults = [message for message in report["messages"] if message["severity"] > 1]
        assert not faults and not report["errors"], f"{path}: {faults}"


def extras_reach_the_container_in_every_mode():
    extras = {name: SAMPLES[name][0] for name in ("extraEnv", "extraEnvFrom", "extraVolumes", "extraVolumeMounts")}
    (container,) = containers(pods(manifests(extras))[0])
    assert container["env"][-2:] == ENV and container["envFrom"] == extras["extraEnvFrom"]
    assert container["volumeMounts"][-1] == MOUNT[0]
    assert pods(manifests(extras))[0]["spec"]["volumes"][-2:] == VOLUME
    expression = json.dumps(manifests({"mode": "injection", **extras}))
    for part in ("VECHO_UPSTREAM_API_KEY", "corporate-ca", "volumeAttributes", "/etc/ca", "optional"):
        assert part in expression, part
    # Without VECHO_ in front, and with a name that the chart does not set, variables are free.
    render({"extraEnv": [{"name": "LISTEN", "value": "a"}, {"name": "VECHO_UPSTREAM_KEY", "value": "a"}]})


def images_follow_the_registry_of_the_chart_or_of_all_charts():
    for values, expected in [
        ({"image": {"registry": "a.example"}}, "a.example/vecho:0.1.0"),
        ({"image": {"registry": "a.example", "repository": "team/vecho", "tag": "1"}}, "a.example/team/vecho:1"),
        ({"image": {"registry": "a.example"}, "global": {"imageRegistry": "b.example:5000"}}, "b.example:5000/vecho:0.1.0"),
        ({"image": {"digest": "sha256:" + "1" * 64}, "global": {"imageRegistry": "b"}}, "b/vecho@sha256:" + "1" * 64),
        ({"image": {"repository": "a.example/team/vecho"}}, "a.example/team/vecho:0.1.0"),
    ]:
        (container,) = containers(pods(manifests(values))[0])
        assert container["image"] == expected, container["image"]
        assert {item["image"] for item in one(hooks(values), "Pod")["spec"]["containers"]} == {expected}
    values = {"global": {"imagePullSecrets": [{"name": "a"}, "b"], "other": 1}, "imagePullSecrets": ["b", {"name": "c"}]}
    wanted = [{"name": "a"}, {"name": "b"}, {"name": "c"}]
    assert pods(manifests(values))[0]["spec"]["imagePullSecrets"] == wanted
    assert one(hooks(values), "Pod")["spec"]["imagePullSecrets"] == wanted


def an_application_hands_its_registry_and_extras_to_the_sidecar():
    extras = {"extraEnv": ENV, "extraVolumes": VOLUME, "extraVolumeMounts": MOUNT}
    with tempfile.TemporaryDirectory() as folder:
        chart = example(Path(folder))
        (pod,) = pods(manifests({"global": {"imageRegistry": "m.example"}, "vecho": extras}, chart=chart, name="app"))
        (container,) = containers(pod)
        assert container["image"] == "m.example/vecho:0.1.0"
        assert container["env"][-2:] == ENV and container["volumeMounts"][-1] == MOUNT[0]
        assert pod["spec"]["volumes"][-2:] == VOLUME
        # The application has volumes of its own.
        mount = {"extraVolumeMounts": [{"name": "data", "mountPath": "/data"}]}
        (pod,) = pods(manifests({"vecho": mount}, chart=chart, name="app"))
        assert containers(pod)[0]["volumeMounts"][-1] == mount["extraVolumeMounts"][0]


def names_follow_the_overrides():
    for values, name, expected in [
        ({"nameOverride": "embed"}, "cache", "cache-embed"),
        ({"nameOverride": "embed"}, "my-embed", "my-embed"),
        ({"nameOverride": "embed"}, "1", "embed-1"),
        ({"fullnameOverride": "one-for-all"}, "cache", "one-for-all"),
        ({"fullnameOverride": "x", "nameOverride": "embed"}, "cache", "x"),
    ]:
        documents = manifests(values, name=name)
        assert {document["metadata"]["name"] for document in documents} == {expected}, values
        label = values.get("nameOverride", "vecho")
        assert pods(documents)[0]["metadata"]["labels"]["app.kubernetes.io/name"] == label
        assert one(documents, "Service")["spec"]["selector"]["app.kubernetes.io/name"] == label
        notes = render(values, name=name)["vecho/templates/NOTES.txt"]
        assert f"http://{expected}.shop:7861/v1" in notes
    longest = manifests({"nameOverride": "a" * 30}, name="b" * 53)
    assert {len(document["metadata"]["name"]) for document in longest} == {52}


def common_labels_and_annotations_are_on_every_object():
    common = {"commonLabels": {"team": "search", "a": "1"}, "commonAnnotations": {"owner": "search", "a": "1"}}
    for label, values in MATRIX.items():
        if label == "sidecar":
            continue
        for document in [*manifests(values | common), *hooks(values | common)]:
            metadata = document["metadata"]
            assert common["commonLabels"].items() <= metadata["labels"].items(), f"{label}: {document['kind']}"
            assert common["commonAnnotations"].items() <= metadata["annotations"].items(), f"{label}: {document['kind']}"
            assert metadata["labels"]["app.kubernetes.io/instance"] == "cache"
    own = {"standalone": {"podLabels": {"a": "2"}, "service": {"annotations": {"a": "2"}}}, "serviceAccount": {"create": True}}
    documents = manifests(common | own)
    assert pods(documents)[0]["metadata"]["labels"]["a"] == "2", "what is said of one object takes precedence"
    assert one(documents, "Service")["metadata"]["annotations"] == {"a": "2", "owner": "search"}
    deployment = one(documents, "Deployment")["spec"]
    assert set(deployment["selector"]["matchLabels"]) == {"app.kubernetes.io/name", "app.kubernetes.io/instance"}


def the_service_account_has_no_token_unless_asked():
    plain = pods(manifests({}))[0]["spec"]
    assert "serviceAccountName" not in plain and plain["automountServiceAccountToken"] is False
    documents = manifests({"serviceAccount": {"create": True}})
    account = one(documents, "ServiceAccount")
    assert account["automountServiceAccountToken"] is False and account["metadata"]["name"] == "cache-vecho"
    assert pods(documents)[0]["spec"]["serviceAccountName"] == "cache-vecho"
    named = {"create": True, "name": "own", "annotations": {"a": "b"}, "automount": True}
    documents = manifests({"serviceAccount": named})
    account = one(documents, "ServiceAccount")
    assert (account["metadata"]["name"], account["metadata"]["annotations"]) == ("own", {"a": "b"})
    assert account["automountServiceAccountToken"] and pods(documents)[0]["spec"]["automountServiceAccountToken"]
    existing = manifests({"serviceAccount": {"name": "existing"}})
    assert pods(existing)[0]["spec"]["serviceAccountName"] == "existing"
    assert "ServiceAccount" not in {document["kind"] for document in existing}


def pods_are_placed_as_asked():
    spec = pods(manifests({"standalone": {"topologySpreadConstraints": SPREAD, "affinity": AFFINITY}}))[0]["spec"]
    labels = {"app.kubernetes.io/name": "vecho", "app.kubernetes.io/instance": "cache"}
    assert spec["topologySpreadConstraints"] == [SPREAD[0] | {"labelSelector": {"matchLabels": labels}}]
    assert spec["affinity"] == AFFINITY
    own = SPREAD[0] | {"labelSelector": {"matchLabels": {"a": "b"}}}
    spec = pods(manifests({"standalone": {"topologySpreadConstraints": [own]}}))[0]["spec"]
    assert spec["topologySpreadConstraints"] == [own]
    for label, documents in everything():
        for pod in pods(documents):
            assert "kubernetes.io/arch" not in json.dumps(pod), f"{label}: the image decides on its platforms"


def the_strategy_is_recreate_on_a_claim():
    asked = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "25%"}}
    assert one(manifests({"standalone": {"strategy": asked}}), "Deployment")["spec"]["strategy"] == asked
    assert "strategy" not in one(manifests({}), "Deployment")["spec"]
    claim = copy.deepcopy(MATRIX["standalone on a claim"])
    claim["standalone"]["strategy"] = {"type": "Recreate"}
    assert one(manifests(claim), "Deployment")["spec"]["strategy"] == {"type": "Recreate"}


def ephemeral_storage_fits_the_volume():
    storage = {"requests": {"ephemeral-storage": "3Gi"}, "limits": {"ephemeral-storage": "4Gi"}}
    pod = pods(manifests({"resources": storage}))[0]
    (container,) = containers(pod)
    assert container["resources"]["requests"]["ephemeral-storage"] == "3Gi"
    assert container["resources"]["limits"] == {"memory": "640Mi", "ephemeral-storage": "4Gi"}
    assert pod["spec"]["volumes"][0]["emptyDir"] == {"sizeLimit": "3Gi"}
    # A claim is no ephemeral storage.
    small = {"limits": {"ephemeral-storage": "100Mi"}}
    render({"resources": small, "disk": {"volume": "ephemeral"}})
    render({"resources": small, "disk": {"enabled": False}})


if __name__ == "__main__":
    main(globals())
