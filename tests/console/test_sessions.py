"""How long somebody stays signed in, and what ends it: asked of the sessions and of the flow, with a clock in hand."""

# ruff: noqa: ARG002 - signatures are the ports'

import pytest
from tests.fakes.counting_entropy import CountingEntropy
from tests.fakes.manual_clock import ManualClock

from leasehold_broker.domain.console_sessions import (
    ID_BYTES,
    SESSIONS_MAX,
    SESSIONS_OF_ONE_MAX,
    ConsoleSessions,
    SessionEnd,
    SessionLimits,
)
from leasehold_broker.domain.identity import Identity, Peer, Subject
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.secret import Secret
from leasehold_broker.domain.sign_in_brake import ADDRESSES_MAX, BURST, SECONDS_EACH, SignInBrake
from leasehold_broker.flows.console_sign_in import ConsoleSignIn
from leasehold_broker.ports.openid_provider import SignInAnswer, SignInQuestion

ISSUER = "https://login.example"
HERE = Peer(1000)
LIMITS = SessionLimits(idle_seconds=600, age_seconds=3600, check_seconds=300)
QUESTION = SignInQuestion("s", "n", "v")


class Provider:
    """An identity provider that does as told: its tokens say who they are of, and for how long."""

    def __init__(self, clock) -> None:
        """It gives ada ten minutes, renewable."""
        self.clock = clock
        self.subject, self.seconds, self.refresh = "ada", 600, True
        self.fault: Refusal | None = None
        self.renewed: list[bytes] = []
        self.ended: list[bytes] = []

    def _answer(self) -> SignInAnswer:
        if self.fault is not None:
            raise self.fault
        refresh = Secret(f"r-{len(self.renewed)}".encode()) if self.refresh else None
        return SignInAnswer(f"{self.subject} {self.seconds}", refresh)

    async def ask(self):
        """A question."""
        return QUESTION, "https://login.example/auth"

    async def redeem(self, question, answer) -> SignInAnswer:
        """Tokens."""
        return self._answer()

    async def renew(self, subject, refresh) -> SignInAnswer:
        """Tokens anew."""
        self.renewed.append(refresh.reveal())
        return self._answer()

    async def end(self, refresh) -> None:
        """Noted."""
        self.ended.append(refresh.reveal())


class Log:
    """Events, as long as the disk takes them."""

    def __init__(self) -> None:
        """Empty."""
        self.events, self.full = [], False

    async def record(self, event) -> None:
        """Keep it."""
        if self.full:
            raise Refusal(Reason.STORE_UNAVAILABLE, "full")
        self.events.append(event)


class World:
    """The flow over all that."""

    def __init__(self) -> None:
        """Nobody is signed in."""
        self.clock = ManualClock()
        self.provider, self.log = Provider(self.clock), Log()
        self.sessions = ConsoleSessions(LIMITS)
        self.roles = {"ada", "bob"}
        self.flow = ConsoleSignIn(
            self.provider, self.authenticate, self.sessions, self.log, self.clock, CountingEntropy()
        )

    async def authenticate(self, token, peer) -> Identity:
        """Whoever the token says, with a role."""
        subject, seconds = token.split()
        if subject not in self.roles:
            raise Refusal(Reason.OPERATOR_NOT_ALLOWED, "no role")
        return Identity(Subject(ISSUER, subject), {}, "", self.clock.now().wall_ms + int(seconds) * 1000)

    async def sign_in(self, replaced="") -> str:
        """The id of a new session."""
        return (await self.flow.answer(QUESTION, {}, HERE, replaced))[0]

    async def lives(self, identifier, *, used=True) -> bool:
        """Whether a request with it would be somebody's."""
        return await self.flow.find(identifier, HERE, used=used) is not None

    def ends(self) -> list:
        """Why sessions have ended, as the log says."""
        return [event.details["why"] for event in self.log.events if event.type == "operator.signed_out"]


@pytest.fixture
def world():
    """One."""
    return World()


async def test_idle(world):
    """Each use begins the idle time anew; what goes on by itself does not."""
    identifier = await world.sign_in()
    for _ in range(3):
        world.clock.advance(500)
        assert await world.lives(identifier)
    world.clock.advance(400)
    assert await world.lives(identifier, used=False)
    world.clock.advance(200)
    assert not await world.lives(identifier)
    assert world.ends() == ["idle"]
    assert not await world.lives(identifier)
    assert world.ends() == ["idle"]


async def test_age(world):
    """However busy: after its age a session ends."""
    identifier = await world.sign_in()
    for _ in range(7):
        world.clock.advance(500)
        assert await world.lives(identifier)
    world.clock.advance(100)
    assert not await world.lives(identifier)
    assert world.ends() == ["age"]


async def test_an_identity_that_cannot_be_renewed_ends_the_session(world):
    """Without a refresh token the session is over with the token, whatever the other bounds."""
    world.provider.refresh, world.provider.seconds = False, 90
    identifier = await world.sign_in()
    world.clock.advance(89)
    assert await world.lives(identifier)
    world.clock.advance(1)
    assert not await world.lives(identifier)
    assert world.ends() == ["identity_over"]
    assert world.provider.renewed == world.provider.ended == []


async def test_the_issuer_is_asked_again(world):
    """Every check_seconds, with the newest refresh token, and when the identity has little left; not more often."""
    identifier = await world.sign_in()
    world.clock.advance(299)
    assert await world.lives(identifier)
    assert world.provider.renewed == []
    world.clock.advance(1)
    assert await world.lives(identifier)
    assert await world.lives(identifier)
    assert world.provider.renewed == [b"r-0"]
    world.provider.seconds = 20
    world.clock.advance(300)
    assert await world.lives(identifier)
    assert await world.lives(identifier)
    assert world.provider.renewed == [b"r-0", b"r-1"]
    world.clock.advance(5)
    assert await world.lives(identifier)
    assert world.provider.renewed == [b"r-0", b"r-1", b"r-2"]
    world.clock.advance(500)
    assert await world.lives(identifier)
    assert len(world.provider.renewed) == 4


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (Refusal(Reason.IDENTITY_REJECTED, "invalid_grant"), "issuer_refused"),
        (Refusal(Reason.JWT_BAD_SIGNATURE, "no"), "issuer_refused"),
        ("eve", "no_role"),
        ("bob", "issuer_refused"),
    ],
)
async def test_who_is_revoked_at_the_issuer_is_signed_out(world, fault, why):
    """A refused renewal, a role that was taken away, somebody else's token: the session ends with the next check."""
    identifier = await world.sign_in()
    if isinstance(fault, str):
        world.provider.subject = fault
    else:
        world.provider.fault = fault
    world.clock.advance(300)
    assert not await world.lives(identifier)
    assert world.ends() == [why]
    assert len(world.sessions) == 0


@pytest.mark.parametrize("reason", [Reason.KEYS_OF_ISSUER_UNAVAILABLE, Reason.OVERLOADED, Reason.KEY_UNAVAILABLE])
async def test_an_issuer_that_is_away_ends_nothing_before_its_time(world, reason):
    """It is asked again with each request; the identity's own end ends the session."""
    identifier = await world.sign_in()
    world.provider.fault = Refusal(reason, "away")
    for _ in range(2):
        world.clock.advance(299)
        assert await world.lives(identifier)
    world.clock.advance(2)
    assert not await world.lives(identifier)
    assert world.ends() == ["identity_over"]


async def test_while_the_issuer_is_asked_others_go_on(world):
    """By the identity that is known; one whose identity is over waits for no one and gets nothing."""
    identifier = await world.sign_in()
    session = await world.flow.find(identifier, HERE, used=True)
    session.checking = True
    world.clock.advance(310)
    assert await world.lives(identifier)
    assert world.provider.renewed == []
    world.clock.advance(300)
    with pytest.raises(Refusal) as caught:
        await world.lives(identifier)
    assert caught.value.reason is Reason.OVERLOADED


async def test_what_cannot_be_recorded_does_not_happen(world):
    """A full disk signs nobody in; a session that is ended is ended all the same."""
    world.log.full = True
    with pytest.raises(Refusal):
        await world.sign_in()
    assert len(world.sessions) == 0
    world.log.full = False
    identifier = await world.sign_in()
    world.log.full = True
    with pytest.raises(Refusal):
        await world.flow.end(identifier, SessionEnd.ASKED)
    assert not await world.lives(identifier)


async def test_the_end_is_told_to_the_issuer(world):
    """So that what renews the session is of no use to whoever finds it."""
    identifier = await world.sign_in()
    await world.flow.end(identifier, SessionEnd.ASKED)
    await world.flow.end(identifier, SessionEnd.ASKED)
    assert world.provider.ended == [b"r-0"]
    assert world.ends() == ["asked"]


async def test_sessions_of_one_person_are_bounded(world):
    """The one that was used longest ago goes; somebody else's does not."""
    world.provider.subject = "bob"
    bob = await world.sign_in()
    world.provider.subject = "ada"
    ids = []
    for _ in range(SESSIONS_OF_ONE_MAX + 1):
        world.clock.advance(1)
        ids.append(await world.sign_in())
    assert [await world.lives(each) for each in ids] == [False] + [True] * SESSIONS_OF_ONE_MAX
    assert await world.lives(bob)
    assert world.ends() == ["replaced"]


def test_sessions_in_all_are_bounded():
    """One more is refused; none that lives is taken away for it."""
    sessions, clock, entropy = ConsoleSessions(LIMITS), ManualClock(), CountingEntropy()
    for number in range(SESSIONS_MAX):
        identity = Identity(Subject(ISSUER, str(number)), {}, "", clock.now().wall_ms + 10_000)
        sessions.open(identity, None, clock.now(), entropy.bytes(2 * ID_BYTES))
    with pytest.raises(Refusal) as caught:
        sessions.open(identity, None, clock.now(), entropy.bytes(2 * ID_BYTES))
    assert caught.value.reason is Reason.OVERLOADED
    assert len(sessions) == SESSIONS_MAX
    clock.advance(11)
    assert len(sessions.sweep(clock.now())) == SESSIONS_MAX
    assert len(sessions) == 0


def test_refused_sign_ins_are_bounded():
    """A burst, then one every few seconds, for each address by itself; a bounded number of addresses is known."""
    brake, clock = SignInBrake(), ManualClock()
    told = [brake.refused("1.2.3.4", clock.now()) for _ in range(BURST)]
    assert told == [False] * (BURST - 1) + [True]
    assert brake.is_spent("1.2.3.4", clock.now())
    assert not brake.is_spent("1.2.3.5", clock.now())
    clock.advance(SECONDS_EACH)
    assert not brake.is_spent("1.2.3.4", clock.now())
    assert brake.refused("1.2.3.4", clock.now())
    clock.advance(BURST * SECONDS_EACH)
    assert not brake.refused("1.2.3.4", clock.now())
    for number in range(ADDRESSES_MAX + 1):
        brake.refused(f"of {number}", clock.now())
    assert len(brake._spent_until_ns) == ADDRESSES_MAX


async def test_a_session_is_no_text(world):
    """Neither its id, which is kept as a digest alone, nor what its forms hold is shown."""
    identifier, session = await world.flow.answer(QUESTION, {}, HERE, "")
    assert len(identifier) == 43
    shown = f"{session!r} {world.sessions.__dict__!r} {QUESTION!r}"
    for secret in (identifier, session.csrf, "r-0"):
        assert secret not in shown
    assert not await world.lives("")
    assert not await world.lives("\udc80")
