"""Every command of ours that a page shows can be typed: its sub-commands and its options exist."""

import re
import shlex
from pathlib import Path

import click
import pytest

from leasehold.cli.app import leasehold
from leasehold_broker.cli import main as broker

ROOT = Path(__file__).parents[2]
PROGRAMS = {"leasehold": leasehold, "leasehold-broker": broker}
PAGES = sorted(
    page
    for folder in (
        *("", "broker", "deploy", "deploy/compose", "deploy/envoy", "deploy/keys", "deploy/runbooks", "deploy/systemd"),
        *("clients/python", "clients/typescript"),
    )
    for page in (ROOT / folder).glob("*.md")
)
SHOWN = re.compile(
    r"`(leasehold(?:-broker)? [a-z][^`\n]*)`|^(?:\$ |\s*)(leasehold(?:-broker)? [a-z][^\n]*)$", re.MULTILINE
)
ENDS = {"|", ">", "<", "&&", "||", "&", ";", "#", "..."}


def shown(page):
    """The commands of a page, as words."""
    for inline, line in SHOWN.findall(page.read_text()):
        try:
            yield shlex.split(inline or line, comments=True)
        except ValueError:
            continue


def wrong(words):
    """What cannot be typed in this command; None when all can."""
    command, rest = PROGRAMS[words[0]], words[1:]
    context = click.Context(command)
    while isinstance(command, click.Group):
        if not rest or rest[0].startswith(("-", "[")) or rest[0].isupper():
            return None
        found = command.get_command(context, rest[0])
        if found is None:
            return f"no command {rest[0]!r}"
        command, rest = found, rest[1:]
        context = click.Context(command, parent=context)
    known = {name for each in command.get_params(context) for name in (*each.opts, *each.secondary_opts)}
    for word in rest:
        if word in ENDS:
            break
        if word.startswith("--") and word != "--" and word.partition("=")[0] not in known:
            return f"no option {word!r}"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_a_page_can_be_typed(page):
    """Nobody in an incident meets a command that is not there."""
    found = {" ".join(words): what for words in shown(page) if (what := wrong(words))}
    assert found == {}


def test_commands_are_found():
    """The search finds what pages show, and the check tells what is not there."""
    assert sum(len(list(shown(page))) for page in PAGES) > 50
    assert wrong(["leasehold", "audit", "events"]) == "no command 'events'"
    assert wrong(["leasehold", "keys", "rotate", "x", "--watchful"]) == "no option '--watchful'"
    assert wrong(["leasehold", "keys", "rotate", "x", "--watch"]) is None
