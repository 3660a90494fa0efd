"""The collector's store is lost and an older copy is all there is: the runbook, with real processes and real commands.

Events and revocations are gone that sidecars had delivered, applied and dropped. Nothing that was stopped goes on, what
is revoked meanwhile reaches everybody, and the log says what is missing.
"""

import json
import re
import shutil
import subprocess
import sys
from contextlib import suppress

import pytest
from tests.e2e.conftest import eventually, running

from leasehold.errors import LeaseholdError

pytestmark = pytest.mark.timeout(300)
AUDIT = """
[audit]
origin = "leasehold/{name}"
key_file = "{root}/{name}.key"
checkpoint_copy = "{root}/{name}.checkpoint"
accept_gaps = {accept_gaps}
"""


@pytest.fixture
def house():
    """A stage of its own: its collector is stopped, and its store replaced."""
    with running(authority_seconds=3) as house:
        yield house


def leasehold(house, *words, code=0):
    """Run the operators' command; its output."""
    command = [sys.executable, "-m", "leasehold.cli", *words, "--collector", house.stage.collector_target]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert ran.returncode == code, ran.stdout + ran.stderr
    return ran.stdout


def asked(client):
    """Why there is no lease to be had; empty when there was one."""
    try:
        client.acquire(provider="openai", budget="0.01", ttl="5m", renew=False).release()
    except LeaseholdError as error:
        return error.reason
    return ""


def configure(house, name, *, accept_gaps):
    """Write the collector's file anew, with this section of the log."""
    path = house.stage.layout.config("collector")
    text = re.sub(r"\n\[audit\]\n.*", "", path.read_text(), flags=re.DOTALL)
    words = {"name": name, "root": house.stage.layout.root, "accept_gaps": str(accept_gaps).lower()}
    path.write_text(text + AUDIT.format(**words))


def state(house):
    """The collector's directory."""
    return house.stage.layout.root / "state" / "collector"


def delivered(house):
    """Every event has arrived that any sidecar has recorded: two looks at their streams see the same."""
    seen = []

    def quiet():
        with house.operator() as operator:  # its own stream grows with each look: that is an event, too
            seen.append([(one.stream, one.sequence) for one in operator.heads() if one.stream.startswith("sidecar-")])
        return seen[-2:-1] == seen[-1:]

    assert eventually(quiet)


def test_r4_a_lost_store_is_replaced_by_an_older_copy_and_all_goes_on(house):
    """Refused loudly at first; with accept_gaps each hole is named, what was stopped stays so, what is new arrives."""
    with house.client("sidecar-a") as lead, house.client("sidecar-b", name="other") as other:
        # A copy is kept, and then more happens: a revocation that blocks, and calls' worth of events.
        house.wait_for(house.stage.stop("collector"))
        configure(house, "one", accept_gaps=False)
        house.wait_for(house.stage.start("collector"))
        leasehold(house, "revoke", "--lease", "leases/before", "--note", "before")
        house.wait_for(house.stage.stop("collector"))
        shutil.copytree(state(house), house.stage.layout.root / "kept")
        house.wait_for(house.stage.start("collector"))
        assert eventually(lambda: asked(other) == "")
        held = other.acquire(provider="anthropic", budget="0.01", ttl="5m", renew=False)
        leasehold(house, "revoke", "--key", "openai-demo", "--block", "--note", "ticket-7")
        assert eventually(lambda: asked(lead) == "SUBJECT_BLOCKED")
        delivered(house)
        house.wait_for(house.stage.stop("collector"))
        # The disk is gone; the older copy does not pass for the newest.
        shutil.rmtree(state(house))
        shutil.copytree(house.stage.layout.root / "kept", state(house))
        with pytest.raises(Exception, match="it is an older copy"):
            house.wait_for(house.stage.start("collector"))
        # Another log, honestly: not yet with gaps. Who has applied what it lacks is refused, and refuses.
        configure(house, "two", accept_gaps=False)
        house.wait_for(house.stage.start("collector"))
        leasehold(house, "revoke", "--subject", "agents/*", "--note", "urgent", "--no-watch")
        assert eventually(lambda: asked(lead) == "CENTRE_UNREACHABLE")
        assert eventually(lambda: asked(other) == "CENTRE_UNREACHABLE")
        refused = leasehold(house, "audit", "query", "--type", "audit.refused", "--json")
        assert "CENTRE_BEHIND" in refused or "AUDIT_CHAIN_BROKEN" in refused
        # With the operators' word all goes on, and what was blocked by the lost entry is blocked.
        house.wait_for(house.stage.stop("collector"))
        configure(house, "two", accept_gaps=True)
        house.wait_for(house.stage.start("collector"))
        assert eventually(lambda: asked(lead) == "SUBJECT_BLOCKED")
        assert eventually(lambda: asked(other) == "SUBJECT_BLOCKED")
        assert other.get(held.name).state == "revoked"  # by what was urgent, under a number that was lost
        with suppress(LeaseholdError):
            held.release()
        leasehold(house, "revoke", "--lease", "leases/after", "--note", "after")
        told = eventually(lambda: leasehold(house, "audit", "query", "--type", "revocation.set_aside", "--json"))
        assert "ticket-7" in told
        holes = eventually(lambda: leasehold(house, "audit", "query", "--type", "audit.gap_accepted", "--json"))
        assert json.loads(holes.splitlines()[0])
        # It is ordered again and lifted, by what the log said.
        leasehold(house, "revoke", "--key", "openai-demo", "--block", "--note", "ticket-7 again")
        newest = re.search(r"revocations/\d+", leasehold(house, "revocations", "--blocks"))
        leasehold(house, "lift", newest.group(), "--note", "over")
        for client in (lead, other):
            assert eventually(lambda c=client: asked(c) == "")
        copy, key = house.stage.layout.root / "export", state(house) / "checkpoint.pub"
        leasehold(house, "audit", "export", "--tiles", "-o", str(copy))
        verify = [sys.executable, "-m", "leasehold.cli", "audit", "verify", str(copy), "--key", str(key)]
        checked = subprocess.run(verify, capture_output=True, text=True, timeout=90, check=False)
        assert checked.returncode == 0, checked.stdout + checked.stderr
        assert "declared lost by the collector" in checked.stdout
