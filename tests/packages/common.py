"""Shared parts of the checks: packing, running commands without a network, and a first hit."""

import contextlib
import functools
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import traceback
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "packaging"))
SERVING = re.compile(r"public=([\d.:]+) admin=([\d.:]+)")
ARGUMENTS = "--upstream mock: --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 --set disk.enabled=false".split()

# Nothing may be downloaded: an address without a server takes the place of every registry and proxy.
NOWHERE = "http://127.0.0.1:9"
OFFLINE = {
    "PIP_NO_INDEX": "1",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "npm_config_offline": "true",
    "npm_config_registry": NOWHERE,
    "npm_config_update_notifier": "false",
    "HTTPS_PROXY": NOWHERE,
    "HTTP_PROXY": NOWHERE,
    "NO_PROXY": "127.0.0.1",
}


def environment(home):
    """Returns an environment without caches or settings of this machine."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "RUSTUP_HOME", "CARGO_HOME") if name in os.environ}
    return kept | OFFLINE | {"HOME": str(home), "npm_config_cache": f"{home}/npm"}


def run(*command, status=0, **options):
    """Returns the standard output; with another status than 0 the standard error."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    assert done.returncode == status, f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stderr if status else done.stdout


@contextlib.contextmanager
def folder():
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


@functools.cache
def program():
    """Returns the bytes of the tests' own program. Without its symbols, as in a release, it packs in a fifth of the time."""
    with folder() as path:
        run("strip", "-o", path / "vecho", os.environ["VECHO"])
        return (path / "vecho").read_bytes()


@functools.cache
def legal_files():
    return {"LICENSE": b"licence", "THIRD-PARTY.txt": b"notices", "vecho.cdx.json": b"{}"}


def written(path, package):
    """Writes a package, which is a file name and content, into a folder, and returns its path."""
    name, content = package
    (path / name).write_bytes(content)
    return path / name


@contextlib.contextmanager
def started(command, env):
    """Runs a vecho and yields its process and the address of its public port."""
    line = [*map(str, command), *ARGUMENTS]
    process = subprocess.Popen(line, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    ended = threading.Timer(60, process.kill)
    ended.start()
    try:
        log = ""
        for line in process.stderr:
            log += line
            if found := SERVING.search(line):
                break
        else:
            raise AssertionError(f"it ended with {process.wait()} before it listened: {log}")
        yield process, found[1]
    finally:
        # After a failed check. A launcher that is killed would leave its program behind.
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        process.kill()
        process.wait()
        ended.cancel()


def embed(public):
    """Returns the state of the cache that a request found."""
    body = json.dumps({"model": "text-embedding-3-small", "dimensions": 8, "input": "hello"}).encode()
    request = urllib.request.Request(f"http://{public}/v1/embeddings", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert len(json.load(answer)["data"][0]["embedding"]) == 8
        return answer.headers["x-vecho-cache"]


def serves(command, env):
    """Checks that a command tells its version, answers a second request from the cache, and stops in order."""
    from project import VERSION

    assert run(*command, "--version", env=env) == f"vecho {VERSION}\n"
    with started(command, env) as (process, public):
        assert (embed(public), embed(public)) == ("miss", "hit")
        process.terminate()
        assert process.wait() == 0, "it has to stop in order"


def main(checks):
    """Runs the checks that are named on the command line, one after another, and ends with the names of the failed ones."""
    failed = []
    for name in sys.argv[1:]:
        try:
            checks[name]()
        except Exception:
            traceback.print_exc()
            failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")
