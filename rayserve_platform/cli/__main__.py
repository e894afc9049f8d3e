"""`python -m rayserve_platform.cli`."""

from rayserve_platform.cli import main

main(prog_name="rayserve")
