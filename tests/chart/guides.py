"""The guides: their commands fit the chart and the example, and their programs run against a real vecho."""

import contextlib
import json
import os
import re
import shlex
import subprocess
import tempfile
import tomllib

import helm_python as helm

from common import BINARY, CHART, ROOT, hooks, main, manifests, one, pods, render, run, started

GUIDES = ROOT / "docs/guides"
NOTEBOOK = ROOT / "examples/notebook/embeddings.ipynb"
PYTHON = ROOT / "target/test-env/py/bin/python"
PUBLIC, OPS = "127.0.0.1:7861", "127.0.0.1:7862"


def blocks(guide):
    """Returns the code blocks of a guide, as (language, text)."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", (GUIDES / guide).read_text(), re.M | re.S)


def commands(guide):
    """Returns the words of each command of a guide."""
    text = "".join(block for language, block in blocks(guide) if not language).replace("\\\n", "")
    return [shlex.split(line) for line in text.splitlines()]


@contextlib.contextmanager
def vecho():
    """Runs a vecho with the built-in mock as upstream, as `make run` does."""
    listen = {"VECHO_LISTEN": "127.0.0.1:0", "VECHO_ADMIN_LISTEN": "127.0.0.1:0"}
    line = [BINARY, "--upstream", "mock:", "--set", "disk.enabled=false"]
    with started(line, listen) as (_, public, admin):
        yield public, admin


def python(program, public, admin):
    """Runs a program with the client libraries of the tests, and returns its output."""
    assert PYTHON.exists(), "the client libraries are not installed: run `bash scripts/setup-tests`"
    with tempfile.TemporaryDirectory() as folder:
        # Proxies of the machine do not apply, and no library finds another configuration.
        search = {"PATH": os.environ["PATH"], "HOME": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        program = program.replace(PUBLIC, public).replace(OPS, admin)
        done = subprocess.run([PYTHON, "-c", program], env=search, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{program}\n{done.stdout}{done.stderr}"
    return done.stdout


def requested(guide):
    """Runs the guide's request twice with curl, and returns the values of `x-vecho-cache`."""
    (request,) = [line for line in commands(guide) if line[0] == "curl"]
    with vecho() as (public, _):
        line = [word.replace(PUBLIC, public) for word in request]
        return [re.search(r"^x-vecho-cache: (\w+)", run(*line), re.M)[1] for _ in range(2)]


def the_requests_of_the_guides_miss_and_then_hit():
    for guide in ("compose.md", "kubernetes.md"):
        assert requested(guide) == ["miss", "hit"], guide


def the_compose_guide_uses_the_example_and_its_ports():
    example = ROOT / "examples/compose/compose.yaml"
    lines = [line for line in commands("compose.md") if "docker" in line]
    assert len(lines) == 2
    assert lines[0][0] == "VECHO_UPSTREAM_URL=mock:", "the first start needs no key"
    for line in lines:
        words = line[line.index("docker") :]
        assert words[:3] == ["docker", "compose", "-f"] and ROOT / words[3] == example, words
        assert words[4] == "up"
    published = set(re.findall(r'"127\.0\.0\.1:(\d+):', example.read_text()))
    text = (GUIDES / "compose.md").read_text()
    assert set(re.findall(r"http://127\.0\.0\.1:(\d+)", text)) == published
    (needed,) = re.findall(r"free ports ([\d, and]+)\.", text)
    assert set(re.findall(r"\d+", needed)) == published


def the_kubernetes_guide_installs_what_it_then_calls():
    """Renders the chart with the values of each command; objects and keys that later commands name must exist."""
    lines, values, secrets = commands("kubernetes.md"), {}, {}
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    assert ["docker", "build", "-t", f"vecho:{version}", "."] in lines
    assert ["kind", "load", "docker-image", f"vecho:{version}", "--name", "vecho"] in lines
    for line in lines:
        if line[0] == "helm" and line[1] in {"install", "upgrade"}:
            assert line[2] == "vecho" and ROOT / line[3] == CHART, line
            for option, value in zip(line, line[1:]):
                if option == "--set":
                    merge(values, helm.parse_set_string(value))
            documents = manifests(values, name="vecho")
            assert {item["image"] for item in pods(documents)[0]["spec"]["containers"]} == {f"vecho:{version}"}
        elif line[:2] == ["helm", "test"]:
            assert line[2] == "vecho" and one(hooks(values, name="vecho"), "Pod")
        elif line[:2] == ["kubectl", "port-forward"]:
            kind, _, name = line[2].partition("/")
            service = one(documents, kind.capitalize())
            assert service["metadata"]["name"] == name
            assert int(line[3]) in {port["port"] for port in service["spec"]["ports"]}
        elif line[:4] == ["kubectl", "create", "secret", "generic"]:
            secrets[line[4]] = {word.split("=")[1] for word in line if word.startswith("--from-literal")}
    file = values["secrets"]["upstream"]["api_key_file"]
    assert file["key"] in secrets[file["name"]]
    (address,) = [word for line in lines for word in line if word.startswith("OPENAI_BASE_URL=")]
    notes = render(values, name="vecho")["vecho/templates/NOTES.txt"]
    # The chart's checks use the namespace `shop`, and a new cluster has `default`.
    assert address.partition("=")[2].replace(".default", ".shop") in notes


def merge(values, more):
    for name, value in more.items():
        if isinstance(value, dict):
            merge(values.setdefault(name, {}), value)
        else:
            values[name] = value


def the_cells_of_the_notebook_run_in_order():
    program = "\n".join("".join(cell["source"]) for cell in cells("code"))
    with vecho() as (public, admin):
        first, again = (python(program, public, admin).splitlines() for _ in range(2))
    billed = [re.sub(r", [\d.]+ ms$", "", line) for line in first]
    assert [line.split(":")[0] for line in billed] == ["miss", "hit", "partial", "miss", "The library is open from nine to five."]
    assert "billed=0" in billed[1] and "saved=0" not in billed[1]
    assert [line.split(":")[0] for line in again[:4]] == ["hit"] * 4, "a second run costs nothing"


def cells(kind):
    return [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == kind]


def the_notebook_has_the_form_of_version_4():
    """The fields that nbformat 4.5 requires, and no outputs of somebody's machine."""
    notebook = json.loads(NOTEBOOK.read_text())
    assert set(notebook) == {"cells", "metadata", "nbformat", "nbformat_minor"}
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"]["kernelspec"].keys() >= {"name", "display_name"}
    names = [cell["id"] for cell in notebook["cells"]]
    assert len(set(names)) == len(names) and all(re.fullmatch(r"[a-zA-Z0-9-_]{1,64}", name) for name in names)
    assert len(cells("code")) + len(cells("markdown")) == len(names)
    for cell in notebook["cells"]:
        fields = {"cell_type", "id", "metadata", "source"}
        assert set(cell) == fields | ({"outputs", "execution_count"} if cell["cell_type"] == "code" else set())
        assert all(isinstance(line, str) for line in cell["source"])
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells("code"))


def the_programs_of_the_langchain_guide_print_what_it_says():
    """Runs the blocks in one program, as a reader does who types them in one after another."""
    parts = [(language, text) for language, text in blocks("langchain.md") if language]
    program = "\n".join(text for language, text in parts if language == "python")
    expected = "".join(text for language, text in parts if language == "text")
    assert expected.count("\n") == 2
    with vecho() as (public, admin):
        assert python(program, public, admin) == expected


def the_guides_need_only_packages_that_the_tests_have():
    """Each package of a `pip install` is in the environment whose libraries run the programs, except Jupyter itself."""
    needed = [line[line.index("install") + 1 :] for guide in ("notebook.md", "langchain.md") for line in commands(guide) if "pip" in line]
    assert needed == [["openai", "jupyterlab"], ["langchain-openai", "numpy"]]
    installed = {entry["name"] for entry in json.loads(run(PYTHON, "-m", "pip", "list", "--format=json"))}
    assert {name for names in needed for name in names} - {"jupyterlab"} <= installed
    (opened,) = [line for line in commands("notebook.md") if line[0] == "jupyter"]
    assert ROOT / opened[2] == NOTEBOOK


if __name__ == "__main__":
    main(globals())
