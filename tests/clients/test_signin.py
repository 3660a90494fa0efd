"""Signing in: what an issuer, a browser or somebody on this machine may answer, and what is made of it."""

import contextlib
import re
import socket
import threading
import urllib.error
import urllib.parse
import urllib.request

import pytest
from tests.fakes.scripted_issuer import CLIENT, ScriptedIssuer, unsigned

from leasehold.errors import IdentityRejected, Unavailable
from leasehold.signin import code_flow, device_flow
from leasehold.signin.issuer import Client, discover
from leasehold.signin.loopback import HANDLERS_MAX, redirect


@pytest.fixture
def issuer():
    """One that answers as told."""
    with ScriptedIssuer().serving() as found:
        yield found


def refused(call) -> str:
    """The sentence with which it is refused."""
    with pytest.raises(IdentityRejected) as caught:
        call()
    assert caught.value.reason == "SIGN_IN_FAILED"
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"issuer": "https://other.example"}, "is of the issuer 'https://other.example'"),
        ({"issuer": None}, "exactly as it names itself"),
        ({"issuer": "\x1b[2Jx"}, "'?[2Jx'"),
        ({"token_endpoint": ""}, "token_endpoint must be"),
        ({"token_endpoint": None}, "no text of visible ASCII"),
        ({"token_endpoint": "http://token.example/token"}, "must be https"),
        ({"token_endpoint": "https://user@token.example/token"}, "neither a user"),
        ({"authorization_endpoint": "file:///etc/passwd"}, "authorization_endpoint must"),
        ({"authorization_endpoint": "https://a.example/\n"}, "no text of visible ASCII"),
        ({"code_challenge_methods_supported": ["plain"]}, "PKCE with S256"),
    ],
)
def test_a_configuration_that_cannot_be_trusted(issuer, change, why):
    """Another issuer's, an address in the clear, no PKCE: said in words that a terminal can show."""
    issuer.configuration |= change
    said = refused(lambda: discover(issuer.url))
    assert why in said
    assert said.isprintable()


@pytest.mark.parametrize(
    "name", ["http://login.example", "https://u@login.example", "ftp://x", "https://", "https://x/?a"]
)
def test_an_issuer_is_https(name):
    """Nothing is asked of any other address."""
    refused(lambda: discover(name))


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        ((302, {"Location": "https://elsewhere.example/"}, b""), "redirects"),
        ((200, {}, b"<html>"), "no JSON object"),
        ((200, {}, b"[1]"), "no JSON object"),
        ((200, {}, b" " * 300_000), "256 KiB"),
        ((404, {}, b"{}"), "status 404"),
    ],
)
def test_an_answer_that_is_none(issuer, raw, why):
    """A redirect is not followed; what is no JSON object, or too long, is refused."""
    issuer.raw = raw
    assert why in refused(lambda: discover(issuer.url))


def test_an_issuer_that_is_away():
    """Unavailable, with where it was looked for."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(Unavailable, match=f"127.0.0.1:{port}"):
        discover(f"http://127.0.0.1:{port}")


class Answering:
    """A browser that answers the address it is shown, each answer in a thread of its own."""

    def __init__(self, issuer: ScriptedIssuer, *answers: dict, **token) -> None:
        """Each answer holds what differs from the right one; `token` is in the ID token."""
        self.issuer, self.answers, self.token = issuer, answers or ({},), token
        self.asked: dict[str, str] = {}
        self.statuses: list[int] = []
        self._threads: list[threading.Thread] = []

    def __call__(self, address: str) -> None:
        """Be shown it."""
        self.asked = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(address).query))
        self.issuer.answers = [self.issuer.tokens(**({"nonce": self.asked["nonce"]} | self.token))]
        thread = threading.Thread(target=self._answer)
        self._threads.append(thread)
        thread.start()

    def _answer(self) -> None:
        for differs in self.answers:
            right = {"code": "c-1", "state": self.asked["state"], "iss": self.issuer.url}
            answer = {name: value for name, value in (right | differs).items() if value is not None}
            uri = f"{self.asked['redirect_uri']}?{urllib.parse.urlencode(answer, doseq=True)}"
            try:
                with urllib.request.urlopen(uri, timeout=20) as page:
                    self.statuses.append(page.status)
            except urllib.error.HTTPError as error:
                with error:
                    self.statuses.append(error.code)

    def join(self) -> None:
        """Until it has seen its pages."""
        for thread in self._threads:
            thread.join()


def sign_in(issuer, browser, wait_seconds=20.0, **client):
    """A whole sign-in."""
    try:
        return code_flow.sign_in(
            discover(issuer.url), Client(issuer.url, CLIENT, **client), browser, wait_seconds=wait_seconds
        )
    finally:
        browser.join()


def test_a_code_and_its_proof(issuer):
    """The code goes back with the verifier of the challenge; state, nonce and challenge are fresh each time."""
    first, second = Answering(issuer), Answering(issuer)
    tokens = sign_in(issuer, first)
    assert (tokens.subject, tokens.refresh) == ("ada", "")
    path, form = issuer.asked[0]
    assert (path, form["code"], form["redirect_uri"]) == ("/token", "c-1", first.asked["redirect_uri"])
    assert form["grant_type"] == "authorization_code"
    assert code_flow._challenge(form["code_verifier"]) == first.asked["code_challenge"]
    assert first.asked["code_challenge_method"] == "S256"
    sign_in(issuer, second)
    for name in ("state", "nonce", "code_challenge"):
        assert first.asked[name] != second.asked[name]
        assert len(first.asked[name]) >= 43
    assert issuer.asked[1][1]["code_verifier"] != form["code_verifier"]
    assert tokens.bearer not in repr(tokens)


@pytest.mark.parametrize(
    "wrong", [{"state": "guessed"}, {"state": None}, {"state": ""}, {"code": ["c-1", "c-2"]}, {"error": ["a", "b"]}]
)
def test_an_answer_of_somebody_else_ends_nothing(issuer, wrong):
    """A wrong state, or two readings, is told off; the right answer after it signs in."""
    browser = Answering(issuer, wrong, {})
    assert sign_in(issuer, browser).subject == "ada"
    assert browser.statuses == [400, 200]
    assert [form["code"] for _, form in issuer.asked] == ["c-1"]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({"iss": "https://other.example"}, "not of the issuer"),
        ({"iss": None}, "not of the issuer"),
        ({"error": "access_denied", "error_description": "no\x1b[2J"}, "access_denied: no?[2J"),
        ({"code": None}, "no code"),
        ({"code": ""}, "no code"),
    ],
)
def test_an_answer_that_signs_nobody_in(issuer, answer, why):
    """Another issuer's (RFC 9207), a refusal, none: the token endpoint is not asked."""
    assert why in refused(lambda: sign_in(issuer, Answering(issuer, answer)))
    assert issuer.asked == []


def test_an_issuer_that_never_states_itself(issuer):
    """Without RFC 9207 its answers need no iss; a wrong one is refused all the same."""
    issuer.configuration["authorization_response_iss_parameter_supported"] = False
    assert sign_in(issuer, Answering(issuer, {"iss": None})).subject == "ada"
    refused(lambda: sign_in(issuer, Answering(issuer, {"iss": "https://other.example"})))


def test_nobody_comes(issuer):
    """The wait ends, and nothing was asked."""
    assert "nobody signed in within" in refused(lambda: sign_in(issuer, Answering(issuer, {"state": "x"}), 0.5))
    assert issuer.asked == []


@pytest.mark.parametrize(
    ("token", "why"),
    [
        ({"nonce": "another"}, "not of this sign-in"),
        ({"nonce": None}, "not of this sign-in"),
        ({"iss": "https://other.example"}, "another issuer"),
        ({"aud": "other"}, "not for this client alone"),
        ({"aud": [CLIENT, "other"]}, "not for this client alone"),
        ({"aud": None}, "not for this client alone"),
        ({"azp": "other"}, "issued to another client"),
        ({"exp": 1}, "over already"),
        ({"exp": None}, "no end"),
        ({"exp": 1e12}, "no end"),
        ({"iat": 2**39}, "ahead"),
        ({"iat": None}, "no time of issue"),
        ({"sub": ""}, "names no subject"),
        ({"sub": "\x1b"}, "names no subject"),
        ({"header": {"alg": "none"}}, "not signed"),
        ({"header": {"alg": "ES256", "typ": "at+jwt"}}, "another kind of token"),
        ({"header": {"alg": "ES256", "typ": "logout+jwt"}}, "another kind of token"),
    ],
)
def test_an_id_token_that_is_not_ours(issuer, token, why):
    """Each rule of OpenID Connect Core, 3.1.3.7, that does not need the issuer's key."""
    said = refused(lambda: sign_in(issuer, Answering(issuer, **token)))
    assert why in said
    assert said.isprintable()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((400, {"error": "invalid_grant", "error_description": "used"}), "invalid_grant: used"),
        ({"token_type": "DPoP", "id_token": "x"}, "bound to a key"),
        ({"token_type": "Bearer"}, "no ID token"),
        ({"token_type": "Bearer", "id_token": 5}, "no text"),
        ({"token_type": "Bearer", "id_token": "a.b"}, "cannot be read"),
    ],
)
def test_an_answer_of_the_token_endpoint_that_is_refused(issuer, answer, why):
    """An error in its words; a token bound to a key that we do not have; no token."""
    browser = Answering(issuer)

    def show(address):
        browser(address)
        issuer.answers = [answer]

    show.join = browser.join
    assert why in refused(lambda: sign_in(issuer, show))


def test_an_access_token_for_a_resource(issuer):
    """With a resource its access token is shown; one that the collector could not verify is refused at once."""
    browser = Answering(issuer)

    def show(address):
        browser(address)
        issuer.answers[0]["access_token"] = access[0]

    show.join = browser.join
    access = [unsigned(issuer.claims(aud="leasehold-collector"))]
    assert sign_in(issuer, show, resource="https://c").bearer == access[0]
    assert browser.asked["resource"] == issuer.asked[0][1]["resource"] == "https://c"
    access[0] = "opaque"
    assert "access token is no JWT" in refused(lambda: sign_in(issuer, show, resource="https://c"))


def test_renewal_is_asked_for_with_consent(issuer):
    """offline_access counts with prompt=consent only (OpenID Connect Core, section 11)."""
    browser = Answering(issuer)
    sign_in(issuer, browser, scopes=("openid", "offline_access"))
    assert browser.asked["prompt"] == "consent"
    sign_in(issuer, browser)
    assert "prompt" not in browser.asked


def got(address: str, **headers) -> int:
    """Status of a request."""
    request = urllib.request.Request(address, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_the_redirect_address_is_for_one_answer():
    """Another host name, path or method is no answer; the page holds nothing of the request, and may run nothing."""
    with redirect("s" * 43) as address:
        right = f"{address.uri}?state={'s' * 43}&code=c"
        assert got(right, Host="evil.example") == 400
        assert got(right.replace("/signed-in", "/other")) == 400
        assert got(f"{address.uri}?{'&'.join(['a=b'] * 20)}&state={'s' * 43}") == 400
        assert got(f"{address.uri}?state=%F0%9F&code=c") == 400
        with pytest.raises(urllib.error.HTTPError, match="501") as caught:
            urllib.request.urlopen(right, b"post", timeout=20)
        caught.value.close()
        with urllib.request.urlopen(f"{right}&x=%3Cscript%3E", timeout=20) as page:
            assert b"script" not in page.read()
            assert page.headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
            assert page.headers["Cache-Control"] == "no-store"


def test_connections_that_say_nothing_hold_up_nobody():
    """Fewer than the bound leave room for the browser; the rest is turned away instead of kept."""
    with redirect("s" * 43) as address, contextlib.ExitStack() as stack:
        port = int(re.search(r":(\d+)/", address.uri)[1])
        for _ in range(HANDLERS_MAX - 1):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        assert got(f"{address.uri}?state={'s' * 43}&code=c") == 200


def test_a_port_that_is_taken():
    """It is said, instead of listening elsewhere than registered."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(IdentityRejected, match=f"cannot listen on 127.0.0.1:{port}"), redirect("s", port):
            raise AssertionError


INVITED = {
    "device_code": "d-1",
    "user_code": "ABCD",
    "verification_uri": "https://login.example/device",
    "expires_in": 60,
}
PENDING = (400, {"error": "authorization_pending"})


class Clock:
    """Time that passes while one waits."""

    def __init__(self) -> None:
        """At zero."""
        self.now, self.waits = 0.0, []

    def wait(self, seconds: float) -> None:
        """Pass."""
        self.waits.append(seconds)
        self.now += seconds


def by_device(issuer, *answers, invited=INVITED, clock=None, shown=None):
    """A device flow with these answers."""
    clock = clock or Clock()
    issuer.answers = [invited, *answers]
    return device_flow.sign_in(
        discover(issuer.url),
        Client(issuer.url, CLIENT),
        (shown if shown is not None else []).append,
        wait=clock.wait,
        clock=lambda: clock.now,
    )


def test_the_device_flow_waits_as_told(issuer):
    """5 s between questions, 5 s more after each slow_down; the code is shown, the device code is not."""
    clock, shown = Clock(), []
    tokens = by_device(
        issuer, PENDING, (400, {"error": "slow_down"}), PENDING, issuer.tokens(), clock=clock, shown=shown
    )
    assert (tokens.subject, clock.waits) == ("ada", [5, 5, 10, 10])
    assert (shown[0].code, shown[0].address) == ("ABCD", "https://login.example/device")
    assert "d-1" not in repr(shown)
    assert issuer.asked[1][1]["device_code"] == "d-1"


@pytest.mark.parametrize(
    ("invited", "answers", "why"),
    [
        (INVITED, [(400, {"error": "access_denied"})], "access_denied"),
        (INVITED, [(400, {"error": "expired_token"})], "expired_token"),
        (INVITED, [PENDING], "within 60 s"),
        ((400, {"error": "unauthorized_client"}), [PENDING], "unauthorized_client"),
        (INVITED | {"verification_uri": "http://login.example/device"}, [PENDING], "https address"),
        (INVITED | {"verification_uri_complete": "javascript:alert(1)"}, [PENDING], "https address"),
        (INVITED | {"user_code": "AB\x1b[2J"}, [PENDING], "no text of visible ASCII"),
        (INVITED | {"device_code": ""}, [PENDING], "lacks a code"),
        (INVITED | {"interval": -1}, [PENDING], "no number of seconds"),
    ],
)
def test_a_device_flow_that_signs_nobody_in(issuer, invited, answers, why):
    """Refused, run out, or an invitation that must not be shown."""
    assert why in refused(lambda: by_device(issuer, *answers, invited=invited))


def test_a_device_flow_backs_off_when_the_issuer_is_away(issuer):
    """Each time without an answer doubles the interval (section 3.5), up to a minute."""
    clock = Clock()
    tokens = by_device(issuer, (503, {}), PENDING, issuer.tokens(), clock=clock)
    assert tokens.subject == "ada"
    assert clock.waits == [5, 10, 10]


def test_an_issuer_without_a_device_flow(issuer):
    """It is said at once."""
    del issuer.configuration["device_authorization_endpoint"]
    assert "no device flow" in refused(lambda: by_device(issuer, PENDING))
