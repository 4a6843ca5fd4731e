"""`helm test`: its objects are valid, reach vecho's ops port and nothing else, and ask a real vecho."""

import json
import re
import subprocess

from common import BINARY, MATRIX, hooks, main, manifests, one, pods, started
from injection import inject
from manifests import assert_valid

TESTED = {label: values for label, values in MATRIX.items() if label != "sidecar"}


def the_objects_of_the_test_are_valid_and_temporary():
    for label, values in TESTED.items():
        kinds = [document["kind"] for document in hooks(values)]
        standalone = values.get("mode", "standalone") == "standalone"
        policy = ["NetworkPolicy"] if label != "standalone, bare" else []
        assert kinds == (["Pod", "Service", *policy] if standalone else ["Pod"]), f"{label}: {kinds}"
        for document in hooks(values):
            assert_valid(label, document)
            annotations = document["metadata"]["annotations"]
            assert annotations["helm.sh/hook"] == "test"
            assert annotations["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"
            # The pod comes last: it uses the others.
            assert annotations.get("helm.sh/hook-weight", "0") == ("1" if document["kind"] == "Pod" else "0")
    assert hooks(MATRIX["sidecar"]) == [], "nothing runs by itself in this mode"


def the_pod_of_the_test_reaches_only_the_ops_port():
    for values in ({}, {"nameOverride": "embed", "ports": {"ops": 9000}}):
        release, test = manifests(values), hooks(values)
        target = pods(release)[0]["metadata"]["labels"]
        pod, service, policy = (one(test, kind) for kind in ("Pod", "Service", "NetworkPolicy"))
        assert service["spec"]["selector"].items() <= target.items()
        assert policy["spec"]["podSelector"]["matchLabels"].items() <= target.items()
        labels = pod["metadata"]["labels"]
        for document in (one(release, "Service")["spec"]["selector"], service["spec"]["selector"]):
            assert not document.items() <= labels.items(), "the test's pod is no endpoint"
        ((admitted,),) = [entry["from"] for entry in policy["spec"]["ingress"]]
        assert admitted["podSelector"]["matchLabels"].items() <= labels.items()
        (port,) = service["spec"]["ports"]
        assert policy["spec"]["ingress"][0]["ports"] == [{"port": port["port"]}]
        urls = [container["args"][-1] for container in pod["spec"]["containers"]]
        assert urls == [f"http://{service['metadata']['name']}:{port['port']}{path}" for path in ("/readyz", "/metrics")]


def the_pod_of_the_test_is_restricted():
    for label, values in TESTED.items():
        spec = one(hooks(values), "Pod")["spec"]
        assert spec["automountServiceAccountToken"] is False and spec["activeDeadlineSeconds"] == 120
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["runAsNonRoot"] and context["readOnlyRootFilesystem"], label
            assert context["capabilities"] == {"drop": ["ALL"]} and not context["allowPrivilegeEscalation"], label
            assert "command" not in container, "the image has one program, its entry point"
            assert set(container["resources"]) == {"requests", "limits"}, "namespaces with a quota ask for both"
    placed = {"standalone": {"nodeSelector": {"a": "b"}, "tolerations": [{"operator": "Exists"}]}}
    spec = one(hooks(placed), "Pod")["spec"]
    assert (spec["nodeSelector"], spec["tolerations"]) == ({"a": "b"}, [{"operator": "Exists"}]), "as the pods"


def the_pod_of_the_test_gets_vecho_in_injection():
    pod = one(hooks(MATRIX["injection"]), "Pod")
    injected = inject(MATRIX["injection"], json.loads(json.dumps(pod)))
    assert [container["name"] for container in injected["spec"]["initContainers"]] == ["vecho"]
    assert_valid("the pod of the test", injected)
    urls = [container["args"][-1] for container in pod["spec"]["containers"]]
    assert urls == ["http://127.0.0.1:7862/readyz", "http://127.0.0.1:7862/metrics"]


def the_commands_of_the_test_ask_a_real_vecho():
    """Each fails while nothing listens, and succeeds as soon as vecho is ready, without any variable."""
    addresses = {"VECHO_LISTEN": "127.0.0.1:0", "VECHO_ADMIN_LISTEN": "127.0.0.1:0", "VECHO_UPSTREAM_URL": "mock:"}
    with started([BINARY], addresses) as (_, _, admin):
        lines = [command(container, admin) for container in one(hooks({}), "Pod")["spec"]["containers"]]
        for line in lines:
            done = subprocess.run(line, env={}, capture_output=True, text=True, timeout=20)
            assert done.returncode == 0, f"{line}: {done.stderr}"
    for line in lines:
        done = subprocess.run(line, env={}, capture_output=True, text=True, timeout=20)
        assert done.returncode != 0 and "no answer" in done.stderr, f"{line}: {done.stdout}"


def command(container, address):
    return [BINARY, *(re.sub(r"//[^/]+/", f"//{address}/", argument) for argument in container["args"])]


if __name__ == "__main__":
    main(globals())
