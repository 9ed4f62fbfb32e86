"""`python -m crossns.cli`: the command where no console script is installed, as in the sandbox and in services' units."""

from crossns.cli import main

main()
