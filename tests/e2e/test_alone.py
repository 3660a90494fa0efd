"""A sidecar without a collector, when its configuration says so: local revocation, on its admin socket."""

import os

import anthropic
import pytest

from leasehold import LeaseholdClient
from leasehold.http import anthropic_kwargs
from leasehold.operators import OperatorClient, selector
from leasehold_broker.demo import files
from leasehold_broker.demo.stage import broker

pytestmark = [pytest.mark.timeout(120)]
NAME = "sidecar-alone"


@pytest.fixture
def alone(house):
    """A third sidecar on the same stage, told that it runs alone; its admin socket."""
    stage, layout = house.stage, house.stage.layout
    url, jwks = stage.issuer.url, stage.issuer.jwks_url
    told = files.sidecar(layout, NAME, url, jwks, dict.fromkeys(stage.stand_in_keys, stage.origin))
    admin = layout.root / "run" / "admin" / "admin.sock"
    text = told[: told.index("[collector]")]
    text += f'[alone]\nadmin_socket = "{admin}"\noperator_uids = [{os.geteuid()}]\n'
    files.write(layout.config(NAME), text)
    running = house.wait_for(stage.processes.start(NAME, broker("sidecar", "--config", str(layout.config(NAME)))))
    house.wait_for(stage.processes.until_healthy(running, layout.socket(NAME)))
    yield admin
    assert house.wait_for(stage.processes.stop(running)) == 0


def test_it_serves_and_revokes_by_itself(house, alone):
    """Leases and calls work; the operator on the admin socket ends them; nobody else needs to be there."""
    token = house.stage.workload("alone", "agents/research/alone")
    with LeaseholdClient(house.stage.sidecar_target(NAME), token) as client:
        lease = client.acquire(provider="anthropic", budget="0.01", ttl="5m", renew=False)
        with anthropic.Anthropic(**anthropic_kwargs(lease), max_retries=0) as claude:
            ask = {"model": "claude-haiku-5-5", "max_tokens": 50, "messages": [{"role": "user", "content": "Hi"}]}
            answer = claude.messages.create(**ask)
            with OperatorClient(f"unix://{alone}") as operator:
                dry = operator.revoke(selector(lease=lease.name), validate_only=True)
                done = operator.revoke(selector(lease=lease.name), note="e2e")
            with pytest.raises(anthropic.PermissionDeniedError) as refused:
                claude.messages.create(**ask)
        state = client.get(lease.name).state
        lease.abandon()

    assert answer.usage.output_tokens == 24
    assert list(dry.matching_leases) == [lease.name]
    assert done.progress.complete
    assert refused.value.response.headers["leasehold-reason"] == "LEASE_REVOKED"
    assert state == "revoked"
