"""A trap springs in a fleet of real processes: the agent is out everywhere, and the pager has said so."""

import json
import signal
import urllib.error
import urllib.request

import pytest
from tests.e2e.conftest import eventually
from tests.fakes.receivers import HttpReceiver

from leasehold.errors import LeaseEnded, PermissionDenied
from leasehold_broker.demo import files
from leasehold_broker.demo.stage import broker

pytestmark = [pytest.mark.timeout(240)]


def told(place):
    """Key and state of each alert that the pager was sent, in order."""
    data = [json.loads(body)["data"] for _, _, body in place.requests]
    return [(one["key"], one["state"]) for one in data]


def again(house, name, text):
    """Restart a part with a changed configuration."""
    stage = house.stage
    house.wait_for(stage.stop(name))
    files.write(stage.layout.config(name), text)
    house.wait_for(stage.start(name))


def present(base_url, value):
    """Status of a call with this API key."""
    request = urllib.request.Request(
        f"{base_url}/chat/completions", b"{}", {"Authorization": f"Bearer {value}", "Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_whoever_uses_a_honeytoken_is_out_everywhere_and_the_pager_says_so(fragile_house):
    """Its lease ends at that sidecar, its other lease and every new one by the collector; a bad policy alerts too."""
    house, layout = fragile_house, fragile_house.stage.layout
    laid = layout.root / "honeytokens.json"
    made = broker("honeytoken", "create", "ci-image", "--kind", "openai", "--file", str(laid))
    value = house.wait_for(house.stage.processes.run(made)).out.strip()
    with HttpReceiver() as place:
        pager = files.write(layout.root / "pager.url", f"{place.url}/in")
        centre = layout.config("collector").read_text()
        again(house, "collector", centre + f'[[alerts]]\nname = "pager"\nkind = "webhook"\nurl_file = "{pager}"\n')
        guarded = layout.config("sidecar-a").read_text()
        again(house, "sidecar-a", guarded + f'[honeytokens]\nfile = "{laid}"\n')

        with house.client("sidecar-a") as here, house.client("sidecar-b") as there:
            mine = here.acquire(provider="openai", budget="0.01", ttl="5m", renew=False)
            other = there.acquire(provider="openai", budget="0.01", ttl="5m", renew=False)
            assert present(mine.endpoint("openai").base_url, value) == 401
            assert here.get(mine.name).state == "revoked"
            assert eventually(lambda: there.get(other.name).state == "revoked")
            with pytest.raises((PermissionDenied, LeaseEnded)) as refused:
                there.acquire(provider="openai", budget="0.01", ttl="5m", renew=False)
            assert refused.value.reason == "SUBJECT_BLOCKED"
            mine.abandon()
            other.abandon()
        assert eventually(lambda: told(place))
        [(key, state)] = told(place)
        assert key.startswith("finding.honeytoken/ci-image by ")
        assert (key.endswith(" agents/research/lead"), state) == (True, "open")
        with house.operator() as operator:
            [finding] = [record.event() for record in operator.events(type="finding.honeytoken")]
            [revocation] = [record.event() for record in operator.events(type="revocation.issued")]
        assert finding["details"]["honeytoken"] == "ci-image"
        assert revocation["details"]["revoked_by"] == "the rules for findings"
        assert value not in json.dumps([finding, revocation])

        good = layout.policy.read_text()
        sidecar = house.stage.serving("sidecar-a").process
        for text, expected in ((good.replace("version = 1", "version = 9", 1), "open"), (good, "resolved")):
            files.write(layout.policy, text)
            sidecar.send_signal(signal.SIGHUP)
            assert eventually(lambda expected=expected: ("policy.rejected/sidecar-a", expected) in told(place))
