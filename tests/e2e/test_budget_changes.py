"""A budget of the whole fleet's policy, raised and lowered through the collector with the command."""

import json

import anthropic
import pytest
from click.testing import CliRunner

from leasehold.cli.app import leasehold
from leasehold.http import anthropic_kwargs

pytestmark = [pytest.mark.timeout(120)]


def budget(house, *arguments) -> list[dict]:
    """What `leasehold budget ... --json` prints."""
    where = ["--collector", house.stage.collector_target, "--json"]
    done = CliRunner().invoke(leasehold, ["budget", *map(str, arguments), *where])
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_lease_is_lowered_and_raised_through_the_collector(house):
    """In force at the sidecar when the command returns: the next call meets the new cap; the log says by whom."""
    with house.client() as client:
        lease = client.acquire(provider="anthropic", budget="0.01", ttl="5m", renew=False)
        with anthropic.Anthropic(**anthropic_kwargs(lease), max_retries=0) as claude:
            ask = {"model": "claude-haiku-5-5", "max_tokens": 50, "messages": [{"role": "user", "content": "Hi"}]}
            claude.messages.create(**ask)
            (lowered,) = budget(house, "lower", lease.name, "--usd", "0.000001", "--wait", "60")
            with pytest.raises(anthropic.APIStatusError) as refused:
                claude.messages.create(**ask)
            (raised,) = budget(house, "raise", lease.name, "--usd", "0.02", "--wait", "60")
            claude.messages.create(**ask)
        lease.abandon()
    changes = [row for row in budget(house, "show", "--budget", lease.name) if "direction" in row]
    with house.operator() as operator:
        kinds = {record.event()["type"] for record in operator.events(type="budget.", lease=lease.name)}

    assert (lowered["waiting"], raised["waiting"]) == ([], [])
    assert refused.value.response.headers["leasehold-reason"] == "BUDGET_EXHAUSTED"
    assert [(row["direction"], row["cap"]) for row in changes] == [("raise", 20_000)]
    assert {"budget.change_issued", "budget.changed"} <= kinds
