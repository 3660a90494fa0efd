"""leasehold-broker budget reconcile: our log against the providers' own accounts, over real HTTP and gRPC."""

import json
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.fakes.admin_apis import ADMIN_KEY, OPENAI_KINDS, AdminApis, Served, serving
from tests.fakes.operator_server import AuditServer, RevocationServer
from tests.fakes.operator_server import serve as serve_collector
from tests.fakes.planted import on_purpose

from leasehold_broker.cli.budget import budget
from leasehold_broker.domain.reconciliation import (
    ALL_KEYS,
    BILLED,
    COST,
    Counted,
    Difference,
    Threshold,
    reconcile,
)

DAYS = [date(2026, 11, day) for day in (1, 2, 3, 4, 5)]
KEY_ID = {"openai": "key_abc", "anthropic": "apikey_01abc"}


class Books:
    """A collector's log and a provider's account of the same calls."""

    def __init__(self, folder: Path, provider: str) -> None:
        """Both empty."""
        self.folder, self.provider = folder, provider
        self.log, self.apis = AuditServer(), AdminApis()
        self.calls = 0

    def call(self, day: date, ours: tuple[int, int, int], theirs: tuple[int, int, int] | None = None, **more) -> None:
        """One call: input and output tokens and micro-USD with us, and with them (the same when not given)."""
        self.calls += 1
        wall_ms = int(datetime(day.year, day.month, day.day, 12, tzinfo=UTC).timestamp()) * 1000 + self.calls
        names = ("input_tokens", "output_tokens", "cost_micro_usd")
        details = {"call": str(self.calls), "provider": self.provider, "key": "prod", "model": "m"}
        charged = dict(zip(names, ours, strict=True))
        self.log.append("sidecar-a", "call.admitted", details=details, wall_ms=wall_ms)
        self.log.append("sidecar-a", "call.settled", details={**details, "charged": charged}, wall_ms=wall_ms)
        told = dict(zip(names, theirs or ours, strict=True))
        self.apis.served.append(Served(day, KEY_ID[self.provider], **told, **more))

    def run(self, *arguments: str, key: str = ADMIN_KEY, origin: str = "") -> Result:
        """The command's end."""
        file = on_purpose(self.folder / "admin.key")
        file.touch(mode=0o600)
        file.write_text(key + "\n")
        collector = serve_collector(self.log, RevocationServer(), self.folder / "c.sock")
        try:
            with serving(self.apis) as served:
                return CliRunner().invoke(
                    budget,
                    [
                        "reconcile", "--collector", collector.target, "--provider", self.provider,
                        "--admin-key-file", str(file), "--key", f"prod={KEY_ID[self.provider]}",
                        "--until", "2026-11-06", "--days", "5", "--origin", origin or served, *arguments,
                    ],
                )  # fmt: skip
        finally:
            collector.stop()


@pytest.fixture(params=["openai", "anthropic"])
def books(request: pytest.FixtureRequest, tmp_path: Path) -> Books:
    """Of each provider."""
    return Books(tmp_path, request.param)


def rows(result: Result) -> dict[tuple[str, str, str], dict]:
    """What was printed as JSON."""
    found = [json.loads(line) for line in result.stdout.splitlines()]
    return {(row["key"], row["day"], row["what"]): row for row in found}


def test_books_that_agree_are_within_the_threshold(books: Books) -> None:
    """Five days over three pages of each report: the same tokens by key and day, the same money by day; exit 0."""
    for number, day in enumerate(DAYS):
        books.call(day, (5000 + number, 300, 123_457), cached_tokens=400)
        books.call(day, (10, 1, 3))
    result = books.run("--json", "--threshold-percent", "0", "--threshold-tokens", "0", "--threshold-micro-usd", "0")
    assert result.exit_code == 0, result.output
    found = rows(result)
    assert len(found) == (25 if books.provider == "openai" else 15)
    assert found["prod", "2026-11-03", "input_tokens"] == {
        "key": "prod", "day": "2026-11-03", "what": "input_tokens", "ours": 5012, "theirs": 5012, "drift": False,
        "unseen": False,
    }  # fmt: skip
    assert found[ALL_KEYS, "2026-11-05", "cost_micro_usd"]["theirs"] == 123_460
    assert len(books.apis.asked) == (21 if books.provider == "openai" else 6)


def test_what_was_spent_unseen_and_what_was_held_too_much_are_told_apart(books: Books) -> None:
    """More with the provider is unseen; more with us is drift; each by key and day, with exit 3.

    OpenAI tells the money of each key as well.
    """
    books.call(DAYS[0], (100_000, 50_000, 900_000), (100_000, 60_000, 1_000_000))
    books.call(DAYS[1], (100_000, 50_000, 900_000), (100_000, 10_000, 400_000))
    books.apis.served.append(Served(DAYS[2], "somebody-else", 9000, 9000, 77_000))
    result = books.run("--json")
    assert result.exit_code == 3
    found = {place: row for place, row in rows(result).items() if row["drift"]}
    by_key = {place: row["unseen"] for place, row in found.items() if place[2] == COST and place[0] != ALL_KEYS}
    by_day = {("prod", "2026-11-01", COST): True, ("prod", "2026-11-02", COST): False}
    by_day["somebody-else", "2026-11-03", COST] = True
    assert by_key == (by_day if books.provider == "openai" else {})
    assert {place: row["unseen"] for place, row in found.items() if place not in by_key} == {
        ("prod", "2026-11-01", "output_tokens"): True,
        (ALL_KEYS, "2026-11-01", "cost_micro_usd"): True,
        ("prod", "2026-11-02", "output_tokens"): False,
        (ALL_KEYS, "2026-11-02", "cost_micro_usd"): False,
        ("somebody-else", "2026-11-03", "input_tokens"): True,
        ("somebody-else", "2026-11-03", "output_tokens"): True,
        (ALL_KEYS, "2026-11-03", "cost_micro_usd"): True,
    }
    words = books.run().stdout
    assert "UNSEEN 2026-11-01  prod  output_tokens: ours 50000, theirs 60000" in words
    assert f"{7 + len(by_key)} apart by more than the threshold" in words


def test_calls_of_every_kind_are_counted_by_key(tmp_path: Path) -> None:
    """OpenAI tells pictures and sound by their own units: the calls of each kind are compared, and their money."""
    books = Books(tmp_path, "openai")
    for kind in OPENAI_KINDS:
        books.call(DAYS[0], (10, 0, 40), kind=kind)
    books.call(DAYS[0], (0, 0, 0))
    books.apis.served.pop()
    for _ in range(7):
        books.apis.served.append(Served(DAYS[0], KEY_ID["openai"], 0, 0, 50_000, kind="images"))
    found = rows(books.run("--json"))
    assert found["prod", "2026-11-01", BILLED] == {
        "key": "prod", "day": "2026-11-01", "what": BILLED, "ours": 6, "theirs": 13, "drift": True, "unseen": True,
    }  # fmt: skip
    assert (found["prod", "2026-11-01", COST]["ours"], found["prod", "2026-11-01", COST]["theirs"]) == (240, 350_240)
    assert not rows(books.run("--json", "--threshold-calls", "7"))["prod", "2026-11-01", BILLED]["drift"]


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"fault": 500}, "answered 500"),
        ({"fault": 403}, "answered 403; check the admin key"),
        ({"redirect": "http://127.0.0.1:9/"}, "answered 302"),
        ({"endless": True}, "pages without an end"),
    ],
)
def test_a_report_that_cannot_be_had_compares_nothing(books: Books, broken: dict, words: str) -> None:
    """An error, a redirect (the key would go elsewhere) or endless pages: exit 1, a reason, and no key in it."""
    for name, value in broken.items():
        setattr(books.apis, name, value)
    result = books.run()
    assert (result.exit_code, words in result.stderr) == (1, True), result.stderr
    assert ADMIN_KEY not in result.output


def test_a_wrong_key_and_a_plain_origin_are_refused(books: Books) -> None:
    """A wrong admin key is the provider's refusal; plain HTTP to another machine is ours, before anything is sent."""
    assert "answered 401" in books.run(key="wrong").stderr
    asked = len(books.apis.asked)
    refused = books.run(origin="http://api.example")
    assert (refused.exit_code, "not https" in refused.stderr, len(books.apis.asked)) == (1, True, asked)


def test_an_answer_of_another_shape_is_an_error(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that is not the documented page, or money in another currency, is never read as nothing spent."""
    for body in (b'{"data": 7}', b'{"next_page": "\xff"}', b'{"x":' + b"[" * 20_000):
        monkeypatch.setattr(AdminApis, "answer", lambda *_, body=body: (200, body))
        assert "a shape that is not known" in books.run().stderr
    cost = {"results": [{"amount": {"value": 1, "currency": "eur"}, "currency": "EUR"}], "start_time": 0}
    monkeypatch.setattr(AdminApis, "answer", lambda *_: (200, {"data": [cost]}))
    assert "cannot be read" in books.run().stderr


@pytest.mark.parametrize(("theirs", "drift"), [(1000, False), (1100, False), (1101, True), (899, True), (900, False)])
def test_both_thresholds_must_be_passed(theirs: int, drift: bool) -> None:
    """A difference counts once it is above the absolute floor and above the share of their number."""
    ours = {("k", "d"): Counted(1000, 0)}
    found = reconcile(ours, {("k", "d"): Counted(theirs, 0)}, Threshold(permille=10, tokens=100, micro_usd=0))
    assert found[0] == Difference("k", "d", "input_tokens", 1000, theirs, drift)
    lenient = reconcile(ours, {("k", "d"): Counted(theirs, 0)}, Threshold(permille=500, tokens=0, micro_usd=0))
    assert not lenient[0].drift
