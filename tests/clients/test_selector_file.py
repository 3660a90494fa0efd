"""The file of `leasehold revoke --from`: which lines it may hold, and that nothing is sent unless all can be read."""

import io

import click
import pytest
from click.testing import CliRunner

from leasehold.cli.app import leasehold
from leasehold.cli.selector_file import FILE_LINES_MAX, LINES_MAX, read_selectors, with_lines
from leasehold.operators import selector


def read(text: str, issuer: str = ""):
    """The lines of a file with this text."""
    return read_selectors(io.StringIO(text), issuer)


def test_each_word_is_the_option_of_its_name():
    """Comments, empty lines and repeated lines are none."""
    lines = read(
        "# suspects\n\nleases/1\nlease leases/2\nsubject  agents/7*\nissuer https://i\nkey k\nprovider p\n"
        "environment e\nlabel team=red blue\nsidecar s\nleases/1\n"
    )
    assert [(line.number, line.selector) for line in lines] == [
        (3, selector(lease="leases/1")),
        (4, selector(lease="leases/2")),
        (5, selector(subject="agents/7*")),
        (6, selector(issuer="https://i")),
        (7, selector(key="k")),
        (8, selector(provider="p")),
        (9, selector(environment="e")),
        (10, selector(label=("team", "red blue"))),
        (11, selector(sidecar="s")),
    ]


def test_an_issuer_narrows_every_subject_and_nothing_else():
    """As --issuer does beside --subject."""
    lines = read("subject a\nkey k\n", "https://i")
    assert [line.selector for line in lines] == [selector(subject="a", issuer="https://i"), selector(key="k")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("key k\nlh_secret_token\n", "line 2: must be the name of a lease"),
        ("subject\n", "line 1: must be the name of a lease"),
        ("all\n", "line 1: must be"),
        ("everything true\n", "line 1: must be"),
        ("label team\n", "line 1: a label must be NAME=VALUE"),
        ("", "names 0 selectors"),
        ("# nothing\n", "names 0 selectors"),
        ("".join(f"key k{number}\n" for number in range(LINES_MAX + 1)), "names 1001 selectors"),
        ("x\n" * 7, "and 2 lines more"),
        ("key k\nsubject a\udcff\n", "line 2: is not text in UTF-8"),
        ("key k\n" + "\0" * 5000, "line 2 is beyond that"),
        ("\n" * (FILE_LINES_MAX + 1), f"line {FILE_LINES_MAX + 1} is beyond that"),
    ],
)
def test_a_line_that_cannot_be_read_is_named_and_never_quoted(text, words):
    """A token may have got into the file; nothing is revoked by half."""
    with pytest.raises(click.UsageError, match=words) as failed:
        read(text)
    assert "nothing was revoked" in failed.value.message
    assert "lh_secret" not in failed.value.message


def test_what_the_collector_says_of_a_place_is_said_of_its_line():
    """Lines that are no selectors do not shift it."""
    lines = read("# one\nkey k\n\nkey l\n")
    assert with_lines("selectors[1]: selector.key: too long", lines) == "line 4: selector.key: too long"


def test_a_file_that_is_no_text_is_told(tmp_path):
    """Bytes that are no UTF-8, from a file: wrong usage in words."""
    path = tmp_path / "suspects"
    path.write_bytes(b"key k\nsubject a\xff\n")
    with path.open(encoding="utf-8") as file, pytest.raises(click.UsageError, match="not text in UTF-8"):
        read_selectors(file, "")


@pytest.mark.parametrize(
    "arguments",
    [
        ("revoke", "--dry-run", "--subject", "a\udcff"),
        ("revoke", "--dry-run", "--all", "--note", "a\udcff"),
        ("lift", "revocations/\udcff"),
        ("sidecar", "ban", "\udcff"),
        ("audit", "query", "--stream", "\udcff"),
    ],
)
def test_an_argument_that_is_no_text_is_told(arguments, tmp_path):
    """What the system hands over as it is cannot be sent: wrong usage in words, and no traceback."""
    target = f"unix://{tmp_path}/nobody.sock"
    result = CliRunner().invoke(leasehold, [*arguments, "--collector", target, "--timeout", "1"])
    assert (result.exit_code, "an argument is not text in UTF-8" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("revoke", "--subject", "--dry-run"),
        ("revoke", "--issuer", "i", "--subject", "--no-watch"),
        ("revoke", "--all", "--note", "--dry-run"),
        ("revoke", "--lease", "--expect", "1"),
        ("lift", "revocations/1", "--note", "--json"),
    ],
)
def test_the_next_option_is_no_value(arguments, tmp_path):
    """An empty variable before `--dry-run` does not revoke in earnest: wrong usage, and the collector is not asked."""
    target = f"unix://{tmp_path}/nobody.sock"
    result = CliRunner().invoke(leasehold, [*arguments, "--collector", target, "--timeout", "1"])
    assert (result.exit_code, "no value was given" in result.stderr) == (2, True)
