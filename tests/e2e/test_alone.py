"""A sidecar without a collector, when its configuration says so: local revocation, on its admin socket."""

import json

import anthropic
import pytest
from click.testing import CliRunner
from tests.e2e.conftest import eventually

from leasehold.cli.app import leasehold
from leasehold.errors import PermissionDenied
from leasehold.http import anthropic_kwargs
from leasehold.operators import selector
from leasehold_broker.demo import files
from leasehold_broker.wiring.sidecar_files import REFUSED

pytestmark = [pytest.mark.timeout(180)]


def budget(alone, *arguments) -> list[dict]:
    """What `leasehold budget ... --json` prints."""
    done = CliRunner().invoke(
        leasehold, ["budget", *map(str, arguments), "--collector", f"unix://{alone.admin}", "--json"]
    )
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_its_budgets_are_shown_raised_lowered_and_summed(alone, tmp_path):
    """An operator stops a lease by its cap and lets it go on; what was spent is summed, and drawn."""
    with alone.client("alone", "agents/research/thrifty") as client:
        lease = client.acquire(provider="anthropic", budget="0.01", ttl="5m", renew=False)
        with anthropic.Anthropic(**anthropic_kwargs(lease), max_retries=0) as claude:
            ask = {"model": "claude-haiku-5-5", "max_tokens": 50, "messages": [{"role": "user", "content": "Hi"}]}
            claude.messages.create(**ask)
            (lowered,) = budget(alone, "lower", lease.name, "--usd", "0.000001", "--note", "e2e")
            with pytest.raises(anthropic.APIStatusError) as refused:
                claude.messages.create(**ask)
            budget(alone, "raise", lease.name, "--usd", "0.02")
            claude.messages.create(**ask)
            rows = {(row["budget"], row["metric"]): row for row in budget(alone, "show") if "settled" in row}
        lease.abandon()
    chart = tmp_path / "spend.svg"
    with alone.operator() as operator:  # settlements reach the log a little later: wait for both
        events = (record.event() for record in operator.follow_events(after_position=0))
        mine = (event for event in events if event["type"] == "call.settled" and event["lease"] == lease.name)
        assert [next(mine)["outcome"] for _ in range(2)] == ["allowed", "allowed"]
    spent = budget(alone, "spend", "--by", "lease", "--by", "model", "--plot", chart)

    assert lowered["waiting"] == []
    assert refused.value.response.headers["leasehold-reason"] == "BUDGET_EXHAUSTED"
    row = rows[lease.name, "cost_micro_usd"]
    assert (row["cap"], row["changed"]) == (20_000, True)
    (mine,) = [one for one in spent if one["lease"] == lease.name]
    assert (mine["model"], mine["calls"], mine["cost_micro_usd"]) == ("claude-haiku-5-5", 2, row["settled"])
    assert "claude-haiku-5-5" in chart.read_text()


def test_it_serves_and_revokes_by_itself(alone):
    """Leases and calls work; the operator on the admin socket ends them; nobody else needs to be there."""
    with alone.client() as client:
        lease = client.acquire(provider="anthropic", budget="0.01", ttl="5m", renew=False)
        with anthropic.Anthropic(**anthropic_kwargs(lease), max_retries=0) as claude:
            ask = {"model": "claude-haiku-5-5", "max_tokens": 50, "messages": [{"role": "user", "content": "Hi"}]}
            answer = claude.messages.create(**ask)
            with alone.operator() as operator:
                dry = operator.revoke(selector(lease=lease.name), validate_only=True)
                done = operator.revoke(selector(lease=lease.name), note="e2e")
            with pytest.raises(anthropic.PermissionDeniedError) as refused:
                claude.messages.create(**ask)
        state = client.get(lease.name).state
        lease.abandon()
    with alone.operator() as operator:
        events = (record.event() for record in operator.follow_events(after_position=0))
        refusals = (event for event in events if event["type"] == "call.refused")
        tried = next(event for event in refusals if lease.name in event["details"]["message"])

    assert (tried["reason"], tried["lease"]) == ("LEASE_REVOKED", lease.name)
    assert tried["subject"]["subject"].startswith("agents/")
    assert answer.usage.output_tokens == 24
    assert list(dry.matching_leases) == [lease.name]
    assert [each.leases for each in dry.holders] == [1]
    assert done.progress.complete
    assert refused.value.response.headers["leasehold-reason"] == "LEASE_REVOKED"
    assert state == "revoked"


def operate(alone, *arguments) -> str:
    """What a command of a responder prints."""
    done = CliRunner().invoke(leasehold, [*map(str, arguments), "--collector", f"unix://{alone.admin}"])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_block_keeps_an_agent_from_coming_back(alone):
    """Revoked and blocked: its next acquire is refused and audited, until the block is lifted or over."""
    with alone.client("blocked", "agents/research/blocked") as client:
        lease = client.acquire(provider="anthropic", budget="0.01", ttl="5m", renew=False)
        told = operate(alone, "revoke", "--subject", "agents/research/blocked", "--block", "--expect", "1")
        name = told.split()[0]
        with pytest.raises(PermissionDenied) as refused:
            client.acquire(provider="anthropic", renew=False)
        assert name in operate(alone, "revocations", "--blocks")
        assert "is lifted by revocations/" in operate(alone, "lift", name, "--note", "false alarm")
        other = operate(alone, "revoke", "--subject", "agents/research/nobody", "--block").split()[0]
        told = operate(alone, "lift", name, other)
        assert f"{name} was lifted already, by revocations/" in told
        assert f"{other} is lifted by revocations/" in told
        assert operate(alone, "revocations", "--blocks") == "none\n"
        client.acquire(provider="anthropic", renew=False).abandon()
        operate(alone, "revoke", "--label", "environment=demo", "--block-for", "1s")
        eventually(lambda: operate(alone, "revocations", "--blocks") == "none\n")
        client.acquire(provider="anthropic", renew=False).abandon()
        lease.abandon()
    with alone.operator() as operator:
        events = (record.event() for record in operator.follow_events(after_position=0))
        event = next(event for event in events if event["type"] == "lease.refused")

    assert refused.value.reason == "SUBJECT_BLOCKED"
    assert (event["reason"], name in str(event["details"])) == ("SUBJECT_BLOCKED", True)


def priced(ratio: str) -> str:
    """An operator's prices: what is paid of the table's."""
    return f'[[discount]]\nprovider = "anthropic"\nmodels = ["*"]\nratio = "{ratio}"\n'


def test_prices_change_while_it_runs(alone):
    """A bad file is said loudly and changes nothing; a good one is what the next call is charged by."""

    def loaded():
        return len(alone.logged("file loaded", "prices"))

    with alone.client() as client:
        lease = client.acquire(provider="anthropic", budget="0.01", ttl="5m", renew=False)

        def spent() -> int:
            return client.get(lease.name).own("cost_micro_usd").settled

        def charged() -> int:
            before = spent()
            with anthropic.Anthropic(**anthropic_kwargs(lease), max_retries=0) as claude:
                ask = {"model": "claude-haiku-5-5", "max_tokens": 50, "messages": [{"role": "user", "content": "Hi"}]}
                claude.messages.create(**ask)
            return spent() - before

        listed = charged()
        files.write(alone.prices, priced("nothing"))
        assert eventually(lambda: alone.metrics()['leasehold_newest_file_refused{file="prices"}'] == 1)
        assert len(alone.logged(REFUSED, "prices")) == 1
        assert charged() == listed
        files.write(alone.prices, priced("10"))
        assert eventually(lambda: loaded() == 2)
        dearer = charged()
        lease.abandon()

    assert 10 * listed - 10 < dearer <= 10 * listed
