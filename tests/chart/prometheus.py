"""A real Prometheus that scrapes real vechos, loads the rules as the chart carries them, and sees faults."""

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
from monitoring import RULES, concrete, named, rules, targets

DEADLINE = 60
# Labels that a PodMonitor gives to its targets.
LABELS = {"namespace": "shop", "container": "vecho"}


class Server:
    """Prometheus's own API."""

    def __init__(self, address):
        self.address = address

    def ask(self, route, **parameters):
        url = f"http://{self.address}/api/v1/{route}?{urllib.parse.urlencode(parameters)}"
        answer = json.loads(get(url)[1])
        assert answer["status"] == "success" and not answer.get("warnings"), answer
        return answer["data"]

    def query(self, expression):
        """The samples of an instant query, as (labels, value)."""
        return [(item["metric"], float(item["value"][1])) for item in self.ask("query", query=expression)["result"]]

    def value(self, expression):
        """The one value of an expression; None while there is none."""
        samples = self.query(expression)
        assert len(samples) <= 1, samples
        return samples[0][1] if samples else None

    def firing(self):
        """The alerts that fire, as (pod or the pod in the job's name, alert)."""
        alerts = [alert["labels"] for alert in self.ask("alerts")["alerts"] if alert["state"] == "firing"]
        return {(labels["job"].removeprefix("shop/"), labels["alertname"]) for labels in alerts}


def becomes(what, told):
    """Asks again until the answer is true; gives it back."""
    begun = time.monotonic()
    while not (answer := told()):
        assert time.monotonic() - begun < DEADLINE, f"not within {DEADLINE} s: {what}"
        time.sleep(0.2)
    return answer


@contextlib.contextmanager
def prometheus(pods, rule_file=RULES):
    """One that scrapes these ops ports, by the names of their pods, each second; gone afterwards, and its data too."""
    assert shutil.which("prometheus"), "prometheus is missing: run `bash scripts/setup-tests`"
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
    """Its address, once it takes requests; what it logs afterwards is read, so that it never waits for a reader."""
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


# What 400 requests for 100 texts, four times each, leave behind: each text is fetched once.
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
    """What was sent, counted by hand, is what Prometheus has of it, and every panel of the dashboard has an answer."""
    texts = [f"text {at % 100}" for at in range(400)]
    with tempfile.TemporaryDirectory() as folder:
        disk = {"VECHO_DISK_ENABLED": "true", "VECHO_DISK_PATH": folder}
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
    """Whatever a rule, the runbook or the dashboard names is there."""
    there = set(server.ask("label/__name__/values"))
    assert named() <= there, f"not in Prometheus: {named() - there}"


def assert_rules(server):
    """It has evaluated every rule, and none with an error."""
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
    """Every query of the dashboard runs, and finds something, but for those that show trouble alone."""
    for panel, expression in targets():
        if "> 0" in expression:
            server.query(concrete(expression))
        else:
            # A rate needs two scrapes of a series, and some begin with the first request.
            becomes(f"{panel['title']} shows something: {expression}", lambda: server.query(concrete(expression)))


class Upstream(http.server.BaseHTTPRequestHandler):
    """Answers every request for embeddings with one vector, or with the server's `status`."""

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        vector = {"object": "embedding", "index": 0, "embedding": [0.6, 0.8]}
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        answer = {"object": "list", "data": [vector], "model": "tiny", "usage": usage}
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


def refused(public, text):
    """Asks for what ends in an error."""
    try:
        embed(public, text)
    except AssertionError:
        return
    raise AssertionError(f"{text!r} is answered")


def impatient(folder):
    """The rules without their patience: what holds at one evaluation fires."""
    groups = yaml.safe_load(RULES.read_text())
    for rule in (rule for group in groups["groups"] for rule in group["rules"]):
        rule.pop("for", None)
    path = Path(folder) / "alerts.yaml"
    path.write_text(yaml.safe_dump(groups))
    return path


# What fires for each fault, and nothing else may.
FAULTS = {
    "mocks": {"VechoServingMocks", "VechoBreakerOpen"},
    "errors": {"VechoErrorRateHigh", "VechoErrorBudgetBurnsFast", "VechoErrorBudgetBurnsSlowly"},
    "stale": {"VechoServingStale"},
    "key": {"VechoUpstreamRefuses"},
    "tier": {"VechoTierDown"},
    "file": {"VechoReloadFailed"},
    "memory": {"VechoMemoryNearLimit"},
    "down": {"VechoDown"},
    "well": set(),
}


def each_fault_fires_its_alerts_and_no_other():
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        good, bad, strict = (stack.enter_context(upstream(status)) for status in (200, 503, 401))
        file = Path(folder) / "vecho.toml"
        file.write_text("[retry]\nmax_attempts = 1\n")
        settings = {
            "mocks": {"VECHO_UPSTREAM_URL": "http://127.0.0.1:1/v1", "VECHO_FALLBACK_MODE": "mock", "VECHO_BREAKER_FAILURES": "1"},
            "errors": url(bad) | {"VECHO_FALLBACK_MODE": "error", "VECHO_BREAKER_FAILURES": "1"},
            "stale": url(good) | {"VECHO_CACHE_TTL": "1s", "VECHO_BREAKER_FAILURES": "0"},
            "key": url(strict),
            "tier": {"VECHO_REDIS_URL": "redis://127.0.0.1:1"},
            "file": {"VECHO_CONFIG": str(file)},
            # The stacks of so many threads alone are near the limit.
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
            # Rates need the trouble to go on.
            ask(running)
            return server.firing() == {(pod, alert) for pod, alerts in FAULTS.items() for alert in alerts}

        try:
            becomes("each fault fires its alerts", all_fire)
        except AssertionError as error:
            raise AssertionError(f"{error}: {sorted(server.firing())}") from None


def ask(running):
    text = str(time.monotonic())
    for pod in ("mocks", "well", "tier"):
        embed(running[pod][1], text)
    for pod in ("errors", "key"):
        refused(running[pod][1], text)
    embed(running["stale"][1], "known")
    embed(running["memory"][1], "known")


if __name__ == "__main__":
    main(globals())
