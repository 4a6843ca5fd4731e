"""Generated files are up to date."""

import re
import runpy
import sys
import tomllib

import helm_python as helm
import yaml

from common import CHART, ROOT, containers, main, manifests, one, pods, run
from guides import commands, merge


def schema_and_table_are_current():
    run(sys.executable, ROOT / "scripts/chart", "--check")


def the_readme_of_the_chart_links_to_files_that_exist():
    for link in re.findall(r"\]\(([^)#:]+)\)", (CHART / "README.md").read_text()):
        assert (CHART / link).exists(), link


def the_commands_of_the_chart_s_readme_are_accepted():
    """Renders the chart with the values of each command. An upgrade keeps the values of the installation before it."""
    rendered, values = [], {}
    for line in commands(CHART / "README.md"):
        if line[0] != "helm" or "charts/vecho" not in line:
            continue
        values = values if line[1] == "upgrade" else {}
        assert line[1] == "install" or "--reset-then-reuse-values" in line, line
        for option, value in zip(line, line[1:]):
            if option == "--set":
                merge(values, helm.parse_set_string(value))
        rendered.append(manifests(values))
    assert len(rendered) == 3
    assert "Pods" in {metric["type"] for metric in one(rendered[2], "HorizontalPodAutoscaler")["spec"]["metrics"]}


def the_keys_of_runbook_and_readme_are_keys():
    script = runpy.run_path(str(ROOT / "scripts/chart"))
    known = {key for key, _, _ in script["keys"]()}
    sections = {key.split(".")[0] for key in known if "." in key}
    for path in (ROOT / "docs/RUNBOOK.md", CHART / "README.md", CHART / "values.yaml"):
        named = re.findall(r"`(?:config\.|secrets\.)?(\w+\.\w+)`", path.read_text())
        # `disk.size` and similar names are values of the chart.
        unknown = {name for name in named if name.split(".")[0] in sections} - known
        assert unknown <= {"disk.enabled", "disk.volume", "disk.size", "disk.storageClass", "disk.claim"}, f"{path}: {unknown}"


def the_chart_runs_the_image_that_is_built():
    (container,) = containers(pods(manifests({}))[0])
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    assert container["image"] == f"vecho:{version}"
    for path in (ROOT / "docs/KUBERNETES.md", ROOT / "Dockerfile"):
        assert f"docker build -t {container['image']} ." in path.read_text(), path


def the_metadata_of_the_chart_equals_that_of_the_program():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    package = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]
    assert (chart["name"], chart["description"]) == (package["name"], package["description"])
    assert chart["version"] == chart["appVersion"] == package["version"]
    assert chart["annotations"]["artifacthub.io/license"] == package["license"]
    assert set(package["keywords"]) <= set(chart["keywords"])


if __name__ == "__main__":
    main(globals())
