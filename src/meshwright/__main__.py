"""``python -m meshwright``: the command line."""

from meshwright.cli import main

main()
