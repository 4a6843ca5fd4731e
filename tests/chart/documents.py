"""What is written from other files is current."""

import re
import sys

from common import CHART, ROOT, main, run


def schema_and_table_are_current():
    run(sys.executable, ROOT / "scripts/chart", "--check")


def the_readme_of_the_chart_links_to_files_that_exist():
    for link in re.findall(r"\]\(([^)#:]+)\)", (CHART / "README.md").read_text()):
        assert (CHART / link).exists(), link


if __name__ == "__main__":
    main(globals())
