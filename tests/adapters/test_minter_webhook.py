"""The operator's service that makes keys: signatures, ids of messages, and what its misbehaviour comes to."""

from dataclasses import replace

import pytest
from tests.fakes.manual_clock import ManualClock
from tests.fakes.provider_admin.server import Fault, serving
from tests.fakes.provider_admin.worlds import ADMIN, AtWebhook

from leasehold_broker.adapters.system_clock import SystemClock
from leasehold_broker.config.minters import WebhookMinter
from leasehold_broker.config.read import ConfigError
from leasehold_broker.ports.provider_keys import ProviderKeyFault, ProviderKeyState


@pytest.fixture
async def world():
    """A service, and our minter of it."""
    found = AtWebhook()
    with serving(found.fake) as found.origin:
        yield found
        await found.aclose()


class Ticking(SystemClock):
    """A second has passed each time it is asked."""

    seconds = 0

    def now(self):
        """The time, and more."""
        self.seconds += 1
        now = super().now()
        return replace(now, wall_ms=now.wall_ms + 1000 * self.seconds)


async def test_a_repeat_is_the_same_message(world):
    """The receiver can tell a repeat by its id, whenever it comes, and two rotations apart."""
    world.clock = Ticking()
    for rotation in ("r", "r", "s"):
        await world.minter().mint(rotation)
    first, again, other = [one.headers["webhook-id"] for one in world.fake.asked]
    assert first == again != other
    assert len({one.headers["webhook-timestamp"] for one in world.fake.asked}) > 1


async def test_a_mint_that_comes_late_is_refused_by_its_time(world):
    """Held up for longer than the five minutes of the standard: no key is made, and none is ended."""
    key = await world.minter().mint("r")
    world.clock = ManualClock(world.clock.now().wall_ms - 301_000)
    with pytest.raises(ProviderKeyFault) as caught:
        await world.minter().mint("r")
    assert caught.value.state is ProviderKeyState.LOGIN_REFUSED
    assert world.living() == [key.value.reveal().decode()]


async def test_no_credential_of_ours_is_sent(world):
    """The signature is all: no cookie, no authorization, and the signing key in no header."""
    key = await world.minter().mint("r")
    await world.minter().end(key.id)
    for asked in world.fake.asked:
        assert not {"authorization", "cookie", "x-api-key"} & set(asked.headers)
        assert world.admin_keys.value not in f"{asked.headers} {asked.body}"
        assert "value" not in asked.body


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "an id and a value"),
        ({"id": "a"}, "an id and a value"),
        ({"id": "a b", "value": "v"}, "visible"),
        ({"id": 7, "value": "v"}, "visible"),
        ({"id": "sk-canary-1", "value": "sk-canary-1"}, "ids are logged"),
        ({"id": "a", "value": "sk canary"}, "white space"),
        ({"id": "a", "value": "sk-canary\u00e9"}, "printable"),
        ([1], "JSON object"),
    ],
)
async def test_what_it_does_wrong_is_said_without_a_secret(world, body, words):
    """MALFORMED, by name."""
    world.fake.faults.append(Fault(200, body=body))
    with pytest.raises(ProviderKeyFault) as caught:
        await world.minter().mint("r")
    assert caught.value.state is ProviderKeyState.MALFORMED
    assert words in str(caught.value)
    assert "canary" not in f"{caught.value} {caught.value.__context__!r}"


async def test_a_signing_key_that_is_none_signs_nothing(world):
    """LOGIN_REFUSED before anything is sent."""
    world.admin_keys.value = "whsec_***"
    with pytest.raises(ProviderKeyFault) as caught:
        await world.minter().mint("r")
    assert caught.value.state is ProviderKeyState.LOGIN_REFUSED
    assert world.fake.asked == []


def test_roots_that_cannot_be_read_are_said_at_the_start(world, tmp_path):
    """Before a rotation is begun."""
    world.table = lambda: WebhookMinter("https://keys.internal/", ADMIN, str(tmp_path / "none.pem"))
    with pytest.raises(ConfigError, match=r"none\.pem"):
        world.minter()
