"""A whole rotation by each real minter, with deaths between and during the requests to its provider.

ROTATE_DEATHS=all (make rotate-crash) dies at every request, in each way; else at a few, which ROTATE_SEED chooses.
"""

import contextlib
import logging
import os
import random

import pytest
from tests.fakes.provider_admin.worlds import AT_AWS, world_of
from tests.fakes.rotation_at_provider import AtProvider, Fate
from tests.fakes.rotation_world import KEY
from tests.fakes.secret_scan import Scanner
from tests.fakes.static_role import AtStaticRole
from tests.fakes.vault_proxy import VaultProxy

from leasehold_broker.domain.rotation import RotationState

ALL = os.environ.get("ROTATE_DEATHS") == "all"
SEED = int(os.environ.get("ROTATE_SEED", "7"))
MARKED = ("openai", "google", "aws-access-key", "bedrock", "openrouter")
"""What is made late is found again, by its mark."""
OVER_HTTP = (*MARKED, "webhook", "azure", "anthropic")
"""A webhook that hears a mint after the promotion ends the key that serves, as it has promised: no late ones there."""
SLOTS = 2
pytestmark = [pytest.mark.timeout(3600 if ALL else 240)]


@contextlib.asynccontextmanager
async def provider(kind, folder, moto):
    """A fresh one, with a key of ours in use."""
    folder.mkdir(exist_ok=True)
    with world_of(kind, folder, moto) as world:
        if kind == "anthropic":
            old = world.fake.add("ours before")[1]
            at = AtProvider(world, old, lambda: world.fake.add("ours now")[1])
        else:
            old = world.current or (await world.minter().mint("before")).value.reveal().decode()
            at = AtProvider(world, old)
        if kind == "azure":
            at.slots = SLOTS
        if kind != "exec":
            world.fake.gate = at.pass_request
        try:
            yield at
        finally:
            await world.aclose()


async def rotate(at, caplog):
    """To its end: one new key, the old one dead, no key of others touched, and nothing secret said."""
    await at.ask()
    rotation = await at.until_over()
    assert rotation.state is RotationState.DONE, rotation
    served, living = at.store.entries[KEY].current, at.living()
    assert served != at.old
    assert at.old not in living
    if at.slots == SLOTS:
        assert len(living) == SLOTS
    else:
        assert living == at.others | {served}
    told = {"admin key": at.world.admin_keys.value, **{value: value for value in at.ever}}
    scanner = Scanner({label: value.encode() for label, value in told.items()})
    said = repr((at.log.events, at.log.rotations, at.told))
    assert scanner.hits("events", said.encode()) == []
    assert scanner.hits("logs", caplog.text.encode()) == []
    caplog.clear()  # read once: a run has thousands of lives


def scenarios(kind, requests):
    """Where to die, and how: each request once in each way, or some of them."""
    fates = list(Fate) if kind in MARKED else [Fate.LOST, Fate.DONE]
    every = [[(at, fate)] for at in range(requests) for fate in fates]
    if ALL:
        return every + [[(at, Fate.DONE), (after, Fate.LOST)] for at in range(requests) for after in range(4)]
    chance = random.Random(f"{SEED} {kind}")
    return [[(chance.randrange(requests), fate)] for fate in fates] + [
        [(chance.randrange(requests // 2), Fate.DONE), (chance.randrange(4), chance.choice(fates))]
    ]


@pytest.mark.parametrize("kind", OVER_HTTP)
async def test_a_death_at_any_request_ends_with_the_new_key_alone(kind, tmp_path, caplog, request, progress):
    """Whatever became of the request that was under way; a late one is swept before the old key's end is told."""
    caplog.set_level(logging.DEBUG)
    moto = request.getfixturevalue("moto_address") if kind in AT_AWS else ""
    async with provider(kind, tmp_path, moto) as at:
        await rotate(at, caplog)
        requests = at.requests
    assert requests >= 5
    every = scenarios(kind, requests)
    for number, deaths in enumerate(every):
        progress(f"{number} of {len(every)} deaths")
        async with provider(kind, tmp_path, moto) as at:
            at.deaths_at = list(deaths)
            if any(fate is Fate.LATE for _, fate in deaths):
                at.late_max = 1
            try:
                await rotate(at, caplog)
            except AssertionError as wrong:
                wrong.add_note(f"{kind}, dying at {deaths} of {requests}: {at.effects}")
                raise


async def test_a_death_at_any_effect_of_a_program_ends_with_the_new_key_alone(tmp_path, caplog, progress):
    """The program has made a key and is killed before it says so, and we die around each of our own effects."""
    caplog.set_level(logging.DEBUG)
    async with provider("exec", tmp_path / "clean", "") as at:
        await rotate(at, caplog)
        moments = range(len(at.effects))
    for moment in moments if ALL else random.Random(SEED).sample(moments, 3):
        progress(f"moment {moment} of {len(moments)}")
        async with provider("exec", tmp_path / str(moment), "") as at:
            at.deaths = [moment, 1 + moment % 5]
            at.world.lose_answer()
            await rotate(at, caplog)


class AtVault(AtProvider):
    """A static role: its only password changes when it is minted, so what our store serves is dead until promotion."""

    def __init__(self, world):
        """Its password is in use."""
        super().__init__(world, world.current)
        self.rotated = 0

    def check(self):
        """Not from moment to moment."""

    def pass_path(self, path, where):
        """The gate of the proxy before the server."""
        passed = self.pass_request(None, where)
        self.rotated += passed and where == "before" and "/rotate-role/" in path
        return passed


async def test_a_death_at_any_request_leaves_a_static_role_with_one_new_password(
    bao, postgres, tmp_path, caplog, progress
):
    """The role is rotated once more for each death at most; our store has what the database takes, and it alone."""
    caplog.set_level(logging.DEBUG)
    proxy = VaultProxy(bao.address)

    async def once(number, deaths):
        role = AtStaticRole(bao, postgres, tmp_path / f"token{number}", proxy.address)
        at = AtVault(role)
        at.deaths_at = list(deaths)
        proxy.gate = at.pass_path
        try:
            await rotate(at, caplog)
            assert 1 <= at.rotated <= 1 + len(deaths)
            assert role.taken(at.store.entries[KEY].current)
        finally:
            await role.aclose()
        return at.requests

    try:
        requests = await once(0, [])
        every = scenarios("vault-static-role", requests)
        for number, deaths in enumerate(every, 1):
            progress(f"{number} of {len(every)} deaths")
            await once(number, deaths)
    finally:
        proxy.close()
