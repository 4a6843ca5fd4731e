"""The admission policy: its expressions are evaluated on pods, and the patched pods are checked."""

import copy
import json
import re

import cel
import kubernetes_validate

from common import KEY, MATRIX, TARGETS, containers, everything, main, manifests, one, pods, refused

TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[A-Za-z_][\w.]*|\s+|.', re.S)
NAMED = re.compile(r"(Object|JSONPatch)\b")


def plain(expression):
    """Returns the expression with maps in place of `JSONPatch{}` and `Object...{}`, for an evaluator without them.

    Each Object must be named after the path of the fields that contain it, as the API server requires.
    """
    out, open_braces, tokens = [], [["", ""]], TOKEN.findall(expression)
    before = ""
    for at, (token, following) in enumerate(zip(tokens, [*tokens[1:], ""])):
        if token == "{":
            (parent, field), name = open_braces[-1], tokens[at - 1]
            name = name if NAMED.match(name) else ""
            if name.startswith("Object") and parent.startswith("Object"):
                assert name == f"{parent}.{field}", f"{name} stands in the field {field} of {parent}"
            open_braces.append([name, ""])
        elif token == "}":
            open_braces.pop()
        elif following == ":" and before in ("{", ","):
            open_braces[-1][1] = token
            # In a map the key is already a string.
            token = json.dumps(token) if open_braces[-1][0] else token
        before = token if token.strip() else before
        if not (following == "{" and NAMED.match(token)):
            out.append(token)
    return "".join(out)


def evaluate(expression, pod):
    context = cel.Context()
    context.add_variable("object", pod)
    # One of Kubernetes' own functions.
    context.add_function("indexOf", lambda items, item: items.index(item))
    return cel.evaluate(plain(expression), context)


def apply(pod, patch):
    """Applies a patch of RFC 6902 that contains only `add`. The parent must exist, and `-` is the end of a list."""
    for operation in patch:
        assert operation["op"] == "add"
        *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
        target = pod
        for part in parents:
            target = target[int(part)] if isinstance(target, list) else target[part]
        if isinstance(target, list):
            index = len(target) if last == "-" else int(last)
            assert index <= len(target)
            target.insert(index, operation["value"])
        else:
            target[last] = operation["value"]
    return pod


def inject(values, pod):
    """Returns the pod after the policy. A pod that fails a condition is unchanged."""
    spec = one(manifests(values), "MutatingAdmissionPolicy")["spec"]
    if not all(evaluate(condition["expression"], pod) for condition in spec["matchConditions"]):
        return pod
    (mutation,) = spec["mutations"]
    assert mutation["patchType"] == "JSONPatch"
    return apply(copy.deepcopy(pod), evaluate(mutation["jsonPatch"]["expression"], pod))


def a_pod(asks="true", **spec):
    container = {"name": "app", "image": "app:1"}
    metadata = {"name": "app", **({"annotations": {"vecho/inject": asks}} if asks else {})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container], **spec}}


def variables(container):
    """Returns the variables without those of proxies, which have their own check."""
    pairs = [(item["name"], item.get("value")) for item in container["env"]]
    return [(name, value) for name, value in pairs if name.lower() != "no_proxy"]


def an_annotated_pod_gets_vecho_and_its_address():
    for label in ("injection", "injection, all of it", "injection before 1.36"):
        pod = inject(MATRIX[label], a_pod())
        kubernetes_validate.validate(pod, "1.36", strict=True)
        assert pod["metadata"]["labels"] == {"vecho/sidecar": "cache"}, label
        assert [container["name"] for container in pod["spec"]["initContainers"]] == ["vecho"]
        url = "http://127.0.0.1:7861/v1"
        names = MATRIX[label].get("injection", {}).get("variables", ["OPENAI_BASE_URL"])
        assert variables(pod["spec"]["containers"][0]) == [(name, url) for name in names], label


def injected_containers_equal_those_of_the_application_mode():
    given = {"application": {}, "application with a key": {"secrets": KEY}, "application with targets": {"targets": TARGETS}}
    for label, values in given.items():
        included = pods(dict(everything())[label])[0]
        injected = inject({"mode": "injection", **values}, a_pod())
        assert containers(injected) == containers(included), label
        assert injected["spec"]["volumes"] == included["spec"]["volumes"], label


def injection_keeps_the_existing_fields_of_a_pod():
    first = {"name": "a", "image": "a", "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}
    second = {"name": "b", "image": "b", "env": [{"name": "OPENAI_BASE_URL", "value": "http://elsewhere"}]}
    third = {"name": "c", "image": "c"}
    before = a_pod(
        initContainers=[{"name": "init", "image": "init"}],
        volumes=[{"name": "data", "emptyDir": {}}],
        containers=[first, second, third],
    )
    before["metadata"]["labels"] = {"app": "shop"}
    pod = inject(MATRIX["injection, all of it"], before)
    kubernetes_validate.validate(pod, "1.36", strict=True)
    assert pod["metadata"]["labels"] == {"app": "shop", "vecho/sidecar": "cache"}
    assert [container["name"] for container in pod["spec"]["initContainers"]] == ["vecho", "init"], "vecho starts first"
    assert [volume["name"] for volume in pod["spec"]["volumes"]][0] == "data"
    a, b, c = pod["spec"]["containers"]
    url = "http://127.0.0.1:7861/v1"
    assert variables(a) == [("A", "1"), ("A", "2"), ("OPENAI_BASE_URL", url), ("OPENAI_API_BASE", url)]
    assert variables(b) == [("OPENAI_BASE_URL", "http://elsewhere"), ("OPENAI_API_BASE", url)], "its own address stays"
    assert variables(c) == [("OPENAI_BASE_URL", url), ("OPENAI_API_BASE", url)]


def injected_containers_reach_loopback_without_a_proxy():
    """By the `env` of a container: both spellings, merged with a value that can be read."""
    own, other = "127.0.0.1,localhost", {"configMapKeyRef": {"name": "proxy", "key": "hosts"}}
    proxy = {"name": "HTTPS_PROXY", "value": "http://proxy:3128"}
    source = [{"configMapRef": {"name": "proxy"}}]
    cases = [
        ({}, {"NO_PROXY": own, "no_proxy": own}),
        ({"env": [proxy]}, {"NO_PROXY": own, "no_proxy": own}),
        ({"env": [{"name": "NO_PROXY", "value": ".corp"}]}, {"NO_PROXY": f".corp,{own}", "no_proxy": f".corp,{own}"}),
        ({"env": [proxy, {"name": "no_proxy", "value": ".b"}]}, {"NO_PROXY": f".b,{own}", "no_proxy": f".b,{own}"}),
        (
            {"env": [{"name": "NO_PROXY", "value": "a"}, {"name": "no_proxy", "value": "b"}]},
            {"NO_PROXY": f"a,{own}", "no_proxy": f"b,{own}"},
        ),
        ({"env": [{"name": "NO_PROXY", "value": "*"}]}, {"NO_PROXY": "*", "no_proxy": "*"}),
        ({"env": [{"name": "no_proxy", "value": "127.0.0.1"}]}, {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}),
        ({"env": [{"name": "NO_PROXY"}]}, {"NO_PROXY": own, "no_proxy": own}),
        # What these contain is not known here, so they stay as they are.
        ({"env": [{"name": "NO_PROXY", "valueFrom": other}]}, {"NO_PROXY": other}),
        ({"envFrom": source}, {}),
        ({"envFrom": source, "env": [{"name": "NO_PROXY", "value": "a"}]}, {"NO_PROXY": f"a,{own}"}),
    ]
    for container, expected in cases:
        before = a_pod(containers=[{"name": "first", "image": "a"}, {"name": "app", "image": "b", **container}])
        pod = inject(MATRIX["injection"], before)
        kubernetes_validate.validate(pod, "1.36", strict=True)
        env = pod["spec"]["containers"][1]["env"]
        found = {item["name"]: item.get("valueFrom", item.get("value")) for item in env if item["name"].lower() == "no_proxy"}
        assert found == expected, f"{container}: {found}"
        assert not [item for item in env if "value" in item and "valueFrom" in item], "the server refuses both together"
        assert len(env) == len({item["name"] for item in env}), "no variable twice"
        assert ("HTTPS_PROXY" in {item["name"] for item in env}) == (proxy in container.get("env", []))
    off = inject({"mode": "injection", "injection": {"noProxy": False}}, a_pod())
    assert [item["name"] for item in off["spec"]["containers"][0]["env"]] == ["OPENAI_BASE_URL"]


def injection_takes_the_newest_version_that_the_cluster_serves():
    def served(*versions):
        kinds = [f"admissionregistration.k8s.io/{version}/MutatingAdmissionPolicy" for version in versions]
        return ["v1/Pod", *kinds]

    cases = [
        ({"kube_version": "v1.36.2", "api_versions": served("v1alpha1", "v1beta1", "v1")}, "v1"),
        ({"kube_version": "v1.36.2", "api_versions": served("v1beta1")}, "v1beta1"),
        ({"kube_version": "v1.34.1", "api_versions": served("v1alpha1", "v1beta1")}, "v1beta1"),
        ({"kube_version": "v1.32.0", "api_versions": served("v1alpha1")}, "v1alpha1"),
        # Without a cluster, by the version alone.
        ({"kube_version": "v1.36.0"}, "v1"),
        ({"kube_version": "v1.37.3-vendor.100"}, "v1"),
        ({"kube_version": "v1.35.0"}, "v1beta1"),
        ({"kube_version": "v1.33.4"}, "v1alpha1"),
    ]
    for cluster, expected in cases:
        documents = manifests({"mode": "injection"}, cluster=cluster)
        found = {document["apiVersion"] for document in documents if "Mutating" in document["kind"]}
        assert found == {f"admissionregistration.k8s.io/{expected}"}, f"{cluster}: {found}"
        for document in documents:
            minor = cluster["kube_version"].split(".")[1]
            kubernetes_validate.validate(document, f"1.{minor}", strict=True)
    asked = {"mode": "injection", "injection": {"apiVersion": "v1beta1"}}
    assert manifests(asked, cluster=cases[0][0])[0]["apiVersion"].endswith("/v1beta1"), "a value takes precedence"
    for values, cluster, complaint in [
        ({"mode": "injection"}, {"kube_version": "v1.35.0", "api_versions": served()}, "1.35.0.*serves no Mutating.*1.36"),
        ({"mode": "injection"}, {"kube_version": "v1.31.0"}, "1.31.0.*serves no Mutating"),
        (asked, {"kube_version": "v1.36.0", "api_versions": served("v1")}, "apiVersion is v1beta1.*does not serve"),
    ]:
        refused(values, complaint, cluster=cluster)


def pods_without_the_annotation_are_not_changed():
    values = MATRIX["injection"]
    there = a_pod(initContainers=[{"name": "vecho", "image": "vecho"}])
    other = a_pod(asks=None)
    other["metadata"]["annotations"] = {"other": "true"}
    # Two containers of one name would be refused, and the pod with them.
    classic = a_pod(containers=[{"name": "app", "image": "app"}, {"name": "vecho", "image": "vecho"}])
    for pod in [a_pod(asks=None), a_pod(asks="false"), other, a_pod(hostNetwork=True), there, classic]:
        assert inject(values, copy.deepcopy(pod)) == pod
    assert inject(values, a_pod(hostNetwork=False)) != a_pod(hostNetwork=False)


def resource_maps_in_the_policy_contain_only_strings():
    """CEL in Kubernetes refuses a map of mixed numbers and strings, such as a CPU limit of 1 beside 640Mi."""
    (mutation,) = one(manifests(MATRIX["injection, all of it"]), "MutatingAdmissionPolicy")["spec"]["mutations"]
    maps = re.findall(r"(?:limits|requests): \{([^}]*)\}", mutation["jsonPatch"]["expression"])
    assert len(maps) == 3, maps
    for entries in maps:
        assert all(re.fullmatch(r'\s*"[\w-]+": "[^"]+"\s*', entry) for entry in entries.split(",")), entries


def the_binding_references_the_policy_and_excludes_system_namespaces():
    documents = manifests(MATRIX["injection"])
    policy, binding = (one(documents, f"MutatingAdmissionPolicy{suffix}") for suffix in ("", "Binding"))
    assert binding["spec"]["policyName"] == policy["metadata"]["name"]
    (expression,) = binding["spec"]["matchResources"]["namespaceSelector"]["matchExpressions"]
    assert "kube-system" in expression["values"] and expression["operator"] == "NotIn"
    assert policy["spec"]["failurePolicy"] == "Ignore", "a policy that is broken may not keep pods from starting"


if __name__ == "__main__":
    main(globals())
