"""The command `leasehold`. Owns words, tables and exit codes; the work is the library's."""

import logging
import sys

EXTRA_MISSING = (
    "leasehold: the command needs the extra 'cli', which is not installed; "
    "install it with: python -m pip install 'leasehold[cli]'\n"
)


def main() -> None:
    """Run the command; exits the process."""
    try:
        import click  # noqa: F401, PLC0415 - an extra: the library must work, and this sentence appear, without it
    except ModuleNotFoundError:
        sys.stderr.write(EXTRA_MISSING)
        sys.exit(1)
    from leasehold.cli.app import leasehold  # noqa: PLC0415 - needs click

    # What the library logs (a lease that is lost, a renewal that fails) is for the person at the terminal.
    shown = logging.StreamHandler()
    shown.setFormatter(logging.Formatter("leasehold: %(message)s"))
    logging.getLogger("leasehold").addHandler(shown)
    leasehold()
