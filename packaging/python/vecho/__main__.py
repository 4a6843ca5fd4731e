"""Replaces this process with the program: `python -m vecho`."""

import os
import sys
import sysconfig


def folders():
    """Yields the folders in which pip puts scripts: of the environment, of the user, and of `pip install --target`."""
    yield sysconfig.get_path("scripts")
    yield sysconfig.get_path("scripts", f"{os.name}_user")
    yield os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "bin")


def main():
    for folder in folders():
        program = os.path.join(folder, "vecho")
        if os.path.isfile(program):
            os.execv(program, [program, *sys.argv[1:]])
    sys.exit(f"vecho: the program is in none of {', '.join(folders())}: install the package again")


main()
