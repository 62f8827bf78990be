"""The command line: meshwright reconstruct | refine | texture | info | convert | doctor.

Thin: each command makes library calls with the options of `meshwright.options`. Nothing here imports torch before a
command runs.
"""

from meshwright.cli.main import main

__all__ = ["main"]
