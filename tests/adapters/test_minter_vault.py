"""The password of a static role, as a real OpenBao makes it at a real PostgreSQL."""

import pytest
from tests.fakes.static_role import AtStaticRole

from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.provider_keys import ProviderKeyFault, ProviderKeyState


@pytest.fixture
async def role(bao, postgres, tmp_path):
    """A role of its own for each test."""
    found = AtStaticRole(bao, postgres, tmp_path / "token")
    yield found
    await found.aclose()


def plain(key) -> str:
    """The password in the clear."""
    return key.value.reveal().decode()


async def fault_of(doing) -> ProviderKeyFault:
    """Why it was not done."""
    with pytest.raises(ProviderKeyFault) as caught:
        await doing
    return caught.value


async def test_the_newest_password_is_the_only_one(role):
    """Each mint makes another; it is known again, the older is not."""
    first = await role.minter().mint("r")
    assert role.taken(plain(first))
    second = await role.minter().mint("s")
    assert (role.taken(plain(first)), role.taken(plain(second))) == (False, True)
    assert await role.minter().current_id(second.value) == second.id
    assert await role.minter().current_id(first.value) == ""


async def test_a_password_that_our_store_does_not_have_is_made_anew_too(role):
    """The engine has rotated by itself, and that is the one that leaked: a rotation never calls it new."""
    role.bao.ask("POST", f"{role.mount}/rotate-role/agents", {})
    leaked = role.held()["password"]
    assert leaked != role.current
    key = await role.minter().mint("r")
    assert (role.taken(leaked), role.taken(plain(key))) == (False, True)


async def test_ending_a_password_that_is_not_in_force_does_nothing(role):
    """That of before is dead already; that of now dies once; to sweep has nothing to find."""
    first = await role.minter().mint("r")
    second = await role.minter().mint("s")
    await role.minter().end(first.id)
    await role.minter().sweep("s", "")
    assert role.taken(plain(second))
    await role.minter().end(second.id)
    assert not role.taken(plain(second))
    after = role.held()["last_vault_rotation"]
    await role.minter().end(second.id)
    assert role.held()["last_vault_rotation"] == after


async def test_what_the_server_refuses_has_a_state_and_shows_no_secret(role):
    """A role that is not there; a token that is none."""
    key = await role.minter().mint("r")
    role.bao.ask("DELETE", f"{role.mount}/static-roles/agents")
    fault = await fault_of(role.minter().mint("s"))
    assert fault.state in {ProviderKeyState.MALFORMED, ProviderKeyState.FAILING}
    assert plain(key) not in str(fault)
    role.token.write_text("hvs.canary-of-a-dead-token")
    fault = await fault_of(role.minter().current_id(Secret(b"x")))
    assert fault.state is ProviderKeyState.LOGIN_REFUSED
    assert "canary" not in f"{fault} {fault.__context__!r}"
