"""One suite for every minter: what is made is found again, ended once, never doubled, and no fault shows a secret."""

import logging

import pytest
from tests.fakes.planted import planted
from tests.fakes.provider_admin.worlds import AT_AWS, world_of
from tests.fakes.secret_scan import Scanner

from leasehold_broker.domain.rotation import SwitchOff
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.provider_keys import ProviderKeyFault, ProviderKeyState

MINTERS = ("openai", "google", "aws-access-key", "bedrock", "azure", "openrouter", "exec", "webhook")
"""All that make keys; what Anthropic's does instead is in a file of its own."""
LIMITED = tuple(kind for kind in MINTERS if kind != "azure")
"""Those that know a number of keys beyond which they make none."""
ROTATION = "rotations/agents-prod/17"


@pytest.fixture(params=MINTERS)
async def world(request, tmp_path):
    """A provider, and our minter of it."""
    moto = request.getfixturevalue("moto_address") if request.param in AT_AWS else ""
    with world_of(request.param, tmp_path, moto) as found:
        yield found
        await found.aclose()


def kind_of(request) -> str:
    """Which minter a test has."""
    return request.node.callspec.params["world"]


async def fault_of(doing) -> ProviderKeyFault:
    """Why it was not done."""
    with pytest.raises(ProviderKeyFault) as caught:
        await doing
    return caught.value


def plain(key) -> str:
    """The value in the clear."""
    return key.value.reveal().decode()


async def test_a_key_that_was_made_is_taken_and_known_again(world):
    """What is minted works at the provider, and its id is found from its value alone."""
    key = await world.minter().mint(ROTATION)
    assert plain(key) in world.living()
    assert await world.minter().current_id(key.value) == key.id


async def test_the_id_tells_nothing_of_the_value(world):
    """Ids are logged and audited: no part of the key is in one."""
    key = await world.minter().mint(ROTATION)
    assert Scanner({"value": key.value.reveal()}).hits("id", key.id.encode()) == []


async def test_minting_twice_leaves_one(world):
    """A repeat of the same rotation ends what the first attempt made."""
    others = set(world.living())
    first = await world.minter().mint(ROTATION)
    second = await world.minter().mint(ROTATION)
    assert set(world.living()) - others == {plain(second)}
    assert first.id


async def test_a_lost_answer_leaves_one_after_the_repeat(world):
    """The key is made, the answer is lost, the process is another one: its repeat leaves exactly one alive."""
    others = set(world.living())
    world.lose_answer()
    fault = await fault_of(world.minter().mint(ROTATION))
    assert fault.state is ProviderKeyState.UNREACHABLE
    again = await world.minter().mint(ROTATION)
    assert set(world.living()) - others == {plain(again)}


async def test_another_rotation_leaves_the_first_alone(world):
    """Each rotation ends only what was made for itself."""
    first = await world.minter().mint(ROTATION)
    world.current = plain(first)
    second = await world.minter().mint("rotations/agents-prod/18")
    assert {plain(first), plain(second)} <= set(world.living())
    assert first.id != second.id


async def test_what_is_ended_is_dead_and_ending_it_again_does_nothing(world):
    """End is idempotent, and an id that nobody knows is as good as ended."""
    key = await world.minter().mint(ROTATION)
    world.current = plain(key)
    other = await world.minter().mint("rotations/agents-prod/18")
    await world.minter().end(key.id)
    living = set(world.living())
    assert plain(key) not in living
    assert plain(other) in living
    await world.minter().end(key.id)
    assert set(world.living()) == living


UNDONE = {SwitchOff.INACTIVE, SwitchOff.RESTORABLE}
HOW = {
    "openai": SwitchOff.DELETED,
    "google": SwitchOff.RESTORABLE,
    "aws-access-key": SwitchOff.INACTIVE,
    "bedrock": SwitchOff.INACTIVE,
    "azure": SwitchOff.REPLACED,
    "openrouter": SwitchOff.INACTIVE,
    "exec": SwitchOff.INACTIVE,
    "webhook": SwitchOff.INACTIVE,
}


async def test_a_key_that_is_switched_off_is_dead_until_somebody_undoes_that(world, request):
    """As each provider can: no other key is touched, again it does nothing, what is undone can be ended."""
    key = await world.minter().mint(ROTATION)
    world.current = plain(key)
    other = await world.minter().mint("rotations/agents-prod/18")
    how = world.minter().switch_off
    assert how is HOW[kind_of(request)]
    for _ in range(2):
        await world.minter().disable(key.id)
        living = set(world.living())
        assert plain(key) not in living
        assert plain(other) in living
    if how is SwitchOff.INACTIVE:  # it is still there: a later rotation finds and ends it
        assert await world.minter().current_id(key.value) == key.id
    if how in UNDONE:
        world.revive(key.id)
        assert plain(key) in world.living()
        await world.minter().disable(key.id)
    await world.minter().end(key.id)
    assert plain(key) not in world.living()
    await world.minter().disable(key.id)
    assert plain(other) in world.living()


@pytest.mark.parametrize("world", ["exec", "webhook"], indirect=True)
async def test_what_cannot_make_a_key_inactive_is_asked_to_end_it(world):
    """By the configuration alone: an own program or service that was not said to know `disable` never hears of it."""
    world.can_disable = False
    key = await world.minter().mint(ROTATION)
    assert world.minter().switch_off is SwitchOff.CUSTOM
    await world.minter().disable(key.id)
    assert plain(key) not in world.living()
    with pytest.raises(KeyError):
        world.revive(key.id)


async def test_a_switch_off_that_is_denied_or_unheard_says_so(world):
    """No fault is taken for a key that is off: an answer lost, and a right that is missing."""
    key = await world.minter().mint(ROTATION)
    world.current = plain(key)
    for status, state in ((403, ProviderKeyState.DENIED), (503, None)):
        world.fail(status)
        fault = await fault_of(world.minter().disable(key.id))
        assert state in {None, fault.state}
        assert plain(key) in world.living()


async def test_a_sweep_ends_what_a_rotation_has_made_but_for_one(world, request):
    """Kept by its id, ended without; what other rotations have made is not touched. Two slots are two slots."""
    other = await world.minter().mint("rotations/agents-prod/16")
    world.current = plain(other)
    key = await world.minter().mint(ROTATION)
    await world.minter().sweep(ROTATION, key.id)
    assert {plain(key), plain(other)} <= set(world.living())
    await world.minter().sweep(ROTATION, "")
    await world.minter().sweep(ROTATION, "")
    assert plain(other) in world.living()
    assert (plain(key) in world.living()) is (kind_of(request) == "azure")


async def test_a_sweep_of_a_rotation_that_has_made_nothing_does_nothing(world):
    """It may be asked for before anything was made."""
    await world.minter().mint("rotations/agents-prod/16")
    before = set(world.living())
    await world.minter().sweep(ROTATION, "")
    assert set(world.living()) == before


async def test_a_key_of_nobody_has_no_id(world):
    """A value that the provider does not know is not taken for one that it does."""
    await world.minter().mint(ROTATION)
    assert await world.minter().current_id(Secret(planted("svcacct-nobody-knows-this-one-00000000").encode())) == ""


@pytest.mark.parametrize("world", LIMITED, indirect=True)
async def test_a_full_provider_says_so(world):
    """FULL, nothing made; what lives, lives on."""
    world.fill()
    before = set(world.living())
    fault = await fault_of(world.minter().mint(ROTATION))
    assert fault.state is ProviderKeyState.FULL
    assert set(world.living()) == before


async def test_a_dead_admin_key_is_a_state_of_its_own(world, request):
    """LOGIN_REFUSED where a provider tells the two apart; nothing is made."""
    world.admin_keys.value = planted("admin-that-has-ended")
    before = set(world.living())
    fault = await fault_of(world.minter().mint(ROTATION))
    told = ProviderKeyState.DENIED if kind_of(request) == "exec" else ProviderKeyState.LOGIN_REFUSED
    assert fault.state is told
    assert set(world.living()) == before


async def test_an_admin_key_that_cannot_be_read_asks_nobody(world):
    """LOGIN_REFUSED, from us alone."""
    before = world.living()
    world.admin_keys.value = ""
    fault = await fault_of(world.minter().mint(ROTATION))
    assert fault.state is ProviderKeyState.LOGIN_REFUSED
    assert world.living() == before


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (403, ProviderKeyState.DENIED),
        (429, ProviderKeyState.RATE_LIMITED),
        (503, ProviderKeyState.FAILING),
    ],
)
async def test_each_error_has_its_state(world, request, status, state):
    """Denied, limited, failing: by name, and the wait where the provider names one."""
    wait: float | None = 17.0
    if kind_of(request) == "exec":
        # A program has statuses of its own, and none that names seconds.
        state, wait = ProviderKeyState.UNREACHABLE if status == 503 else state, None
    key = await world.minter().mint("rotations/agents-prod/16")
    living = set(world.living())
    for ask in (lambda minter: minter.mint(ROTATION), lambda minter: minter.end(key.id)):
        world.fail(status, {"Retry-After": "17"})
        fault = await fault_of(ask(world.minter()))
        assert (fault.state, fault.retry_after_seconds) == (state, wait)
    assert set(world.living()) == living


async def test_no_fault_and_no_log_shows_a_secret(world, caplog):
    """Whatever goes wrong, neither the admin key nor a provider's key is in what is said: errors of providers echo."""
    caplog.set_level(logging.DEBUG)
    key = await world.minter().mint(ROTATION)
    said = []
    for status in (401, 403, 429, 503):
        world.fail(status)
        said.append(await fault_of(world.minter().mint(ROTATION)))
        world.fail(status)
        said.append(await fault_of(world.minter().current_id(key.value)))
        world.fail(status)
        said.append(await fault_of(world.minter().end(key.id)))
    world.lose_answer()
    said.append(await fault_of(world.minter().mint("rotations/agents-prod/18")))
    scanner = Scanner(
        {"admin key": world.admin_keys.value.encode(), **{value: value.encode() for value in world.living()}}
    )
    text = "\n".join(f"{fault!r} {fault} {fault.__cause__} {fault.__context__}" for fault in said)
    assert scanner.hits("faults", text.encode()) == []
    assert scanner.hits("logs", caplog.text.encode()) == []
