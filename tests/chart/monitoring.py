"""Alerts, runbook and dashboard: promtool accepts the rules, alerts fire when they should, and all metrics exist."""

import json
import re
import tempfile
from pathlib import Path

import yaml

from common import BINARY, CHART, MATRIX, ROOT, embed, get, main, manifests, metrics, one, run, started

RULES = CHART / "files/alerts.yaml"
TESTS = [ROOT / "tests/chart/alerts_test.yaml", ROOT / "tests/chart/alerts_of_a_day_test.yaml"]
DASHBOARD = CHART / "files/dashboard.json"


def rules(kind):
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"] if kind in rule]


def targets():
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [(panel, target["expr"]) for panel in panels for target in panel.get("targets", [])]


def promtool_accepts_the_rules_and_their_tests_pass():
    run("promtool", "check", "rules", RULES)
    run("promtool", "test", "rules", *TESTS)


def every_alert_has_a_firing_and_a_silent_test_case():
    seen = {}
    for test in [test for path in TESTS for test in yaml.safe_load(path.read_text())["tests"]]:
        for case in test["alert_rule_test"]:
            seen.setdefault(case["alertname"], set()).add(bool(case["exp_alerts"]))
    assert seen == {rule["alert"]: {True, False} for rule in rules("alert")}


def every_alert_has_its_section_in_the_runbook():
    headings = re.findall(r"^## (\w+)\n\n(\S.{40,})", (ROOT / "docs/RUNBOOK.md").read_text(), re.M)
    assert sorted(heading for heading, _ in headings) == sorted(rule["alert"] for rule in rules("alert"))
    for rule in rules("alert"):
        assert rule["annotations"]["runbook"] == f"docs/RUNBOOK.md#{rule['alert'].lower()}"
        assert set(rule["annotations"]) == {"summary", "description", "runbook"}
        assert rule["labels"]["severity"] in {"critical", "warning"}


def named():
    """Returns every metric that a rule, the runbook or the dashboard names."""
    recorded = {rule["record"] for rule in rules("record")}
    expressions = [rule["expr"] for rule in rules("expr")] + [expression for _, expression in targets()]
    expressions += re.findall(r"`(vecho_\w+|process_\w+)`", (ROOT / "docs/RUNBOOK.md").read_text())
    variables = json.loads(DASHBOARD.read_text())["templating"]["list"]
    expressions += [variable["query"]["query"] for variable in variables if variable["type"] == "query"]
    names = {name for text in expressions for name in re.findall(r"\b(?:vecho|process)[:_][\w:]+", text)}
    assert len(names) > 30
    return names - recorded


def optional():
    """Returns the names of series that exist only with `drift.every`, targets or rate limits, whose own tests scrape them."""
    return {name for name in named() if re.match(r"vecho_(model_drifted|model_difference|target_|pace_(limit|left|held))", name)}


def every_referenced_metric_exists():
    assert named() <= metrics(), f"not in docs/METRICS.md: {named() - metrics()}"


def every_referenced_metric_is_scraped():
    addresses = {"VECHO_LISTEN": "127.0.0.1:0", "VECHO_ADMIN_LISTEN": "127.0.0.1:0", "VECHO_UPSTREAM_URL": "mock:"}
    # The series of budgets exist for those that are set.
    addresses["VECHO_BUDGET_TOKENS_PER_DAY"] = "1000000"
    with started([BINARY], addresses) as (_, public, admin):
        embed(public)
        _, text = get(f"http://{admin}/metrics")
    scraped = set(re.findall(r"^(\w+)(?:\{.*\})? ", text, re.M))
    # This series begins with the first query to a tier below memory.
    later = {"vecho_cache_lookup_duration_seconds_bucket"} | optional()
    assert named() - later <= scraped, f"not scraped: {named() - later - scraped}"
    run("promtool", "check", "metrics", input=text)


def every_referenced_label_value_exists():
    """A filter on a value that a label never has would never match."""
    rows = re.findall(r"^\| `(\w+)` \| \w+ \| (.*?) \|", (ROOT / "docs/METRICS.md").read_text(), re.M)
    labels = {}
    for name, cell in rows:
        for label in cell.split("<br>"):
            words = re.findall(r"`(\w+)`", label)
            labels.setdefault(name, {}).update({words[0]: set(words[1:])} if words else {})
    for text in [rule["expr"] for rule in rules("expr")] + [expression for _, expression in targets()]:
        for name, matchers in re.findall(r"\b(vecho_\w+)\{([^}]*)\}", text):
            name = name if name in labels else re.sub("_(bucket|sum|count)$", "", name)
            for label, values in re.findall(r'(\w+)=~?"([^"$]+)"', matchers):
                assert set(values.split("|")) <= labels[name][label], f"{name}: {label} is never {values}"


def concrete(expression):
    """Returns a query of the dashboard with values for its variables, as Grafana does."""
    for name, value in [("$__rate_interval", "5m"), ("$__range", "1h"), ("$namespace", ".*"), ("$job", ".*")]:
        expression = expression.replace(name, value)
    return expression


def promtool_parses_every_query_of_the_dashboard():
    records = [{"record": f"panel:{at}", "expr": concrete(query)} for at, (_, query) in enumerate(targets())]
    assert len(records) > 30
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dashboard.yaml"
        path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": records}]}))
        run("promtool", "check", "rules", path)


def dashboard_panels_do_not_overlap():
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        columns, lines = (range(place[at], place[at] + place[size]) for at, size in (("x", "w"), ("y", "h")))
        cells = {(x, y) for x in columns for y in lines}
        assert not cells & taken, f"{panel['title']} covers another"
        taken |= cells
    for panel, expression in targets():
        assert "namespace=~\"$namespace\", job=~\"$job\"" in expression, panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def the_chart_contains_rules_and_dashboard_unchanged():
    documents = manifests(MATRIX["standalone, all of it"])
    assert one(documents, "PrometheusRule")["spec"] == yaml.safe_load(RULES.read_text())
    carried = one(documents, "ConfigMap")
    assert json.loads(carried["data"]["vecho.json"]) == json.loads(DASHBOARD.read_text())
    assert carried["metadata"]["labels"]["grafana_dashboard"] == "1"


def adapter():
    """Returns prometheus-adapter's rules by the name of their metric."""
    rules = yaml.safe_load((CHART / "files/prometheus-adapter.yaml").read_text())["rules"]["custom"]
    return {rule["name"]["as"]: rule for rule in rules}


def asked(rule):
    """Returns the rule's query, as the adapter completes it for the pods of a namespace."""
    series = rule["seriesQuery"].partition("{")[0]
    query = rule["metricsQuery"].replace("<<.Series>>", series).replace("<<.GroupBy>>", "pod")
    return query.replace("<<.LabelMatchers>>", 'namespace="shop",pod=~"a|b"')


def autoscalers_ask_for_metrics_that_the_adapter_makes_of_exported_ones():
    targets = {"targetRequestsPerSecond": 200, "targetRequestsInFlight": 20, "targetCPU": None}
    peers = {"monitoring": [{"namespaceSelector": {}}]}
    values = {"standalone": {"autoscaling": {"enabled": True, **targets}, "networkPolicy": peers}}
    spec = one(manifests(values), "HorizontalPodAutoscaler")["spec"]
    wanted = {item["pods"]["metric"]["name"]: item["pods"]["target"] for item in spec["metrics"]}
    assert wanted == {
        "vecho_requests_per_second": {"type": "AverageValue", "averageValue": "200"},
        "vecho_requests_in_flight": {"type": "AverageValue", "averageValue": "20"},
    }
    assert spec["behavior"] == {"scaleDown": {"stabilizationWindowSeconds": 900}}
    assert set(adapter()) == set(wanted)
    for rule in adapter().values():
        assert rule["seriesQuery"].partition("{")[0] in metrics(), rule["seriesQuery"]
        assert rule["resources"]["overrides"] == {name: {"resource": name} for name in ("namespace", "pod")}
    both = {"standalone": {"autoscaling": {"enabled": True, "targetRequestsInFlight": 5}, "networkPolicy": peers}}
    kinds = [item["type"] for item in one(manifests(both), "HorizontalPodAutoscaler")["spec"]["metrics"]]
    assert kinds == ["Resource", "Pods"], "processor use stays a target unless it is null"


def the_queries_of_the_adapter_return_the_figures_of_each_pod():
    """Prometheus's own evaluator runs them on series of two pods, with 60 and 6 requests a second."""
    series = [
        {"series": f'vecho_requests_total{{namespace="shop",pod="{pod}",outcome="{outcome}"}}', "values": f"0+{step}x20"}
        for pod, step in (("a", 900), ("b", 90))
        for outcome in ("hit", "miss")
    ]
    for pod, namespace, value in (("a", "shop", 10), ("b", "shop", 1), ("a", "other", 99)):
        gauge = f'vecho_requests_in_flight{{namespace="{namespace}",pod="{pod}"}}'
        series.append({"series": gauge, "values": f"{value}x10"})
    expected = {"vecho_requests_per_second": (60, 6), "vecho_requests_in_flight": (10, 1)}
    queries = [
        {
            "expr": asked(rule),
            "eval_time": "4m30s",
            "exp_samples": [{"labels": f'{{pod="{pod}"}}', "value": value} for pod, value in zip("ab", expected[name])],
        }
        for name, rule in adapter().items()
    ]
    test = {"evaluation_interval": "30s", "tests": [{"interval": "30s", "input_series": series, "promql_expr_test": queries}]}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "adapter.yaml"
        path.write_text(yaml.safe_dump(test))
        run("promtool", "test", "rules", path)


if __name__ == "__main__":
    main(globals())
