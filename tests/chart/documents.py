"""What is written from other files is current."""

import re
import runpy
import sys

from common import CHART, ROOT, main, run


def schema_and_table_are_current():
    run(sys.executable, ROOT / "scripts/chart", "--check")


def the_readme_of_the_chart_links_to_files_that_exist():
    for link in re.findall(r"\]\(([^)#:]+)\)", (CHART / "README.md").read_text()):
        assert (CHART / link).exists(), link


def the_keys_of_runbook_and_readme_are_keys():
    script = runpy.run_path(str(ROOT / "scripts/chart"))
    known = {key for key, _, _ in script["keys"]()}
    sections = {key.split(".")[0] for key in known if "." in key}
    for path in (ROOT / "docs/RUNBOOK.md", CHART / "README.md", CHART / "values.yaml"):
        named = re.findall(r"`(?:config\.|secrets\.)?(\w+\.\w+)`", path.read_text())
        # `disk.size` and its like are values of the chart.
        unknown = {name for name in named if name.split(".")[0] in sections} - known
        assert unknown <= {"disk.enabled", "disk.volume", "disk.size", "disk.storageClass", "disk.claim"}, f"{path}: {unknown}"


if __name__ == "__main__":
    main(globals())
