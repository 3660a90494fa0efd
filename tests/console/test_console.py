"""The console as people use it: a real collector, a certified identity provider, TLS, and browsers without eyes."""

import asyncio
import re
import urllib.request

import pytest
from tests.console.conftest import SECRET
from tests.fakes.centre import eventually
from tests.fakes.streams import call_event

from leasehold_broker.console.browser import HEADERS, SESSION_COOKIE
from leasehold_broker.domain.events import EventType

pytestmark = [pytest.mark.timeout(150)]
PAGES = ("/", "/leases", "/revocations", "/revocations/new", "/budgets", "/keys", "/audit", "/audit/tail")
SUBJECT = {"kind": "subject", "value": "agents/*"}
MARKUP = '"><img src=x onerror=alert(1)><script>alert(2)</script>'


def held(browser, name=SESSION_COOKIE):
    """A cookie of this browser; None for none."""
    return next((one for one in browser.jar if one.name == name), None)


async def test_signing_in_and_out(world):
    """With the provider's page; the cookie is for this host, TLS and no script; signing out ends the session here."""
    stranger = await asyncio.to_thread(world.browser, "ada@example", "responders")
    refused = await world.get(stranger, "/")
    assert refused.status == 401
    assert "Nobody is signed in here" in refused.text

    browser = await world.signed_in("ada@example", "responders")
    cookie = held(browser)
    assert (cookie.path, cookie.secure, cookie.domain) == ("/", True, "localhost.local")
    assert cookie.has_nonstandard_attr("HttpOnly")
    assert cookie.get_nonstandard_attr("SameSite") == "Lax"
    assert held(browser, "__Host-leasehold-question") is None
    overview = await world.get(browser, "/")
    assert "ada@example (responder)" in overview.text

    stolen = f"{SESSION_COOKIE}={cookie.value}"
    out = await world.post(browser, "/sign-out", {"csrf": overview.form["csrf"]})
    assert out.status == 200
    assert held(browser) is None
    assert (await world.get(stranger, "/", Cookie=stolen)).status == 401
    for type_, details in (("operator.signed_in", {"by": "openid"}), ("operator.signed_out", {"why": "asked"})):
        (event,) = await world.events(type_)
        assert event["subject"]["subject"] == "ada@example"
        assert details.items() <= event["details"].items()


async def test_a_new_sign_in_is_a_new_session(world):
    """The id from before is another one, and ends: nobody can plant a session and wait for a sign-in."""
    browser = await world.signed_in("ada@example", "responders")
    before = held(browser).value
    await asyncio.to_thread(browser.visit, f"{world.origin}/sign-in", until=f"{world.origin}/")
    assert held(browser).value != before
    stranger = await asyncio.to_thread(world.browser, "eve@example")
    assert (await world.get(stranger, "/", Cookie=f"{SESSION_COOKIE}={before}")).status == 401
    assert (await world.get(browser, "/")).status == 200
    (event,) = await world.events("operator.signed_out")
    assert event["details"]["why"] == "replaced"


async def test_every_answer_is_dressed(world):
    """Pages, errors, redirects and files: no script but ours, no frame, nothing kept, no secret in any page."""
    browser = await world.signed_in("ada@example", "responders")
    secrets = [SECRET, held(browser).value]
    for path in (*PAGES, "/nowhere", "/sign-in", "/signed-in?state=x", "/static/htmx.min.js", "/static/door.py"):
        answer = await world.get(browser, path)
        for name, value in HEADERS.items():
            assert answer.headers[name] == value, (path, name)
        assert answer.headers["Cache-Control"] == ("max-age=3600" if path.endswith("htmx.min.js") else "no-store")
        assert not [secret for secret in secrets if secret in answer.text]
        assert "eyJ" not in answer.text
        if path in PAGES:
            assert answer.status == 200
            assert not re.search(r"<script(?! src=\"/static/[a-z.-]+\" defer></script>)|\son\w+=|style=", answer.text)


async def test_a_revocation_from_look_to_progress(world):
    """Looked at, refused with too small a count, confirmed, sent twice: it is one revocation, and the person's."""
    browser = await world.signed_in("ada@example", "responders")
    async with world.sidecar() as sidecar:
        sidecar.leases = []
        await eventually(lambda: sidecar.link.authority_lapsed_seconds(sidecar.clock.now()) is None)
        csrf = await world.csrf(browser)
        look = await world.post(
            browser, "/revocations/preview", SUBJECT | {"csrf": csrf, "note": "drill", "block": "y"}
        )
        assert look.status == 200
        assert "<strong>0</strong> live leases match" in look.text
        assert await world.events("revocation.issued") == []
        (looked,) = await world.events("revocation.validated")
        assert looked["subject"]["subject"] == "ada@example"

        unsure = await world.post(browser, "/revocations", look.form)
        assert unsure.status == 400
        assert "type the number of leases" in unsure.text
        done = await world.post(browser, "/revocations", look.form | {"expect": "0"})
        again = await world.post(browser, "/revocations", look.form | {"expect": "0"})
        assert [one.status for one in (done, again)] == [303, 303]
        assert done.headers["Location"] == again.headers["Location"] == "/revocations/1"
        (issued,) = await world.events("revocation.issued")
        assert issued["subject"]["subject"] == "ada@example"
        assert issued["details"]["revoked_by"] == f"ada@example ({world.provider.issuer})"

        live = await asyncio.to_thread(browser.fetch, f"{world.origin}/revocations/1/live")
        assert "text/event-stream" in live.headers["Content-Type"]
        assert live.text.endswith("event: over\ndata: over\n\n")
        assert "1 of 1 sidecars have acknowledged" in live.text
        page = await world.get(browser, "/revocations/1")
        assert "subject agents/*" in page.text
        lifted = await world.post(browser, "/revocations/1/lift", page.form | {"note": "over"})
        assert lifted.headers["Location"] == "/revocations/2"
        assert "lifts revocations/1" in (await world.get(browser, "/revocations")).text


UNCLEAR = (
    {"kind": "nothing"},
    {"value": ""},
    {"kind": "everything"},
    {"kind": "label"},
    {"cause": "because"},
    {"block": "y", "block_hours": "soon"},
    {"block_hours": "2"},
    {"value": "a" * 1100},
    {"value": ["a", "b"]},
    {"note": "line\nbreak"},
    {"kind": "lease", "value": "lhs_secret"},
)


async def test_an_unclear_revocation_is_refused(world):
    """Nothing is revoked, and the page says which field is wrong."""
    browser = await world.signed_in("ada@example", "responders")
    good = SUBJECT | {"csrf": await world.csrf(browser), "request_id": "5a0c6a3e-6f5e-4f57-8a5a-0d6a6a3e6f5e"}
    for change in UNCLEAR:
        assert (await world.post(browser, "/revocations/preview", good | change)).status == 400, change
        assert (await world.post(browser, "/revocations", good | change | {"whatever": "y"})).status == 400, change
    assert (await world.post(browser, "/revocations", good | {"whatever": "y", "request_id": "x"})).status == 400
    assert await world.events("revocation.issued") == []


async def test_more_leases_than_were_expected(world):
    """The count that was typed is a bound: what is not known to be within it is not revoked."""
    browser = await world.signed_in("ada@example", "responders")
    csrf = await world.csrf(browser)
    look = await world.post(browser, "/revocations/preview", SUBJECT | {"csrf": csrf})
    for expect in ("-1", "many", "1.5", "9" * 20):
        assert (await world.post(browser, "/revocations", look.form | {"expect": expect})).status == 400
    assert await world.events("revocation.issued") == []


@pytest.mark.parametrize(
    ("group", "role", "sees"), [("security-audit", "auditor", True), ("finance", "treasurer", False)]
)
async def test_a_role_that_only_reads_cannot_act(world, group, role, sees):
    """The methods refuse, as they do for the command; the refusal is an event, and nothing is revoked."""
    browser = await world.signed_in("bob@example", group)
    overview = await world.get(browser, "/")
    assert f"({role})" in overview.text
    assert ("Sidecars</h2>" in overview.text) is sees
    csrf = await world.csrf(browser)
    for path in ("/revocations/preview", "/revocations", "/revocations/1/lift"):
        refused = await world.post(browser, path, SUBJECT | {"csrf": csrf, "whatever": "y", "request_id": "x"})
        assert refused.status == 403
        assert "OPERATOR_NOT_ALLOWED" in refused.text
    denied = await world.events("revocation.refused")
    assert {(one["subject"]["subject"], one["reason"]) for one in denied} == {("bob@example", "OPERATOR_NOT_ALLOWED")}
    assert len(denied) == 3
    assert await world.events("revocation.issued") == []
    assert (await world.get(browser, "/audit")).status == (200 if sees else 403)


async def test_somebody_without_a_role_is_not_signed_in(world):
    """The provider knows them, the collector gives them nothing: no session, and an event that says who."""
    browser = await asyncio.to_thread(world.browser, "eve@example", "sales")
    page = await asyncio.to_thread(browser.visit, f"{world.origin}/sign-in", until=f"{world.origin}/")
    assert "OPERATOR_NOT_ALLOWED" in page
    assert held(browser) is None
    (event,) = await world.events("audit.refused")
    assert event["reason"] == "OPERATOR_NOT_ALLOWED"
    assert "eve@example" in event["details"]["detail"]
    assert await world.events("operator.signed_in") == []


async def test_somebody_whom_the_provider_refuses(world):
    """No session; the event has the provider's word."""
    browser = await asyncio.to_thread(world.browser, "nobody")
    page = await asyncio.to_thread(browser.visit, f"{world.origin}/sign-in")
    assert "IDENTITY_REJECTED" in page
    assert "access_denied" not in page
    (event,) = await world.events("identity.refused")
    assert "access_denied: not you" in event["details"]["detail"]
    assert held(browser) is None


ELSEWHERE = (
    ({}, "", 403),
    ({}, "another", 403),
    ({"Origin": "https://evil.example"}, None, 403),
    ({"Origin": "null"}, None, 403),
    ({"Origin": None}, None, 403),
    ({"Sec_Fetch_Site": "cross-site"}, None, 403),
    ({"Sec_Fetch_Site": "same-site"}, None, 403),
    ({"Content_Type": "text/plain"}, None, 400),
    ({"Content_Type": "application/json"}, None, 400),
)


async def test_a_form_of_another_site(world):
    """Without this session's token, or from elsewhere: nothing is done, and whose browser it was is on record."""
    browser = await world.signed_in("ada@example", "responders")
    other = await world.signed_in("kim@example", "responders")
    tokens = {None: await world.csrf(browser), "another": await world.csrf(other), "": ""}
    form = SUBJECT | {"whatever": "y", "request_id": "5a0c6a3e-6f5e-4f57-8a5a-0d6a6a3e6f5e"}
    for headers, csrf, status in ELSEWHERE:
        refused = await world.post(browser, "/revocations", form | {"csrf": tokens[csrf]}, **headers)
        assert refused.status == status, headers
    assert await world.events("revocation.issued") == []
    events = await world.events("audit.refused")
    assert [(one["subject"]["subject"], one["details"]["method"]) for one in events] == [
        ("ada@example", "console POST /revocations")
    ] * len(ELSEWHERE)
    assert (await world.post(browser, "/revocations", form | {"csrf": tokens[None]})).status == 303


async def test_an_action_is_no_link(world):
    """GET does nothing, and HEAD and PUT neither; without a session a form is nobody's."""
    browser = await world.signed_in("ada@example", "responders")
    assert (await world.get(browser, "/revocations/preview")).status == 405
    assert (await world.get(browser, "/sign-out")).status == 405
    stranger = await asyncio.to_thread(world.browser, "eve@example")
    assert (await world.post(stranger, "/revocations", SUBJECT | {"whatever": "y"})).status == 401
    assert await world.events("revocation.issued") == []


async def test_another_name_for_this_address(world):
    """A page elsewhere whose name was made to mean this address gets nothing (DNS rebinding)."""
    browser = await world.signed_in("ada@example", "responders")
    for host in ("evil.example", "localhost", "localhost:1"):
        answer = await world.get(browser, "/audit", Host=host)
        assert answer.status == 421
        assert "<table" not in answer.text


async def test_an_answer_that_nobody_asked_for(world):
    """Another browser's, a forged, an old or a doubled one: nothing is asked of the provider, nobody is signed in."""
    browser = await asyncio.to_thread(world.browser, "ada@example", "responders")
    asked = await world.get(browser, "/sign-in")
    state = re.search(r"[?&]state=([^&]+)", asked.headers["Location"])[1]
    sealed = held(browser, "__Host-leasehold-question").value
    other = await asyncio.to_thread(world.browser, "eve@example", "responders")
    answer = f"/signed-in?state={state}&code=c&iss={world.provider.issuer}"
    assert (await world.get(other, answer)).status == 400
    body, tag = sealed.split(".")
    for forged in (f"{body}.AAAA", f".{tag}", body, f"{body[:-4]}AAAA.{tag}", "." * 40, "é.é"):
        shown = {"Cookie": f"__Host-leasehold-question={forged}"}
        assert (await asyncio.to_thread(other.fetch, world.origin + answer, None, shown)).status == 400
    assert (await world.get(browser, answer.replace(state, "guessed"))).status == 400
    assert (await world.get(browser, f"{answer}&state={state}")).status == 400
    assert await world.events("identity.refused") == []
    wrong = await world.get(browser, answer)
    assert wrong.status == 401
    assert held(browser) is None
    assert len(await world.events("identity.refused")) == 1


async def test_what_a_sidecar_writes_is_shown_as_text(world):
    """Markup in names, subjects and details of events is text on every page, and in the live log."""
    browser = await world.signed_in("ada@example", "responders")
    reading = asyncio.create_task(
        asyncio.to_thread(read_some, browser, f"{world.origin}/audit/live", b"onerror", after="1")
    )
    async with world.sidecar() as sidecar:
        for type_ in (EventType.FINDING_HONEYTOKEN, EventType.CALL_ADMITTED):
            event = call_event(1, lease=MARKUP, key=MARKUP, subject=MARKUP)
            now = sidecar.clock.now().wall_ms  # the overview shows the last day's
            sidecar.outbox.put(sidecar.emitter.emit(type(event)(type_, now, *[getattr(event, name) for name in REST])))
        await eventually(lambda: sidecar.link.counters.records_acknowledged == 2)
        live = await asyncio.wait_for(reading, 60)
        pages = [live, *[(await world.get(browser, path)).text for path in ("/", "/audit", "/audit?type=call.")]]
    for page in pages:
        assert "&lt;img src=x onerror=alert(1)&gt;" in page
        assert "<img" not in page
        assert "<script>" not in page


REST = ("outcome", "reason", "subject", "lease", "request_id", "details")


def read_some(browser, address, until, after="") -> str:
    """A stream after a position, until it has said that."""
    headers = {"Last-Event-ID": after} if after else {}
    with browser._opener.open(urllib.request.Request(address, headers=headers), timeout=60) as answer:
        read = b""
        while until not in read:
            part = answer.read1(65_536)
            assert part, read
            read += part
    return read.decode()


async def eventually_read(world, method) -> None:
    """Once somebody reads by that method."""
    async with asyncio.timeout(60):
        while not any(one["details"]["method"] == method for one in await world.events("audit.read")):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_a_live_page_ends_with_its_session(world, monkeypatch):
    """Who signs out in one window gets no more of the log in another."""
    monkeypatch.setattr("leasehold_broker.console.streaming.ALIVE_SECONDS", 0.05)
    browser = await world.signed_in("ada@example", "responders")
    csrf = await world.csrf(browser)
    reading = asyncio.create_task(asyncio.to_thread(read_some, browser, f"{world.origin}/audit/live", b"event: over"))
    await eventually_read(world, "leasehold.v1.AuditService/WatchEvents")
    assert (await world.post(browser, "/sign-out", {"csrf": csrf})).status == 200
    assert (await asyncio.wait_for(reading, 60)).endswith("event: over\ndata: over\n\n")


async def test_the_log_goes_on_after_the_last_event_that_was_seen(world):
    """A tail that is opened again shows what came in between."""
    browser = await world.signed_in("ada@example", "responders")
    live = f"{world.origin}/audit/live"
    read = await asyncio.to_thread(read_some, browser, live, b"\n\n", after="1")
    assert "operator.signed_in" in read
    assert re.search(r"^id: [0-9]+$", read, re.MULTILINE)
