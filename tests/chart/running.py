"""The manifests with the real binary: configuration, arguments, probes, shutdown."""

import json
import runpy
import subprocess
import tempfile
import tomllib
from pathlib import Path

from common import BINARY, ROOT, containers, everything, get, main, pods, started


def command(container, folder):
    """Returns a container's command line and environment, with its paths in `folder` and its ports on loopback."""
    moved = {"/etc/vecho": f"{folder}/etc", "/var/cache/vecho": f"{folder}/cache"}

    def move(text):
        for old, new in moved.items():
            text = text.replace(old, new)
        return text

    environment = {item["name"]: move(item["value"]) for item in container["env"]}
    for mount in container.get("volumeMounts", []):
        Path(move(mount["mountPath"])).mkdir(parents=True, exist_ok=True)
    for value in environment.values():
        if value.startswith(f"{folder}/etc/secrets"):
            Path(value).write_text("sk-test")
    for target in json.loads(environment.get("VECHO_TARGETS", "[]")):
        if "api_key_file" in target:
            Path(target["api_key_file"]).write_text(f"sk-{target['name']}")
    arguments = [move(argument) for argument in container.get("args", [])]
    for path in (argument for argument in arguments if argument.startswith("/")):
        Path(path).write_text('[retry]\nmax_wait = "4s"\n')
    return [BINARY, *container.get("command", [])[1:], *arguments], environment


def cases():
    for label, documents in everything():
        for pod in pods(documents):
            for container in containers(pod):
                with tempfile.TemporaryDirectory() as folder:
                    yield label, container, *command(container, folder)


def the_binary_accepts_every_configuration():
    told = {}
    for label, _, line, environment in cases():
        done = subprocess.run([*line, "check"], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{label}: {done.stdout}{done.stderr}"
        told[label] = subprocess.run([*line, "config"], env=environment, capture_output=True, text=True, check=True).stdout
    assert len(told) > 8
    full = told["standalone, all of it"]
    for said in ("16777216", "67108864", "0.1", "x-portkey-provider", "rediss://redis:6380/0", "[::]:7862", "4s"):
        assert said in full, f"{said} is lost in\n{full}"
    targets = told["standalone with targets"]
    for said in ("azure-east.2", "https://name.openai.azure.com:8443/openai/v1", "1000000", "my-deployment"):
        assert said in targets, f"{said} is lost in\n{targets}"


def enumerated_values_of_the_schema_equal_those_of_the_binary():
    script = runpy.run_path(str(ROOT / "scripts/chart"))
    for key, words in script["WORDS"].items():
        for word in [*words, "something-else"]:
            line = [BINARY, "check", "--set", f"{key}={word}", "--set", "upstream.api_key=sk-test"]
            if word == "credential":
                line = line[:-2]
            done = subprocess.run(line, env={}, capture_output=True, text=True)
            assert (done.returncode == 0) == (word in words), f"{key} = {word}: {done.stderr}"
    known = tomllib.loads((ROOT / "config/vecho.toml").read_text())
    assert {key.split(".")[0] for key in script["WORDS"]} <= set(known)


def every_container_starts_answers_its_probes_and_stops():
    for label, container, line, environment in cases():
        environment |= {"VECHO_LISTEN": "127.0.0.1:0", "VECHO_ADMIN_LISTEN": "127.0.0.1:0"}
        environment.pop("VECHO_REDIS_URL", None)
        with started(line, environment) as (_, _, address):
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                status, _ = get(f"http://{address}{container[probe]['httpGet']['path']}")
                assert status == 200, f"{label}: {probe}"


if __name__ == "__main__":
    main(globals())
