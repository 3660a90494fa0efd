"""Sentences about texts that are no TOML."""

import tomllib

import pytest

from leasehold_broker.domain.toml_faults import toml_fault


def fault(text):
    """What is said of a text that the real parser refuses."""
    with pytest.raises(tomllib.TOMLDecodeError) as caught:
        tomllib.loads(text)
    return toml_fault(text, str(caught.value))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[a]\nb = 1\nb = 2\n", "`b` in [a] is stated twice, again in line 3; keep one"),
        ("b = 1\nb = 2", "`b` is stated twice, again in line 2; keep one"),
        ("[a]\nb = [\n  'x',\n]\nb = [\n  'y',\n]\nc = 1", "`b` in [a] is stated twice, again in line 7"),
        ("[a]\n[b]\n[a]\n", "[a] is stated twice, again in line 3; keep one"),
        ("[[a]]\nx = 1\n[a]\n", "[a] is stated twice, again in line 3"),
        ("[a]\nb = { c = 1, c = 2 }\n", "`b` in [a] is stated twice, again in line 2"),
        ("a.b = 1\na.b = 2\n", "`a.b` is stated twice, again in line 2"),
        ('"sp ace" = 1\n"sp ace" = 2\n', '`"sp ace"` is stated twice, again in line 2'),
    ],
)
def test_what_is_stated_twice_is_named(text, said):
    """Name, table and line; the parser itself gives a place only."""
    assert f"is not valid TOML: {said}" in fault(text)


def test_other_faults_are_as_the_parser_said_them():
    """A place is all there is to say about a broken line."""
    assert fault("a = ") == "is not valid TOML: Invalid value (at end of document)"


def test_no_value_is_shown():
    """A value that is stated twice may be a secret in the wrong place."""
    assert "sk-" not in fault('[a]\nkey = "sk-one"\nkey = "sk-two"\n')
