#!/usr/bin/env python3
"""Writes the chart as it is published: with the image that the release pushed, and with the addresses of its project.

The chart in the repository names neither, because a fork has others. `helm package` packs the result."""

import argparse
import os
import shutil
import sys
from pathlib import Path

from project import ROOT, VERSION, repository

CHART = ROOT / "charts/vecho"


def main():
    """Writes the chart to FOLDER/vecho."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder for the chart")
    parser.add_argument("--image", required=True, help="name of the image with its registry, without a tag")
    arguments = parser.parse_args()
    address = repository()
    if address is None:
        sys.exit("no repository is known: set `repository` in Cargo.toml, or GITHUB_SERVER_URL and GITHUB_REPOSITORY")
    chart = arguments.folder / "vecho"
    shutil.rmtree(chart, ignore_errors=True)
    shutil.copytree(CHART, chart)
    registry, name = arguments.image.split("/", 1)
    values = (chart / "values.yaml").read_text()
    values = replaced(values, '\n  registry: ""\n', f'\n  registry: "{registry}"\n')
    values = replaced(values, "\n  repository: vecho\n", f"\n  repository: {name}\n")
    (chart / "values.yaml").write_text(values)
    with (chart / "Chart.yaml").open("a") as file:
        file.write(project_lines(address))


def project_lines(address):
    """Returns the lines of Chart.yaml that name the project. The maintainer is the owner of the repository."""
    server, owner, _ = address.rsplit("/", 2)
    commit = os.environ.get("GITHUB_SHA") or f"v{VERSION}"
    return (
        f"home: {address}\n"
        f"sources: [{address}]\n"
        f"icon: {address}/raw/{commit}/charts/vecho/icon.svg\n"
        f"maintainers:\n  - name: {owner}\n    url: {server}/{owner}\n"
    )


def replaced(text, old, new):
    """Replaces the only occurrence of a line."""
    if text.count(old) != 1:
        sys.exit(f"values.yaml must have the line {old.strip()} exactly once")
    return text.replace(old, new)


if __name__ == "__main__":
    main()
