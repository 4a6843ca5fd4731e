"""A real Prometheus scrapes real vechos, loads the rules of the chart, and detects faults."""

import contextlib
import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from common import BINARY, embed, get, main, started
from monitoring import RULES, concrete, named, optional, rules, targets

DEADLINE = 60
# Labels that a PodMonitor adds to its targets.
LABELS = {"namespace": "shop", "container": "vecho"}


class Server:
    """Client of Prometheus's own API."""

    def __init__(self, address):
        self.address = address

    def ask(self, route, **parameters):
        url = f"http://{self.address}/api/v1/{route}?{urllib.parse.urlencode(parameters)}"
        answer = json.loads(get(url)[1])
        assert answer["status"] == "success" and not answer.get("warnings"), answer
        return answer["data"]

    def query(self, expression):
        """Returns the samples of an instant query, as (labels, value)."""
        return [(item["metric"], float(item["value"][1])) for item in self.ask("query", query=expression)["result"]]

    def value(self, expression):
        """Returns the only value of an expression, or None if it has none yet."""
        samples = self.query(expression)
        assert len(samples) <= 1, samples
        return samples[0][1] if samples else None

    def firing(self):
        """Returns the firing alerts, as (the pod in the job's name, alert)."""
        alerts = [alert["labels"] for alert in self.ask("alerts")["alerts"] if alert["state"] == "firing"]
        return {(labels["job"].removeprefix("shop/"), labels["alertname"]) for labels in alerts}


def becomes(what, told):
    """Polls until the answer is true, and returns it."""
    begun = time.monotonic()
    while not (answer := told()):
        assert time.monotonic() - begun < DEADLINE, f"not within {DEADLINE} s: {what}"
        time.sleep(0.2)
    return answer


@contextlib.contextmanager
def prometheus(pods, rule_file=RULES):
    """Runs a Prometheus that scrapes these ops ports, by name of pod, each second."""
    with tempfile.TemporaryDirectory() as folder:
        jobs = [
            {"job_name": f"shop/{pod}", "static_configs": [{"targets": [address], "labels": LABELS | {"pod": pod}}]}
            for pod, address in pods.items()
        ]
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(rule_file)],
            "scrape_configs": jobs,
        }
        path = Path(folder) / "prometheus.yml"
        path.write_text(yaml.safe_dump(config))
        with configured(path) as server:
            yield server


@contextlib.contextmanager
def configured(path):
    """Runs a Prometheus with this configuration. Its data is removed at the end."""
    assert shutil.which("prometheus"), "prometheus is missing: run `bash scripts/setup-tests`"
    with tempfile.TemporaryDirectory() as folder:
        line = ["prometheus", f"--config.file={path}", f"--storage.tsdb.path={folder}/data"]
        process = subprocess.Popen([*line, "--web.listen-address=127.0.0.1:0"], stderr=subprocess.PIPE, text=True)
        ended = threading.Timer(3 * DEADLINE, process.kill)
        ended.start()
        try:
            yield Server(serving(process))
        finally:
            process.kill()
            process.wait()
            ended.cancel()


def serving(process):
    """Returns its address once it is ready. A thread reads the rest of its log, so the process never blocks on it."""
    log, address = "", None
    for text in process.stderr:
        log += text
        found = re.search(r'msg="Listening on" address=(\S+)', text)
        address = found[1] if found else address
        if "Server is ready" in text:
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return address
    raise AssertionError(f"prometheus ended with {process.wait()}:\n{log}")


def vecho(settings):
    own = {"VECHO_LISTEN": "127.0.0.1:0", "VECHO_ADMIN_LISTEN": "127.0.0.1:0", "VECHO_DISK_ENABLED": "false"}
    return started([BINARY], own | settings)


# The series after 400 requests for 100 texts, four times each. Each text is fetched once.
SENT = {
    "sum(vecho_inputs_total)": 400,
    'vecho_inputs_total{source="upstream"}': 100,
    'sum(vecho_inputs_total{source=~"memory|joined"})': 300,
    'sum(vecho_requests_total{route="embeddings"})': 400,
    "sum(vecho_request_duration_seconds_count)": 400,
    'sum(vecho_request_duration_seconds_bucket{le="+Inf"})': 400,
    "sum(vecho_upstream_call_inputs_sum)": 100,
    'vecho_cache_entries{tier="memory"}': 100,
    'sum(vecho_tokens_total{kind="saved"}) / sum(vecho_tokens_total{kind="billed"})': 3,
}


def a_scrape_under_load_has_the_right_values():
    """Prometheus has the same counts as the test, and every panel of the dashboard has a result."""
    texts = [f"text {at % 100}" for at in range(400)]
    with tempfile.TemporaryDirectory() as folder:
        disk = {"VECHO_DISK_ENABLED": "true", "VECHO_DISK_PATH": folder, "VECHO_BUDGET_TOKENS_PER_DAY": "1000000"}
        with vecho({"VECHO_UPSTREAM_URL": "mock:"} | disk) as (_, public, admin), prometheus({"app-1": admin}) as server:
            becomes("the target is up", lambda: server.value("up") == 1)
            before = server.value("process_cpu_seconds_total")
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda text: embed(public, text), texts))
            for expression, value in SENT.items():
                becomes(f"{expression} is {value}", lambda: server.value(expression) == value)
            assert server.value("process_cpu_seconds_total") > before
            assert abs(server.value("process_start_time_seconds") - time.time()) < DEADLINE
            assert_names(server)
            assert_rules(server)
            assert_panels(server)


def assert_names(server):
    """Checks that every metric in the rules, the runbook and the dashboard exists."""
    there = set(server.ask("label/__name__/values"))
    wanted = named() - optional()
    assert wanted <= there, f"not in Prometheus: {wanted - there}"


def assert_rules(server):
    """Checks that every rule has been evaluated without an error."""
    def evaluated():
        groups = server.ask("rules")["groups"]
        return [rule for group in groups for rule in group["rules"]] if all(done(group) for group in groups) else None

    def done(group):
        return all(rule["health"] != "unknown" for rule in group["rules"])

    live = becomes("every rule is evaluated", evaluated)
    assert [rule for rule in live if rule["health"] != "ok" or rule.get("lastError")] == []
    assert {rule["name"] for rule in live} == {rule.get("alert") or rule["record"] for rule in rules("expr")}
    assert not server.firing(), "nothing is wrong"
    ratio = "vecho:hit_ratio:rate30m"
    becomes("three of four hit", lambda: 0.7 < (server.value(ratio) or 0) < 0.8)


def assert_panels(server):
    """Checks that every query of the dashboard runs, and has a result unless it only shows faults or an optional feature."""
    for panel, expression in targets():
        if "> 0" in expression or any(name in expression for name in optional()):
            server.query(concrete(expression))
        else:
            # A rate needs two scrapes of a series, and some series begin with the first request.
            becomes(f"{panel['title']} shows something: {expression}", lambda: server.query(concrete(expression)))


class Upstream(http.server.BaseHTTPRequestHandler):
    """Answers every embeddings request with the same vector for each input, or with the server's `status`."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))["input"]
        count = len(asked) if isinstance(asked, list) else 1
        vectors = [{"object": "embedding", "index": place, "embedding": [0.6, 0.8]} for place in range(count)]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        answer = {"object": "list", "data": vectors, "model": "tiny", "usage": usage}
        error = {"error": {"message": "no", "type": "server_error", "param": None, "code": None}}
        body = json.dumps(answer if self.server.status == 200 else error).encode()
        self.send_response(self.server.status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def upstream(status):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    server.status = status
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def url(server):
    return {"VECHO_UPSTREAM_URL": f"http://127.0.0.1:{server.server_port}/v1", "VECHO_RETRY_MAX_ATTEMPTS": "1"}


def beside(unreachable, server):
    """Returns the settings for two targets, of which the first cannot be reached."""
    urls = {"unreachable": unreachable, "reachable": f"http://127.0.0.1:{server.server_port}/v1"}
    targets = [{"name": name, "url": address, "api_key": "sk-test"} for name, address in urls.items()]
    return {"VECHO_UPSTREAM_URL": unreachable, "VECHO_TARGETS": json.dumps(targets), "VECHO_BREAKER_FAILURES": "1"}


def refused(public, text):
    """Sends a request that must fail."""
    try:
        embed(public, text)
    except AssertionError:
        return
    raise AssertionError(f"{text!r} is answered")


def impatient(folder):
    """Writes the rules without `for`: an alert fires after one evaluation."""
    groups = yaml.safe_load(RULES.read_text())
    for rule in (rule for group in groups["groups"] for rule in group["rules"]):
        rule.pop("for", None)
    path = Path(folder) / "alerts.yaml"
    path.write_text(yaml.safe_dump(groups))
    return path


# The alerts of each fault. No other alert may fire.
FAULTS = {
    "mocks": {"VechoServingMocks", "VechoBreakerOpen"},
    "errors": {"VechoErrorRateHigh", "VechoErrorBudgetBurnsFast", "VechoErrorBudgetBurnsSlowly"},
    "stale": {"VechoServingStale"},
    "key": {"VechoUpstreamRefuses"},
    "target": {"VechoTargetBreakerOpen"},
    "tier": {"VechoTierDown"},
    "file": {"VechoReloadFailed"},
    "memory": {"VechoMemoryNearLimit"},
    "down": {"VechoDown"},
    "well": set(),
}


def each_fault_fires_its_alerts_and_no_other():
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        good, other, bad, strict = (stack.enter_context(upstream(status)) for status in (200, 200, 503, 401))
        file = Path(folder) / "vecho.toml"
        file.write_text("[retry]\nmax_attempts = 1\n")
        settings = {
            "mocks": {"VECHO_UPSTREAM_URL": "http://127.0.0.1:1/v1", "VECHO_FALLBACK_MODE": "mock", "VECHO_BREAKER_FAILURES": "1"},
            "errors": url(bad) | {"VECHO_FALLBACK_MODE": "error", "VECHO_BREAKER_FAILURES": "1"},
            "stale": url(good) | {"VECHO_CACHE_TTL": "1s", "VECHO_BREAKER_FAILURES": "0"},
            "key": url(strict),
            "target": beside("http://127.0.0.1:1/v1", other),
            "tier": {"VECHO_REDIS_URL": "redis://127.0.0.1:1"},
            "file": {"VECHO_CONFIG": str(file)},
            # The stacks of this many threads alone almost reach the limit.
            "memory": {"VECHO_MEMORY_LIMIT_MB": "32", "VECHO_WORKERS": "1024"},
        }
        running = {}
        ends = contextlib.ExitStack()
        stack.push(ends)
        for pod in FAULTS:
            owner = ends if pod == "down" else stack
            running[pod] = owner.enter_context(vecho({"VECHO_UPSTREAM_URL": "mock:"} | settings.get(pod, {})))
        pods = {pod: admin for pod, (_, _, admin) in running.items()}
        server = stack.enter_context(prometheus(pods, impatient(folder)))
        becomes("all are up", lambda: server.value("count(up == 1)") == len(FAULTS))
        file.write_text("nonsense = 1\n")
        os.kill(running["file"][0], signal.SIGHUP)
        embed(running["stale"][1], "known")
        good.status = 503
        ends.close()

        def all_fire():
            # Rates are above zero only while the faults continue.
            ask(running)
            return server.firing() == {(pod, alert) for pod, alerts in FAULTS.items() for alert in alerts}

        try:
            becomes("each fault fires its alerts", all_fire)
        except AssertionError as error:
            raise AssertionError(f"{error}: {sorted(server.firing())}") from None


def ask(running):
    text = str(time.monotonic())
    for pod in ("mocks", "well", "tier", "target"):
        embed(running[pod][1], text)
    for pod in ("errors", "key"):
        refused(running[pod][1], text)
    embed(running["stale"][1], "known")
    embed(running["memory"][1], "known")


if __name__ == "__main__":
    main(globals())
