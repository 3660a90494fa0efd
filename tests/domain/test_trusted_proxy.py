"""Whose word on the caller is taken, and how it is read."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from leasehold_broker.domain.identity import Peer, Transport
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.trusted_proxy import CLIENT_CERTIFICATE_CHARACTERS_MAX, TrustedProxy

AGENT = "spiffe://prod.example/agent"
DIGEST = "0123456789abcdef" * 4
SAID = f"Hash={DIGEST};URI={AGENT}"
ENVOY = Peer(1337, connection="pipe", transport=Transport.UNIX)
PROXY = TrustedProxy(1337, frozenset({AGENT}))
ONE_CALLER = TrustedProxy(1337, frozenset())


@pytest.mark.parametrize(
    "said",
    [
        SAID,
        f"By=spiffe://prod.example/sidecar;Hash={DIGEST};URI={AGENT}",
        f'By=spiffe://prod.example/sidecar;Hash={DIGEST};Subject="CN=a,O=\\"b\\";c=d";URI={AGENT};DNS=a.b;DNS=c.d',
        f'hash={DIGEST};uri="{AGENT}"',
    ],
)
def test_the_proxy_says_who_calls(said):
    """The caller is known by its certificate alone: the proxy's user and process are no part of it."""
    caller = PROXY.caller(ENVOY, [said])

    assert caller == Peer(None, DIGEST, AGENT)
    assert caller.connection == ""
    assert caller.binding == f"cert:{DIGEST}"
    assert not caller.satisfies("uid:1337")


@pytest.mark.parametrize(
    "peer",
    [
        Peer(1000, connection="pipe", transport=Transport.UNIX),
        Peer(0, connection="pipe", transport=Transport.UNIX),
        Peer(1337, connection="pipe", transport=Transport.TCP),
        Peer(None, "ab" * 32, AGENT, connection="pipe", transport=Transport.TCP),
    ],
)
@pytest.mark.parametrize("proxy", [PROXY, ONE_CALLER])
def test_nobody_else_s_word_is_taken(peer, proxy):
    """Another user, and the same user over TCP, stay who they are, whatever they say of a certificate."""
    assert proxy.caller(peer, [SAID]) is peer
    assert proxy.caller(peer, []) is peer


@pytest.mark.parametrize(
    "said",
    [
        [],
        [SAID, SAID],
        [""],
        [f"{SAID},{SAID}"],
        [f"{SAID};Hash={'0' * 64}"],
        [f"{SAID};uri={AGENT}"],
        [f"{SAID};"],
        [f";{SAID}"],
        [f"{SAID} "],
        [f"Hash={DIGEST}"],
        [f"URI={AGENT}"],
        [f"Hash={DIGEST.upper()};URI={AGENT}"],
        [f"Hash={DIGEST[:-1]};URI={AGENT}"],
        [f"Hash={DIGEST}\n;URI={AGENT}"],
        [f"Hash={DIGEST};URI={AGENT}/"],
        [f"Hash={DIGEST};URI=SPIFFE://prod.example/agent"],
        [f"Hash={DIGEST};URI=spiffe://prod.example/agent-2"],
        [f"Hash={DIGEST};URI=spiffe://prod.example/agen"],
        [f'Hash={DIGEST};Subject="CN=a;URI={AGENT}'],
        [f'Hash={DIGEST};Subject="CN=a\\";URI={AGENT}'],
        [SAID + ";DNS=" + "a" * CLIENT_CERTIFICATE_CHARACTERS_MAX],
    ],
)
def test_what_reads_otherwise_is_refused(said):
    """None, several, incomplete, of another form, or of somebody that the proxy may not speak for: nobody calls."""
    with pytest.raises(Refusal) as refused:
        PROXY.caller(ENVOY, said)

    assert refused.value.reason is Reason.PEER_MISMATCH


def test_without_callers_all_who_come_through_are_the_proxy():
    """They are its user, without its process; a certificate that is said all the same is refused, not passed over."""
    caller = ONE_CALLER.caller(ENVOY, [])

    assert (caller.binding, caller.connection) == ("uid:1337", "")
    with pytest.raises(Refusal, match="names no callers"):
        ONE_CALLER.caller(ENVOY, [SAID])


WORDS = [DIGEST, AGENT, SAID, f"Hash={DIGEST}", f"URI={AGENT}", "URI=", "By=", ";", ",", chr(34), "\\", " ", "=", "x"]


@given(st.lists(st.sampled_from(WORDS), max_size=8).map("".join))
@example(f"By=x;{SAID}")
def test_no_text_makes_two_callers_of_one(text):
    """Whatever is said, the caller is refused, or exactly one that is named: with the digest that stands there."""
    try:
        caller = PROXY.caller(ENVOY, [text])
    except Refusal as refusal:
        assert refusal.reason is Reason.PEER_MISMATCH  # noqa: PT017 - most texts are refused, some are not
    else:
        assert caller == Peer(None, DIGEST, AGENT)
        assert f"Hash={DIGEST}" in text
        assert AGENT in text
