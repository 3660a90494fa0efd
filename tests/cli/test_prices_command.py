"""leasehold-broker prices: what it makes, what it shows, what it refuses."""

import json
import sys

import msgspec
import pytest
from click.testing import CliRunner

from leasehold_broker.cli.prices import UNPRICED, WRONG, prices
from leasehold_broker.providers import load_price_book, shipped_table

DAY = json.loads(shipped_table())["generated"]


def run(*arguments: object, code: int = 0) -> str:
    """Run the command; its output and errors together."""
    result = CliRunner().invoke(prices, [str(each) for each in arguments])
    assert result.exit_code == code, result.output
    return result.output


def older_table(tmp_path):
    """The shipped table with other prices for two models, without one, and with one that is gone today."""
    table = json.loads(shipped_table())
    rows = {row["name"]: row for row in table["providers"]["anthropic"]}
    rows["claude-opus-4-5"]["periods"][0]["rates"]["input"] = 4_000_000
    rows["claude-haiku-4-5"]["periods"][0]["rates"]["output"] = 1_000_000
    rows["claude-haiku-4-5"]["output"] = 1
    table["providers"]["anthropic"].append({"name": "claude-0", "periods": [{"rates": {"input": 1}}]})
    table["providers"]["anthropic"].remove(rows["claude-2"])
    path = tmp_path / "old.json"
    path.write_bytes(json.dumps(table).encode())
    return path


def test_refresh_shows_what_changed_and_writes_what_a_sidecar_can_use(tmp_path):
    """From the installed source, into a folder, under a name that says day and version; large changes are marked."""
    output = run("refresh", "--to", tmp_path, "--day", DAY, "--against", older_table(tmp_path))

    (path,) = tmp_path.glob("prices-*.json")
    book = load_price_book(table=path)
    assert path.name == f"prices-{DAY}-{book.version}.json"
    assert path.read_bytes() == shipped_table()
    assert path.stat().st_mode & 0o777 == 0o644
    assert output.splitlines()[:-1] == [
        "  anthropic claude-0: gone",
        "  anthropic claude-2: new",
        "  anthropic claude-haiku-4-5: largest answer: 1 -> 64000",
        "! anthropic claude-haiku-4-5: output: 1 -> 5",
        "  anthropic claude-opus-4-5: input: 4 -> 5",
    ]
    assert f"version {book.version}, 5 changes" in output


def test_refresh_takes_a_table_or_the_sources_own_document(tmp_path):
    """A file that an operator carries in: a table of ours as it is, or the source's list of providers."""
    old = older_table(tmp_path)
    output = run("refresh", "--from", old, "--to", tmp_path / "new.json")
    assert "anthropic claude-opus-4-5: input: 5 -> 4" in output
    assert load_price_book(table=tmp_path / "new.json").price("anthropic", "claude-opus-4-5").base.input == 4_000_000
    partial = tmp_path / "data.json"
    partial.write_text(
        json.dumps(
            [
                {
                    "id": "anthropic",
                    "name": "Anthropic",
                    "api_pattern": "x",
                    "models": [
                        {"id": "m", "match": {"equals": "m"}, "prices": {"input_mtok": 3, "output_mtok": 15}},
                    ],
                }
            ]
        )
    )
    assert "no prices of aws" in run("refresh", "--from", partial, "--to", tmp_path / "x.json", code=WRONG)
    for wrong in ("[1]", "[[]]", "nothing", "{}"):
        partial.write_text(wrong)
        assert "refused" in run("refresh", "--from", partial, "--to", tmp_path / "x.json", code=WRONG)
    assert not (tmp_path / "x.json").exists()


def test_refresh_without_the_source_says_how_to_get_it(tmp_path, monkeypatch):
    """The source is an extra."""
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    output = run("refresh", "--to", tmp_path, code=WRONG)
    assert "pip install 'leasehold-broker[prices]'" in output
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_cannot_be_written_leaves_nothing(tmp_path):
    """The old file stays, and no other is left beside it."""
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "full").touch()
    output = run("refresh", "--from", older_table(tmp_path), "--to", tmp_path / "missing" / "t.json", code=WRONG)
    assert "cannot be written" in output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old.json", "taken"]


def test_check_says_what_is_in_force(tmp_path):
    """Version, source and counts; a wrong file is named, with what is wrong in it."""
    assert "anthropic: 27 models" in run("check")
    path = tmp_path / "prices.toml"
    path.write_text('[[price]]\nprovider = "openai"\nmodel = "m"\ninput = 1\n')
    path.chmod(0o644)
    assert "fixed by the override: 1" in run("check", "--override", path)
    path.chmod(0o666)
    assert "written by others" in run("check", "--override", path, code=WRONG)
    path.chmod(0o644)
    path.write_text("[[price]]\n")
    assert "price override file" in run("check", "--override", path, code=WRONG)
    assert "cannot be read" in run("check", "--table", tmp_path / "none.json", code=WRONG)
    assert "give --config" in run("check", "--config", path, "--table", path, code=2)


def test_show_says_what_a_call_would_cost(tmp_path):
    """One model by any of its names, with tiers, variants and regions; a provider as a list; the unknown as unknown."""
    output = run("show", "openai", "gpt-5.5-2026-04-23")
    assert "priced as gpt-5.5" in output
    assert "input above 272000 tokens of input: 10 USD per million" in output
    assert "flex:" in output
    assert "in region us: tokens cost 110 %" in run("show", "anthropic", "claude-opus-4-6")
    assert "regional.anthropic.claude-sonnet-4-5" in run(
        "show", "bedrock", "eu.anthropic.claude-sonnet-4-5-20250929-v1:0"
    )
    assert len(run("show", "cohere").splitlines()) == 9
    assert "a call to it is refused" in run("show", "openai", "gpt-5-ultra", code=UNPRICED)
    assert "no price" in run("show", "nobody", code=UNPRICED)
    path = tmp_path / "prices.toml"
    path.write_text('[[price]]\nprovider = "acme"\nmodel = "m"\ninput = 1\n')
    path.chmod(0o644)
    assert run("show", "acme", "--override", path).startswith("m: input 0.000001")


@pytest.mark.parametrize("table", [shipped_table()])
def test_a_table_survives_being_read_and_written(table):
    """One model a line, so that a change of price is a change of a line."""
    assert len(table.splitlines()) > len(msgspec.json.decode(table)["providers"]["openrouter"])
