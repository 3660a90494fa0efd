"""A key in Google Secret Manager, or in Azure Key Vault, is rotated by a real collector while a real sidecar serves it.

Both processes are configured as a user's are, with a workload token that is exchanged; what they ask over the vendors'
official libraries is answered by stand-ins on this machine.
"""

import contextlib
import tempfile
from pathlib import Path

import pytest
from tests.e2e.test_rotation import chat, told
from tests.fakes import cloud_logins
from tests.fakes.planted import MARKER
from tests.fakes.rotating_provider import FIRST, rotating_provider
from tests.fakes.rotation_stage import KEY, RotationStage, signed

from leasehold import LeaseholdClient
from leasehold.http import openai_kwargs

pytestmark = [pytest.mark.timeout(240)]
SECRET = "leasehold-test-openai"
STORE = f"""
[[keys.stores]]
environment = "test"
path = "leasehold-test"
token_file = "workload.jwt"
refresh_seconds = 5
keys = [{{ name = "{KEY}", provider = "openai", secret = "openai" }}]
"""


class Stage(RotationStage):
    """The stage of rotations, without a key file."""

    def __init__(self, root, origin, store):
        """Turn its files into those of a cloud's."""
        super().__init__(root, origin)
        for name in ("collector.toml", "sidecar.toml"):
            text = (root / name).read_text()
            local = '[keys]\nfile = "keys.json"\nmaster_key_file = "master.key"\n'
            assert local in text
            (root / name).write_text(text.replace(local, f"{STORE}{store}\n"))
        for name in ("keys.json", "master.key"):
            (root / name).unlink()
        self._write("workload.jwt", cloud_logins.WORKLOAD_TOKEN)


@pytest.mark.parametrize("cloud_of", [cloud_logins.google, cloud_logins.azure])
def test_a_key_of_a_cloud_is_rotated_while_it_serves(cloud_of):
    """Minted, stored beside the old version, promoted, drained, ended and forgotten, twice; every call is served."""
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lh-")))
        account, origin = stack.enter_context(rotating_provider())
        cloud = stack.enter_context(cloud_of(root))
        cloud.secrets.put(SECRET, FIRST)
        stage = Stage(root, origin, cloud.store)
        stack.enter_context(stage.process("collector"))
        stack.enter_context(stage.process("sidecar"))
        agent = stack.enter_context(LeaseholdClient(stage.agent, signed("agent")))
        lease = stack.enter_context(agent.acquire(provider="openai", ttl="10m"))
        assert chat(openai_kwargs(lease), stream=False) == (200, True)
        for number in (1, 2):  # nothing of the first is in the second one's way
            said = told(stage.centre, "keys", "rotate", KEY, "--watch").splitlines()
            assert said[-1].endswith("is done"), said
            assert chat(openai_kwargs(lease), stream=True) == (200, True)
            (alive,) = account.alive()
            assert cloud.secrets.readable(SECRET) == [alive.value]
            assert account.calls[-1].key == alive.value
            assert account.minted == number
        assert account.calls[0].key == FIRST
        assert all(call.alive for call in account.calls)
        drained = [str(event["details"]) for event in stage.events()]
        assert not any("not drained within" in each for each in drained), drained
        assert len(cloud.logins.given) >= 2  # each process for itself
        texts = [file.read_bytes() for file in root.rglob("*") if file.is_file()]
        texts.append("".join(stage.said).encode())
        assert all(MARKER.encode() not in text for text in texts)
        token = cloud_logins.WORKLOAD_TOKEN.encode()
        assert [text for text in texts if token in text] == [token]
