"""Entry point: a user's mistake is one line and exit code 2, never a traceback."""

import os
import sys

from meshwright.cli.commands import COMMANDS
from meshwright.cli.display import console
from meshwright.cli.flags import in_flags, parse
from meshwright.errors import InputError


def main() -> None:
    """Run the command that ``sys.argv`` names."""
    try:
        if sys.argv[1:2] == ["train"]:
            from meshwright.cli.train import train  # its flags are the fields of a recipe: they need torch

            train(sys.argv[2:])
        else:
            parse(COMMANDS, sys.argv[1:])()
    except InputError as error:
        message = f"error: {in_flags(str(error))}"
        console.print(message, style="bold red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        console.print("interrupted; nothing was written", style="yellow")
        sys.exit(130)
    except BrokenPipeError:  # whoever read us, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor may Python's last flush fail
        sys.exit(1)
