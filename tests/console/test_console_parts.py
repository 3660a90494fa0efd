"""What the console is made of: its files, its configuration, and that it is left out where its libraries are not."""

import hashlib
import re
import subprocess
import sys
from importlib.resources import files

import pytest
from tests.config.test_collector_config import GOOD, write

from leasehold_broker.config import ConfigError, load_collector
from leasehold_broker.console.rendering import STATIC, Rendering, event_row

SAML = """
[console]
address = "127.0.0.1:0"
origin = "https://console.example"
[console.saml]
idp = "https://idp.example"
sso_url = "https://idp.example/sso"
certificate_file = "idp.pem"
{saml}
[[operators]]
role = "responder"
issuer = "https://idp.example"
claim = "groups"
values = ["r"]
"""
VENDORED = {
    "htmx.min.js": "a0abb04f2f45a1f89d1d4844023245537e5e6014c87b144553e0607b4cc32130",
    "hx-sse.min.js": "18ef2761356ec1fe0bb6d92612315b37517a7c1e9856b661c5ae81fef239d103",
    "pico.min.css": "fbc9a63fc9fc9f72d12fd7fc9806e11fa9f77ae4f9cad146b27003a1119ba3db",
}
CONSOLE = """
[console]
address = "127.0.0.1:0"
origin = "https://console.example"
{console}
[console.oidc]
issuer = "https://login.example"
client_id = "leasehold-console"
algorithms = ["ES256"]
jwks_url = "https://login.example/jwks"
{oidc}
"""


def load(folder, console="", oidc="", text=CONSOLE):
    """A file with that console."""
    return load_collector(write(folder, GOOD + text.format(console=console, oidc=oidc)))


def test_a_console_loads(tmp_path):
    """With its defaults; roles may be given to its issuer."""
    more = '[[operators]]\nrole = "responder"\nissuer = "https://login.example"\nclaim = "groups"\nvalues = ["r"]\n'
    at = load(tmp_path, text=CONSOLE + more).console
    assert at.oidc.redirect_uri == "https://console.example/signed-in"
    assert at.oidc.scopes == ("openid", "groups", "offline_access")
    assert (at.sessions.idle_seconds, at.sessions.age_seconds, at.sessions.check_seconds) == (900, 28_800, 300)
    assert (at.oidc.issuer.audience, at.oidc.issuer.replay) == ("leasehold-console", "off")
    assert at.saml is None
    assert load_collector(write(tmp_path, GOOD)).console is None


@pytest.mark.parametrize(
    ("console", "oidc", "why"),
    [
        ("idle_seconds = 5", "", "idle_seconds must be 60 to 3600"),
        ("age_seconds = 600", "", "age_seconds must be idle_seconds to"),
        ("check_seconds = 1", "", "check_seconds must be 30 to"),
        ("", 'jwks_file = "keys.json"', "exactly one of a JWKS url and a JWKS path"),
        ("", "leeway_seconds = 600", "leeway_seconds must be 0 to 60"),
        ("", 'client_secret_file = "missing"', "missing"),
        ("nonsense = 1", "", "nonsense"),
    ],
)
def test_a_console_that_is_refused(tmp_path, console, oidc, why):
    """With a sentence that says what to change."""
    with pytest.raises(ConfigError, match=re.escape(why)):
        load(tmp_path, console, oidc)


def test_a_console_with_saml_alone(tmp_path):
    """Who we are follows from the origin; roles may be given to the provider's people."""
    (tmp_path / "idp.pem").touch(0o644)
    at = load(tmp_path, text=SAML.replace("{saml}", "")).console
    assert at.oidc is None
    assert at.saml.rule.entity_id == "https://console.example/saml/metadata"
    assert at.saml.rule.acs_url == "https://console.example/saml/acs"
    named = load(tmp_path, text=SAML.replace("{saml}", 'entity_id = "urn:leasehold"')).console
    assert named.saml.rule.entity_id == "urn:leasehold"


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ("https://idp.example/sso", "http://idp.example/sso", "sso_url"),
        ("certificate_file", 'entity_id = "a b"\ncertificate_file', "entity_id must be visible ASCII"),
        ("idp.pem", "missing.pem", "missing.pem"),
        ("[console.saml]", "[console.samml]", "samml"),
    ],
)
def test_a_console_with_saml_that_is_refused(tmp_path, before, after, why):
    """With a sentence that says what to change."""
    (tmp_path / "idp.pem").touch(0o644)
    with pytest.raises(ConfigError, match=re.escape(why)):
        load(tmp_path, text=SAML.replace("{saml}", "").replace(before, after, 1))


def test_a_console_without_a_way_in(tmp_path):
    """Nobody could sign in; and one issuer by both ways could not be told apart."""
    with pytest.raises(ConfigError, match="nobody could sign in"):
        load(tmp_path, text='[console]\naddress = "127.0.0.1:0"\norigin = "https://console.example"\n')
    (tmp_path / "idp.pem").touch(0o644)
    saml = '[console.saml]\nidp = "https://login.example"\nsso_url = "https://i/s"\ncertificate_file = "idp.pem"\n'
    with pytest.raises(ConfigError, match="could not tell the two apart"):
        load(tmp_path, text=CONSOLE + saml)


@pytest.mark.parametrize(
    "origin",
    [
        *("http://console.example", "https://console.example/", "https://console.example:443", "console.example"),
        *("https://Console.example", "https://u@console.example", "https://console.example/path", "https://"),
    ],
)
def test_an_origin_is_as_browsers_write_it(tmp_path, origin):
    """Anything else would refuse every form, or take another site's."""
    with pytest.raises(ConfigError, match=r"\[console\] origin"):
        load(tmp_path, text=CONSOLE.replace("https://console.example", origin))


@pytest.mark.parametrize("address", ["0.0.0.0:8443", "10.0.0.9:8443"])
def test_beyond_this_machine_it_speaks_tls(tmp_path, address):
    """Plain HTTP is for a proxy on this machine."""
    with pytest.raises(ConfigError, match="beyond this machine without TLS"):
        load(tmp_path, text=CONSOLE.replace("127.0.0.1:0", address))


def test_an_operator_of_nobodys_issuer(tmp_path):
    """A rule for an issuer that neither table has is a slip."""
    more = '[[operators]]\nrole = "responder"\nissuer = "https://other"\nclaim = "groups"\nvalues = ["r"]\n'
    with pytest.raises(ConfigError, match="neither an"):
        load(tmp_path, text=CONSOLE + more)


def test_files_of_others_are_as_released():
    """They are htmx 4.0.1 and pico.css 2.1.1, byte for byte as their packages on npm have them, with their licences."""
    folder = files("leasehold_broker.console").joinpath("static")
    sums = {name: hashlib.sha256(folder.joinpath(name).read_bytes()).hexdigest() for name in VENDORED}
    assert sums == VENDORED
    assert "Zero-Clause BSD" in folder.joinpath("LICENSE.htmx").read_text()
    assert "MIT License" in folder.joinpath("LICENSE.pico").read_text()
    assert set(VENDORED) | {"console.css"} == set(STATIC) == set(Rendering().static)


class Stored:
    """A record with any body."""

    position = 1
    receive_time = None

    def __init__(self, body: bytes) -> None:
        """That one."""
        self.record = self
        self.body, self.stream, self.sequence = body, "s", 1


BODIES = (
    *(b"", b"{", b"[]", b"null", b"\xff", b"[" * 99_999, b'{"subject": 5}', b'{"type": {"a": 1}}', b'{"x": NaN}'),
    *(b'{"type": "\\ud800"}', b'{"x": "\\ud800"}', b'{"subject": {"subject": "\\u202egnp.exe\\u0007"}}'),
)


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_any_body_can_be_shown(body, monkeypatch):
    """A sidecar may write anything: the page is shown all the same."""
    monkeypatch.setattr("leasehold_broker.console.rendering.when", lambda _stamp: "2026")
    row = event_row(Stored(body))
    assert all(isinstance(row[name], str) for name in ("type", "outcome", "reason", "subject", "lease", "rest"))
    page = Rendering().page("event_rows.html", rows=[row])
    assert len(page.encode()) < 10_000
    assert page.replace("\n", "").isprintable()


def test_a_long_body_is_cut(monkeypatch):
    """A page has a bound, whatever an event holds."""
    monkeypatch.setattr("leasehold_broker.console.rendering.when", lambda _stamp: "2026")
    assert len(event_row(Stored(b'{"a": "' + b"x" * 100_000 + b'"}'))["rest"]) == 4000


def test_without_its_libraries_a_collector_says_what_to_install(tmp_path):
    """A collector without a console never imports them; one with a console does not start without them."""
    code = """
import asyncio, sys
from unittest import mock
sys.modules["jinja2"] = None
from leasehold_broker.wiring.console import console_door
async def main(at):
    async with console_door(at, mock.sentinel.parts, mock.sentinel.tasks) as port:
        return port
assert asyncio.run(main(None)) == 0
assert "leasehold_broker.console" not in sys.modules
try:
    asyncio.run(main(mock.sentinel.at))
except RuntimeError as error:
    print(error)
from leasehold_broker.wiring.console import _saml
sys.modules["signxml.algorithms"] = None
try:
    _saml(mock.sentinel.at, mock.sentinel.operators, mock.sentinel.sign_in, mock.sentinel.parts)
except RuntimeError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert ran.stdout.splitlines() == [
        "[console] needs jinja2: pip install 'leasehold-broker[console]'",
        "[console.saml] needs signxml.algorithms: pip install 'leasehold-broker[saml]'",
    ], ran.stderr
