"""Signing in at the console by SAML: what was asked for comes in once, and nothing else does."""

import asyncio
import base64
import urllib.parse
import zlib

import pytest
from lxml import etree
from tests.console.conftest import World, console
from tests.fakes import people
from tests.fakes.certified_collector import House
from tests.fakes.saml_idp import SamlIdp, Words, posted

from leasehold_broker.domain.sign_in_brake import BURST

pytestmark = [pytest.mark.timeout(150)]
IDP = "https://idp.example"
SAML = f"""
[console.saml]
idp = "{IDP}"
sso_url = "{IDP}/sso"
certificate_file = "idp.pem"
{people.operators(IDP, "responder", "auditor")}"""


class SamlWorld(World):
    """A collector at whose console people sign in by SAML."""

    def __init__(self, house: House, idp: SamlIdp, port: int) -> None:
        """With this provider."""
        super().__init__(house, None, port)
        self.idp = idp

    def somebody(self) -> people.Browser:
        """A browser."""
        return people.Browser("", str(self.house.folder / "ca.pem"))

    async def asked(self, browser: people.Browser) -> tuple[str, str]:
        """Asks to sign in; gives the request's id and the relay state, as the provider sees them."""
        answer = await self.get(browser, "/saml/sign-in")
        assert answer.status == 303
        where = urllib.parse.urlsplit(answer.headers["Location"])
        assert f"https://{where.netloc}{where.path}" == f"{IDP}/sso"
        shown = dict(urllib.parse.parse_qsl(where.query))
        request = etree.fromstring(zlib.decompress(base64.b64decode(shown["SAMLRequest"]), wbits=-15))
        assert request.get("AssertionConsumerServiceURL") == f"{self.origin}/saml/acs"
        assert request.findtext("{*}Issuer") == f"{self.origin}/saml/metadata"
        return request.get("ID"), shown["RelayState"]

    def response(self, request_id: str, **changes) -> str:
        """What the provider has the browser post."""
        ours = {"audience": f"{self.origin}/saml/metadata", "acs": f"{self.origin}/saml/acs"}
        return posted(self.idp.respond(Words(**({"idp": IDP, "request_id": request_id} | ours | changes))))

    async def answer(self, browser: people.Browser, response: str, relay_state: str) -> people.Fetched:
        """Posts it, as a page of the provider would: from another site."""
        form = {"SAMLResponse": response, "RelayState": relay_state}
        return await self.post(browser, "/saml/acs", form, Origin=IDP, Sec_Fetch_Site="cross-site")


@pytest.fixture(scope="module")
def idp():
    """The provider."""
    return SamlIdp()


@pytest.fixture
async def world(idp):
    """A collector with a console."""
    async with console(SAML, "idp.pem", idp.pem, 0o644) as (house, port):
        yield SamlWorld(house, idp, port)


async def test_signing_in_by_saml(world):
    """The role follows from the attribute; the cookie of the question comes across sites, the session's does not."""
    browser = world.somebody()
    first = await world.get(browser, "/")
    assert "/saml/sign-in" in first.text
    assert 'href="/sign-in"' not in first.text
    assert (await world.get(browser, "/sign-in")).status == 404
    request_id, relay_state = await world.asked(browser)
    cookies = {one.name: one for one in browser.jar}
    assert cookies["__Host-leasehold-saml"].get_nonstandard_attr("SameSite") == "None"
    done = await world.answer(browser, world.response(request_id), relay_state)
    assert (done.status, done.headers["Location"]) == (303, "/")
    session = {one.name: one for one in browser.jar}
    assert session.keys() == {"__Host-leasehold"}
    assert session["__Host-leasehold"].get_nonstandard_attr("SameSite") == "Lax"
    overview = await world.get(browser, "/")
    assert "ada@example (responder)" in overview.text
    (event,) = await world.events("operator.signed_in")
    assert (event["subject"]["issuer"], event["details"]["by"]) == (IDP, "saml")

    csrf = await world.csrf(browser)
    look = await world.post(browser, "/revocations/preview", {"kind": "subject", "value": "agents/*", "csrf": csrf})
    done = await world.post(browser, "/revocations", look.form | {"expect": "0"})
    assert done.status == 303
    (issued,) = await world.events("revocation.issued")
    assert issued["details"]["revoked_by"] == f"ada@example ({IDP})"


async def test_an_assertion_is_taken_once(world):
    """The same response again, also with a question of its own in hand, and a second one to one question: refused."""
    browser = world.somebody()
    request_id, relay_state = await world.asked(browser)
    kept = {"Cookie": f"__Host-leasehold-saml={next(one.value for one in browser.jar)}"}
    response = world.response(request_id)
    assert (await world.answer(browser, response, relay_state)).status == 303
    thief = world.somebody()
    again = {"SAMLResponse": response, "RelayState": relay_state}
    refused = await world.post(thief, "/saml/acs", again, **kept)
    assert refused.status == 401
    second = again | {"SAMLResponse": world.response(request_id, assertion_id="_another-1234")}
    assert (await world.post(thief, "/saml/acs", second, **kept)).status == 401
    assert [one["reason"] for one in await world.events("identity.refused")] == ["REPLAY_DETECTED"] * 2
    assert len(await world.events("operator.signed_in")) == 1
    assert not list(thief.jar)


async def test_a_response_that_nobody_asked_for(world):
    """Without this browser's question (IdP-initiated, another browser's, another relay state): nothing is read."""
    browser, other = world.somebody(), world.somebody()
    request_id, relay_state = await world.asked(browser)
    _, others = await world.asked(other)
    for who, relay in ((world.somebody(), relay_state), (other, relay_state), (browser, others), (browser, "")):
        assert (await world.answer(who, world.response(request_id), relay)).status == 400
    doubled = {"SAMLResponse": [world.response(request_id)] * 2, "RelayState": relay_state}
    assert (await world.post(browser, "/saml/acs", doubled, Origin=IDP)).status == 400
    assert (await world.get(browser, "/saml/acs")).status == 405
    assert await world.events("identity.refused") == []
    assert (await world.answer(other, world.response(request_id), others)).status == 401
    (event,) = await world.events("identity.refused")
    assert "another question" in event["details"]["detail"]
    assert await world.events("operator.signed_in") == []


async def test_responses_that_sign_nobody_in(world):
    """Forged, changed, for somebody without a role, no response at all: no session, and an event that says why."""
    browser = world.somebody()
    said = []
    for make in (
        lambda request_id: posted(SamlIdp().respond(Words(IDP, "a", "b", request_id))),
        lambda request_id: world.response(request_id, name="eve@example", groups=("sales",)),
        lambda request_id: world.response(request_id, audience="https://other.example"),
        lambda _: "PGEvPg==",
        lambda _: "",
    ):
        request_id, relay_state = await world.asked(browser)
        refused = await world.answer(browser, make(request_id), relay_state)
        said.append(refused.status)
        assert "Location" not in refused.headers
        assert [one.name for one in browser.jar] == []
    assert said == [401, 403, 401, 401, 401]
    details = [one["details"]["detail"] for one in await world.events("identity.refused")]
    assert ["not the identity provider's" in details[0], "audience" in details[1]] == [True, True]
    assert len(details) == 4
    (denied,) = await world.events("audit.refused")
    assert (denied["reason"], "eve@example" in denied["details"]["detail"]) == ("OPERATOR_NOT_ALLOWED", True)
    assert await world.events("operator.signed_in") == []


async def test_a_flood_of_refused_sign_ins(world, monkeypatch):
    """Beyond the bound nothing is read and no event is left, but for the last, which says so."""
    monkeypatch.setattr("leasehold_broker.domain.sign_in_brake.SECONDS_EACH", 600)
    browser = world.somebody()
    _, relay_state = await world.asked(browser)
    kept = {"Cookie": f"__Host-leasehold-saml={next(one.value for one in browser.jar)}"}
    bad = {"SAMLResponse": "PGEvPg==", "RelayState": relay_state}
    statuses = [(await world.post(browser, "/saml/acs", bad, **kept)).status for _ in range(BURST + 3)]
    assert statuses == [401] * BURST + [429] * 3
    refused = await world.events("identity.refused")
    assert len(refused) == BURST
    assert "turned away for a while" in refused[-1]["details"]["detail"]
    assert "turned away" not in refused[-2]["details"]["detail"]


async def test_the_metadata_are_public(world):
    """For whoever sets up the provider; without a session, and dressed as every answer."""
    answer = await world.get(world.somebody(), "/saml/metadata")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/samlmetadata+xml"
    assert f"{world.origin}/saml/acs" in answer.text
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_a_flood_of_questions_takes_no_room(world):
    """What was asked is kept by the browsers; each has its own."""
    browsers = [world.somebody() for _ in range(5)]
    asked = await asyncio.gather(*(world.asked(each) for each in browsers))
    assert len({request_id for request_id, _ in asked}) == 5
    done = [
        await world.answer(browser, world.response(request_id, assertion_id=f"_assertion-{number}-of-5"), relay_state)
        for number, (browser, (request_id, relay_state)) in enumerate(zip(browsers, asked, strict=True))
    ]
    assert [each.status for each in done] == [303] * 5
    assert await world.events("identity.refused") == []
