"""Rotations in Google Secret Manager and Azure Key Vault: a death at each request, a reader at each moment.

ROTATE_DEATHS=all (make rotate-crash) dies at every moment; else at some.
"""

import contextlib
import copy
import os

import pytest
from tests.fakes import cloud_stores
from tests.fakes.planted import planted

from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.key_admin import KeyStage
from leasehold_broker.ports.key_source import SourceFault, SourceState

KEY = "anthropic-prod"
OLD, NEW = planted("old"), planted("new")
R = "rotation-1"
ALL = os.environ.get("ROTATE_DEATHS") == "all"
pytestmark = [pytest.mark.timeout(3600 if ALL else 300)]


def moments(count, start, step):
    """Where to die."""
    return range(count) if ALL else range(start, count, step)


@pytest.fixture(params=["gcp", "azure"])
def cloud(request, tmp_path):
    """The secrets, and what makes a store of ours over them."""
    with cloud_stores.google() if request.param == "gcp" else cloud_stores.azure(tmp_path) as found:
        found[0].put(KEY, OLD)
        yield found


class Life:
    """Lives of a process that does the same steps; each dies at one request."""

    def __init__(self, cloud, reader):
        """Over these secrets; `reader` is another process."""
        self.secrets, self.store = cloud
        self.reader, self.admin = reader, None
        self.dies_at, self.passed, self.moments = -1, 0, []
        self.secrets.gate = self.gate

    def gate(self, _asked, _where):
        """Each request is two moments: before it has arrived, and when it is done."""
        if not self.moments or self.moments[-1] != self.secrets.secrets:
            self.moments.append(copy.deepcopy(self.secrets.secrets))
        self.passed += 1
        return self.passed - 1 != self.dies_at

    async def do(self, step):
        """One step, again by a new process if it dies."""
        if self.admin is None:
            self.admin = self.store(KEY)
        try:
            await step(self.admin)
        except SourceFault as fault:
            if fault.state is not SourceState.UNREACHABLE:
                raise
            await self.aclose()
            self.dies_at = -1
            await self.do(step)

    async def aclose(self):
        """The process ends."""
        if self.admin is not None:
            await self.admin.aclose()
            self.admin = None

    async def read(self, moment):
        """What a reader is served at this moment."""
        now, self.secrets.secrets = self.secrets.secrets, copy.deepcopy(moment)
        gate, self.secrets.gate = self.secrets.gate, lambda _asked, _where: True
        try:
            return (await self.reader.read(KEY)).value.reveal().decode()
        finally:
            self.secrets.secrets, self.secrets.gate = now, gate

    async def served(self):
        """At all moments since the last time this was asked, each once, in order."""
        found = [await self.read(moment) for moment in [*self.moments, self.secrets.secrets]]
        self.moments = []
        return list(dict.fromkeys(found))


async def steps(life, *, promoted):
    """A rotation, or one that is given up; gives what readers saw in each step."""
    seen = []
    await life.do(lambda admin: admin.put_pending(KEY, Secret(NEW.encode()), R))
    seen.append(await life.served())
    if promoted:
        await life.do(lambda admin: admin.promote(KEY, R))
        seen.append(await life.served())
    await life.do(lambda admin: admin.retire(KEY, R))
    await life.aclose()
    return [*seen, await life.served()]


async def count(cloud, reader, *, promoted):
    """How many moments it has."""
    life, before = Life(cloud, reader), copy.deepcopy(cloud[0].secrets)
    await steps(life, promoted=promoted)
    cloud[0].secrets = before
    return life.passed


@pytest.fixture
async def reader(cloud):
    """Another process that reads."""
    found = cloud[1](KEY)
    yield found
    await found.aclose()


async def test_a_rotation_survives_a_death_at_every_request(cloud, reader, progress):
    """Readers see the old value until the promotion, then the new one, and nothing else; the old one is gone."""
    secrets, store = cloud
    before = copy.deepcopy(secrets.secrets)
    for moment in moments(await count(cloud, reader, promoted=True), 0, 3):
        progress(f"death {moment}")
        secrets.secrets = copy.deepcopy(before)
        life = Life(cloud, reader)
        life.dies_at = moment
        pending, promoted, retired = await steps(life, promoted=True)
        assert (pending, retired) == ([OLD], [NEW]), moment
        assert promoted == [OLD, NEW], moment
        assert set(secrets.readable(KEY)) == {NEW}, moment
    secrets.gate = lambda _asked, _where: True
    admin = store(KEY)
    assert (await admin.stages(KEY, R)).mine
    await admin.aclose()


async def test_a_rotation_that_is_given_up_survives_a_death_at_every_request(cloud, reader, progress):
    """Readers see the old value and nothing else; the new one cannot be read any more, and the next rotation works."""
    secrets, store = cloud
    before = copy.deepcopy(secrets.secrets)
    for moment in moments(await count(cloud, reader, promoted=False), 1, 5):
        progress(f"death {moment}")
        secrets.secrets = copy.deepcopy(before)
        life = Life(cloud, reader)
        life.dies_at = moment
        assert await steps(life, promoted=False) == [[OLD], [OLD]], moment
        assert set(secrets.readable(KEY)) <= {OLD, NEW}, moment
        life.dies_at = -1
        admin = store(KEY)
        assert not (await admin.stages(KEY, R)).mine
        await admin.put_pending(KEY, Secret(b"sk-next"), "rotation-2")
        await admin.promote(KEY, "rotation-2")
        await admin.retire(KEY, "rotation-2")
        await admin.aclose()
        assert NEW not in secrets.readable(KEY), moment
        assert await life.read(secrets.secrets) == "sk-next"


async def test_another_value_of_the_same_rotation_after_a_death_is_the_one_that_is_kept(cloud, reader):
    """The minted value died with the process: what it had added is never served, and not left to be read."""
    secrets, store = cloud
    before = copy.deepcopy(secrets.secrets)
    for moment in moments(20, 3, 4):
        secrets.secrets = copy.deepcopy(before)
        life = Life(cloud, reader)
        life.dies_at = moment
        first, second = store(KEY), store(KEY)
        with contextlib.suppress(SourceFault):
            await first.put_pending(KEY, Secret(b"sk-lost"), R)
        life.dies_at = -1
        await second.put_pending(KEY, Secret(NEW.encode()), R)
        kept = (await second.staged(KEY, KeyStage.PENDING)).reveal().decode()
        assert await life.served() == [OLD], moment
        await second.promote(KEY, R)
        await second.retire(KEY, R)
        assert kept in {"sk-lost", NEW}
        assert set(secrets.readable(KEY)) - {OLD} == {kept}, moment
        await first.aclose()
        await second.aclose()


@pytest.mark.parametrize("when", ["pending", "promoted"])
async def test_what_another_hand_has_set_meanwhile_serves(cloud, when):
    """At once, and it stays: a promotion is refused, and giving up leaves it."""
    secrets, store = cloud
    admin = store(KEY)
    await admin.put_pending(KEY, Secret(NEW.encode()), R)
    if when == "promoted":
        await admin.promote(KEY, R)
    secrets.put(KEY, planted("by-hand"))
    assert (await admin.read(KEY)).value == Secret(planted("by-hand").encode())
    if when == "pending":
        with pytest.raises(SourceFault) as caught:
            await admin.promote(KEY, R)
        assert caught.value.state is SourceState.CONFLICT
    await admin.retire(KEY, R)
    assert (await admin.read(KEY)).value == Secret(planted("by-hand").encode())
    await admin.aclose()


async def test_another_hand_between_our_reading_and_our_writing(cloud, reader):
    """It sets a version in the midst of our step: it serves, also when ours was put there after it."""
    secrets, store = cloud
    before = copy.deepcopy(secrets.secrets)
    for moment in range(12):
        secrets.secrets = copy.deepcopy(before)
        life = Life(cloud, reader)

        def gate(asked, where, life=life, moment=moment):
            if life.passed == moment:
                secrets.put(KEY, planted("by-hand"))
            return Life.gate(life, asked, where)

        secrets.gate = gate
        admin = store(KEY)
        with contextlib.suppress(SourceFault):
            await admin.put_pending(KEY, Secret(NEW.encode()), R)
        if life.passed <= moment:
            break
        secrets.gate = lambda _asked, _where: True
        if (await admin.stages(KEY, R)).pending:
            await admin.retire(KEY, R)
        assert (await admin.read(KEY)).value == Secret(planted("by-hand").encode()), moment
        await admin.aclose()
    assert moment > 4


async def test_others_tags_and_annotations_stay(cloud):
    """What an operator has written beside the key is there after a rotation."""
    secrets, store = cloud
    kept = secrets.secrets[KEY]
    kept.annotations["owner"] = kept.versions[-1].tags["owner"] = "platform team"
    kept.aliases["blue"] = 1
    admin = store(KEY)
    await admin.put_pending(KEY, Secret(NEW.encode()), R)
    await admin.promote(KEY, R)
    assert kept.aliases["blue"] == 1
    assert kept.annotations["owner"] == "platform team"
    if kept.versions[-1].tags:
        assert kept.versions[-1].tags["owner"] == "platform team"
    await admin.aclose()
