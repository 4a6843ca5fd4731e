"""The manifests: valid for Kubernetes, consistent with each other, restricted."""

import json
import re
import tempfile
from functools import cache
from pathlib import Path

import helm_python as helm
import kubernetes_validate
import yaml

from common import CHART, MATRIX, ROOT, TARGETS, containers, everything, example, main, manifests, one, pods, render

# The validator reads its schemas, of several megabytes, for each document.
kubernetes_validate.utils.schema_contents = cache(kubernetes_validate.utils.schema_contents)
# The oldest version that the chart supports, those that introduced the admission policy, and the newest.
VERSIONS = [30, 34, 36, 37]
OPERATOR = "monitoring.coreos.com/v1"


def both_charts_pass_the_linter():
    with tempfile.TemporaryDirectory() as folder:
        charts = [(CHART, values) for values in MATRIX.values()]
        charts.append((example(Path(folder)), {}))
        for chart, values in charts:
            report = helm.lint(chart, values, strict=True)
            faults = [message for message in report["messages"] if message["severity"] > 1]
            assert not faults and not report["errors"], faults


def assert_valid(label, document):
    """Validates a manifest against the schemas of all versions of Kubernetes that have its kind."""
    first = {"v1": 36, "v1beta1": 34, "v1alpha1": 32}[version(document)] if "Mutating" in document["kind"] else VERSIONS[0]
    for minor in (minor for minor in VERSIONS if minor >= first):
        try:
            kubernetes_validate.validate(document, f"1.{minor}", strict=True)
        except kubernetes_validate.ValidationError as error:
            raise AssertionError(f"{label}, {document['kind']}, 1.{minor}: {error.message}") from None


def every_manifest_is_valid():
    seen = set()
    # The name of a release may begin with a digit or contain dots.
    labels, names = ("standalone, all of it", "injection"), ("123", "my.cache.v2", "4vecho", "a" * 53)
    named = [(name, manifests(MATRIX[label], name=name)) for label in labels for name in names]
    for label, documents in [*everything(), *named]:
        for document in documents:
            seen.add(document["kind"])
            if document["kind"] == "Service":
                name = document["metadata"]["name"]
                assert re.fullmatch("[a-z]([-a-z0-9]{0,61}[a-z0-9])?", name), f"{label}: {name} is no name for a Service"
            if document["apiVersion"] == OPERATOR:
                assert_operator(document)
                continue
            assert_valid(label, document)
    expected = "Deployment Service HorizontalPodAutoscaler PodDisruptionBudget NetworkPolicy ConfigMap PodMonitor "
    expected += "ServiceMonitor PrometheusRule MutatingAdmissionPolicy MutatingAdmissionPolicyBinding"
    assert seen == set(expected.split()), seen


def version(document):
    return document["apiVersion"].rpartition("/")[2]


def assert_operator(document):
    """Checks the form of the operator's own kinds, which have no schema in Kubernetes."""
    spec, kind = document["spec"], document["kind"]
    if kind == "PrometheusRule":
        assert set(spec) == {"groups"}
        for rule in (rule for group in spec["groups"] for rule in group["rules"]):
            assert ("alert" in rule) != ("record" in rule) and isinstance(rule["expr"], str)
            assert set(rule) <= {"alert", "record", "expr", "for", "labels", "annotations"}
        return
    endpoints = {"PodMonitor": "podMetricsEndpoints", "ServiceMonitor": "endpoints"}[kind]
    assert set(spec) - {"namespaceSelector"} == {"selector", endpoints}, spec
    assert spec.get("namespaceSelector", {"any": True}) == {"any": True}
    assert [set(endpoint) for endpoint in spec[endpoints]] == [{"port", "path", "interval"}]


def selectors_match_the_labels_and_ports_of_the_pods():
    documents = manifests(MATRIX["standalone, all of it"])
    labels = pods(documents)[0]["metadata"]["labels"]
    ports = {port["containerPort"] for port in containers(pods(documents)[0])[0]["ports"]}
    service = one(documents, "Service")
    assert service["spec"]["selector"].items() <= labels.items()
    assert {port["targetPort"] for port in service["spec"]["ports"]} == ports, "numbers, not names"
    for kind in ("PodDisruptionBudget", "NetworkPolicy"):
        spec = one(documents, kind)["spec"]
        selector = spec.get("selector") or spec["podSelector"]
        assert selector["matchLabels"].items() <= labels.items(), kind
    assert [port["name"] for port in service["spec"]["ports"]] == ["http", "ops"]
    key = {"name": "tls", "key": "tls.key"}
    secure = one(manifests({"secrets": {"tls": {"cert_file": key, "key_file": key}}}), "Service")
    assert [port["name"] for port in secure["spec"]["ports"]] == ["https"]
    monitor = one(documents, "ServiceMonitor")["spec"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["endpoints"][0]["port"] in {port["name"] for port in service["spec"]["ports"]}
    egress = [port["port"] for entry in one(documents, "NetworkPolicy")["spec"]["egress"] for port in entry["ports"]]
    assert sorted(egress[4:]) == [443, 6380, 7000], "the upstream, Redis, what is named"
    allowed = {entry["ports"][0]["port"] for entry in one(documents, "NetworkPolicy")["spec"]["ingress"]}
    assert allowed == ports


def the_network_policy_follows_the_addresses():
    for config, expected in [
        ({"upstream": {"url": "http://gateway:8080/v1"}}, [8080]),
        ({"upstream": {"url": "http://gateway"}}, [80]),
        ({"redis": {"url": "redis://a:7000,redis://b,rediss://[fd00::1]:7001/2"}}, [7000, 6379, 7001, 443]),
        ({"redis": {"url": "redis://a:7000, redis://b:7001"}}, [7000, 7001, 443]),
        ({"upstream": {"url": "HTTPS://gateway/tenant:80/v1"}}, [443]),
        ({"upstream": {"url": "mock:"}}, []),
        ({"upstream": {"proxy": "http://proxy:3128"}}, [443, 3128]),
        ({"upstream": None}, [443]),
        ({"traces": {"endpoint": "http://collector:4318"}}, [443, 4318]),
        ({"traces": {"url": "https://collector/v1/traces"}, "upstream": {"url": "mock:"}}, [443]),
    ]:
        _, *rest = one(manifests({"config": config}), "NetworkPolicy")["spec"]["egress"]
        assert sorted(port["port"] for entry in rest for port in entry["ports"]) == sorted(expected), config


def the_network_policy_allows_dns():
    for values, expected in [({}, [53, 5353]), ({"dnsPorts": [53]}, [53])]:
        names, *_ = one(manifests({"standalone": {"networkPolicy": values}}), "NetworkPolicy")["spec"]["egress"]
        both = [{"port": port, "protocol": protocol} for port in expected for protocol in ("UDP", "TCP")]
        assert names == {"ports": both}, "OpenShift's name service listens on 5353"


def values_files_set_a_fallback_mode_and_explain_mocks():
    """Both files of values set a mode explicitly and describe the effect of the other one beside it."""
    for name in ("values.yaml", "values-production.yaml"):
        text = (CHART / name).read_text()
        assert yaml.safe_load(text)["config"]["fallback"]["mode"] in {"stale", "error"}, name
        (said,) = re.findall(r"  fallback:\n((?:    #.*\n)+)    mode:", text)
        assert "`mock`" in said and "index" in said and "search" in said, name
    kinds = {document["kind"] for document in manifests(MATRIX["standalone in production"])}
    wanted = "Deployment Service HorizontalPodAutoscaler PodDisruptionBudget NetworkPolicy ServiceMonitor "
    assert kinds == set((wanted + "PrometheusRule ConfigMap").split()), kinds


def the_pod_monitor_of_an_application_selects_its_own_pods():
    documents = dict(everything())["application with a key"]
    monitor, pod = one(documents, "PodMonitor")["spec"], pods(documents)[0]
    assert monitor["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    names = {port["name"] for port in containers(pod)[0]["ports"]}
    assert monitor["podMetricsEndpoints"][0]["port"] in names
    assert monitor["selector"]["matchLabels"] == {"vecho/sidecar": "app"}, "by release, so that no pod is scraped twice"


def containers_are_restricted():
    """Containers follow the pod security standard `restricted` and have a read-only root."""
    for label, documents in everything():
        for pod in pods(documents):
            kinds = {kind for volume in pod["spec"].get("volumes", []) for kind in volume if kind != "name"}
            assert kinds <= {"emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "configMap"}, label
            for container in containers(pod):
                context = container["securityContext"]
                user = {key: context.pop(key, None) for key in ("runAsUser", "runAsGroup")}
                bare = label == "standalone, bare"
                assert set(user.values()) == ({None} if bare else {65532}), label
                assert context == {
                    "runAsNonRoot": True,
                    "readOnlyRootFilesystem": True,
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                    "seccompProfile": {"type": "RuntimeDefault"},
                }, label
                mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
                assert mounted == {volume["name"] for volume in pod["spec"].get("volumes", [])}, label


def all_pods_meet_the_restricted_pod_security_standard():
    for label, documents in everything():
        for pod in pods(documents):
            for container in pod["spec"].get("initContainers", []) + pod["spec"]["containers"]:
                context = container["securityContext"]
                assert context["runAsNonRoot"] and not context["allowPrivilegeEscalation"], label
                assert context["capabilities"] == {"drop": ["ALL"]}, label
                assert context["seccompProfile"] == {"type": "RuntimeDefault"}, label


def sidecars_are_native_and_deployments_sleep_before_they_stop():
    for label, documents in everything():
        for pod in pods(documents):
            for container in containers(pod):
                sidecar = label.startswith("application")
                assert (container.get("restartPolicy") == "Always") == sidecar, label
                pause = container.get("lifecycle", {}).get("preStop")
                assert pause == (None if sidecar or "bare" in label else {"sleep": {"seconds": 5}}), label
                settings = {item["name"]: item["value"] for item in container["env"]}
                for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                    port = container[probe]["httpGet"]["port"]
                    assert type(port) is int and settings["VECHO_ADMIN_LISTEN"].endswith(f":{port}"), label
                public = settings["VECHO_LISTEN"]
                assert public.startswith("127.0.0.1:") == sidecar, f"{label}: {public}"
                assert (7861 in {port["containerPort"] for port in container["ports"]}) != sidecar, label
    pod = pods(dict(everything())["application"])[0]["spec"]
    assert pod["initContainers"][0]["name"] == "vecho"
    variables = {item["name"]: item.get("value") for item in pod["containers"][0]["env"]}
    assert variables["OPENAI_BASE_URL"] == "http://127.0.0.1:7861/v1"
    without = pods(dict(everything())["application without vecho"])[0]
    assert "vecho" not in json.dumps(without), "switched off, nothing of it is left"


def keys_of_targets(container):
    """Returns the path of each target's key."""
    variables = {item["name"]: item.get("value") for item in container["env"]}
    targets = json.loads(variables.get("VECHO_TARGETS", "[]"))
    return [target["api_key_file"] for target in targets if "api_key_file" in target]


def targets_take_their_keys_from_existing_secrets():
    """Each key has its own file from its own Secret, and no manifest holds a key or another URL of the upstream."""
    for label in ("standalone with targets", "application with targets"):
        pod = pods(dict(everything())[label])[0]
        container = next(container for container in containers(pod) if container["name"] == "vecho")
        variables = {item["name"]: item.get("value") for item in container["env"]}
        assert "VECHO_UPSTREAM_URL" not in variables, f"{label}: it would contradict targets that begin elsewhere"
        told = json.loads(variables["VECHO_TARGETS"])
        paths = [f"/etc/vecho/secrets/targets.{target['name']}" for target in TARGETS]
        assert told == [target | {"api_key_file": path} for target, path in zip(TARGETS, paths)], label
        volume = next(volume for volume in pod["spec"]["volumes"] if volume["name"] == "vecho-secrets")
        mounted = {}
        for source in volume["projected"]["sources"]:
            for item in source["secret"]["items"]:
                mounted[f"/etc/vecho/secrets/{item['path']}"] = {"name": source["secret"]["name"], "key": item["key"]}
        assert mounted == {path: target["api_key_file"] for target, path in zip(TARGETS, paths)}, label
    policy = one(manifests(MATRIX["standalone with targets"]), "NetworkPolicy")["spec"]
    ports = {port["port"] for rule in policy["egress"] for port in rule.get("ports", [])}
    assert {443, 8443} <= ports, ports


def every_configured_path_is_mounted():
    """The secrets are mounted at the paths in the variables, and the disk tier has its volume."""
    for label, documents in everything():
        for pod in pods(documents):
            for container in containers(pod):
                mounts = {mount["name"]: mount["mountPath"] for mount in container.get("volumeMounts", [])}
                there = {mounts["vecho-cache"]} if "vecho-cache" in mounts else set()
                for volume in pod["spec"].get("volumes", []):
                    for source in volume.get("projected", {}).get("sources", []):
                        there |= {f"{mounts[volume['name']]}/{item['path']}" for item in source["secret"]["items"]}
                named = {item["value"] for item in container["env"] if re.search("_(FILE|PATH)$", item["name"])}
                named |= set(keys_of_targets(container))
                assert named == there, f"{label}: {named} against {there}"


def the_deployment_follows_its_values():
    full = manifests(MATRIX["standalone, all of it"])
    deployment, scaler = one(full, "Deployment"), one(full, "HorizontalPodAutoscaler")["spec"]
    assert scaler["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (2, 8)
    assert "replicas" not in deployment["spec"], "they are the autoscaler's"
    assert one(full, "PodDisruptionBudget")["spec"]["maxUnavailable"] == "25%"
    spec = deployment["spec"]["template"]["spec"]
    assert spec["automountServiceAccountToken"] is False and spec["enableServiceLinks"] is False
    assert spec["securityContext"]["fsGroup"] == 65532, "a claim belongs to root otherwise"
    keys = [spread["topologyKey"] for spread in spec["topologySpreadConstraints"]]
    assert keys == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
    plain = manifests(MATRIX["standalone"])
    assert one(plain, "Deployment")["spec"]["replicas"] == 2
    assert one(plain, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    claim = one(manifests(MATRIX["standalone on a claim"]), "Deployment")["spec"]
    assert claim["strategy"] == {"type": "Recreate"}, "one folder serves one vecho"


def monitoring_objects_are_rendered_only_on_request():
    for label in ("standalone", "injection"):
        kinds = {document["kind"] for document in manifests(MATRIX[label])}
        assert not kinds & {"PodMonitor", "ServiceMonitor", "PrometheusRule", "ConfigMap"}, label


def the_notes_explain_how_to_configure_an_application():
    for label, values in MATRIX.items():
        notes = render(values)["vecho/templates/NOTES.txt"]
        assert "OPENAI_BASE_URL" in notes and "http" in notes, label
        assert ("API keys" in notes) == ("api_key_file" not in json.dumps(values)), label
    source = {"secretKeyRef": {"name": "openai", "key": "api-key"}}
    held = render({"extraEnv": [{"name": "OPENAI_API_KEY", "valueFrom": source}]})["vecho/templates/NOTES.txt"]
    assert "API keys" not in held, "vecho holds it"
    mock = {"config": {"fallback": {"mode": "mock"}}}
    assert "made-up vectors" in render(mock)["vecho/templates/NOTES.txt"]
    secure = {"secrets": {"tls": {key: {"name": "tls", "key": key} for key in ("cert_file", "key_file")}}}
    assert "https://cache-vecho.shop:7861/v1" in render(secure)["vecho/templates/NOTES.txt"]


def images_have_no_registry_by_default():
    images = [item["image"] for _, documents in everything() for pod in pods(documents) for item in containers(pod)]
    images += re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.M)
    assert len(images) > 8 and not [image for image in images if "/" in image], images


if __name__ == "__main__":
    main(globals())
