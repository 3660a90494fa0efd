"""`python -m leasehold.cli`: the same as the command."""

from leasehold.cli import main

main()
