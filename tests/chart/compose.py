"""The Compose example: Compose reads it, its files fit each other, and Prometheus scrapes a real vecho by its file."""

import json
import os
import re
import tempfile
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

import yaml

from common import BINARY, CHART, ROOT, embed, main, run, started
from prometheus import becomes, concrete, configured, rules, targets

EXAMPLE = ROOT / "examples/compose"
PROVISIONING = EXAMPLE / "grafana/provisioning"


def accepted(**variables):
    """Returns the project as Compose prints it after it has checked it. No container engine is asked."""
    search = {"PATH": os.environ["PATH"], "HOME": "/"}
    return run("docker-compose", "-f", EXAMPLE / "compose.yaml", "config", env=search | variables)


def services():
    return yaml.safe_load((EXAMPLE / "compose.yaml").read_text())["services"]


def mounts(service):
    """Returns the files and folders of this repository that a service mounts, by their path in the container."""
    entries = [volume.split(":") for volume in services()[service]["volumes"]]
    return {entry[1]: (EXAMPLE / entry[0]).resolve() for entry in entries if entry[0].startswith(".") and entry[2] == "ro"}


def ports(service):
    """Returns the published ports, by port of the container. All of them are on loopback."""
    published = [entry.split(":") for entry in services()[service]["ports"]]
    assert {address for address, _, _ in published} == {"127.0.0.1"}, published
    return {int(inner): int(outer) for _, outer, inner in published}


def variables():
    """Returns the variables of vecho's container, without one of the environment."""
    texts = {name: str(value) for name, value in services()["vecho"]["environment"].items()}
    return {name: re.sub(r"^\$\{\w+:-(.*)\}$", r"\1", text) for name, text in texts.items()}


def compose_reads_the_project():
    assert "VECHO_UPSTREAM_URL: https://api.openai.com/v1" in accepted(), "real vectors unless asked otherwise"
    assert re.search("VECHO_UPSTREAM_URL: ['\"]?mock:", accepted(VECHO_UPSTREAM_URL="mock:"))
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    found = services()
    assert set(found) == {"vecho", "prometheus", "grafana"}
    assert (found["vecho"]["image"], (EXAMPLE / found["vecho"]["build"]).resolve()) == (f"vecho:{version}", ROOT)
    for name in ("prometheus", "grafana"):
        assert re.search(r":v?\d+\.\d+\.\d+$", found[name]["image"]), "a version, not a moving tag"


def every_mounted_file_exists():
    for service in ("prometheus", "grafana"):
        assert len(mounts(service)) == 2
        for target, source in mounts(service).items():
            assert source.exists() and source.is_relative_to(ROOT), f"{service}: {target} is {source}"
    (cache,) = [volume.split(":")[1] for volume in services()["vecho"]["volumes"]]
    assert f"VECHO_DISK_PATH={cache}" in (ROOT / "Dockerfile").read_text(), "the disk tier is on the volume"


def vecho_runs_with_the_variables_of_the_service():
    """Its ports, variables and grace period are those of the program, which starts with them."""
    vecho, environment = services()["vecho"], variables()
    listening = [int(environment[name].rpartition(":")[2]) for name in ("VECHO_LISTEN", "VECHO_ADMIN_LISTEN")]
    assert sorted(ports("vecho")) == listening == [7861, 7862]
    with tempfile.TemporaryDirectory() as folder:
        environment["VECHO_DISK_PATH"] = folder
        run(BINARY, "check", env=environment)
        shown = run(BINARY, "config", env=environment)
    grace = int(re.search(r'grace = "(\d+)s"', shown)[1])
    assert int(vecho["stop_grace_period"].removesuffix("s")) > grace
    limit = int(vecho["mem_limit"].removesuffix("m"))
    assert limit * 4 // 5 >= int(re.search(r"limit_mb = (\d+)", shown)[1])


def the_dashboard_opens_with_the_token_of_the_guide():
    """Through a published port no peer is loopback, so only the token of the service opens the figures."""
    (token,) = re.findall(r"enter the token `(\w+)`", (ROOT / "docs/guides/compose.md").read_text())
    settings = variables() | {"VECHO_LISTEN": "127.0.0.1:0", "VECHO_ADMIN_LISTEN": "127.0.0.1:0", "VECHO_UPSTREAM_URL": "mock:"}
    with tempfile.TemporaryDirectory() as folder:
        settings["VECHO_DISK_PATH"] = f"{folder}/cache"
        with started([BINARY], settings) as (_, _, admin):
            assert [asked(admin, sent) for sent in (token, "another")] == [200, 403]


def asked(admin, token):
    """Returns the status of the dashboard's data."""
    request = urllib.request.Request(f"http://{admin}/api/dashboard", headers={"x-vecho-admin-token": token})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def promtool_accepts_the_configuration():
    with tempfile.TemporaryDirectory() as folder:
        run("promtool", "check", "config", placed(Path(folder), "vecho:7862"))


def placed(folder, target):
    """Writes Prometheus's configuration with the paths of this machine in place of those of the container."""
    files = mounts("prometheus")
    text = files["/etc/prometheus/prometheus.yml"].read_text()
    assert "/etc/prometheus/alerts.yaml" in text and "vecho:7862" in text
    text = text.replace("/etc/prometheus/alerts.yaml", str(files["/etc/prometheus/alerts.yaml"]))
    path = folder / "prometheus.yml"
    path.write_text(text.replace("vecho:7862", target))
    return path


def prometheus_shows_vecho_on_the_dashboard():
    """Prometheus runs with the configuration of the example, scrapes a vecho, and answers queries of the dashboard."""
    settings = variables() | {"VECHO_LISTEN": "127.0.0.1:0", "VECHO_ADMIN_LISTEN": "127.0.0.1:0", "VECHO_UPSTREAM_URL": "mock:"}
    with tempfile.TemporaryDirectory() as folder:
        settings["VECHO_DISK_PATH"] = f"{folder}/cache"
        with started([BINARY], settings) as (_, public, admin):
            # The example scrapes every ten seconds, which is long for a test.
            path = placed(Path(folder), admin)
            path.write_text(path.read_text().replace("10s", "1s"))
            with configured(path) as server:
                becomes("the target is up", lambda: server.value('up{job="vecho",namespace="compose",pod="vecho"}') == 1)
                embed(public)
                embed(public)
                becomes("a hit is counted", lambda: server.value('vecho_requests_total{route="embeddings",outcome="hit"}') == 1)
                labels = server.query('vecho_ready{namespace="compose",job="vecho"}')
                assert labels, "the variables of the dashboard have values"
                groups = server.ask("rules")["groups"]
                loaded = {rule["name"] for group in groups for rule in group["rules"]}
                assert loaded == {rule.get("alert") or rule["record"] for rule in rules("expr")}
                ready = [query for _, query in targets() if "vecho_requests_total" in query]
                assert ready
                for query in ready:
                    server.query(concrete(query))


def grafana_finds_its_data_source_and_the_dashboard():
    files = mounts("grafana")
    assert files["/etc/grafana/provisioning"] == PROVISIONING
    (source,) = yaml.safe_load((PROVISIONING / "datasources/prometheus.yaml").read_text())["datasources"]
    (port,) = ports("prometheus")
    assert (source["type"], source["url"]) == ("prometheus", f"http://prometheus:{port}") and source["isDefault"]
    interval = yaml.safe_load((EXAMPLE / "prometheus.yaml").read_text())["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == interval
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards/vecho.yaml").read_text())["providers"]
    home = services()["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert provider["type"] == "file" and home.startswith(provider["options"]["path"] + "/")
    assert files[home] == CHART / "files/dashboard.json"
    dashboard = json.loads(files[home].read_text())
    (variable,) = [entry for entry in dashboard["templating"]["list"] if entry["type"] == "datasource"]
    assert variable["query"] == source["type"], "the dashboard's data source is of this type"
    assert dashboard["uid"] and dashboard["title"] == "vecho"


if __name__ == "__main__":
    main(globals())
