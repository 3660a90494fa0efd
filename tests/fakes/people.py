"""An OpenID provider at which people sign in, in a process of its own, and a browser that does it without eyes."""

import contextlib
import http.cookiejar
import json
import ssl
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from html.parser import HTMLParser

from tests.fakes.openid_provider import HOME, OpenIdProvider
from tests.fakes.ports import free_port

CLI = "leasehold-cli"
RESOURCE = "https://leasehold-collector"
PAGES_MAX = 20
GROUPS = {"responder": "responders", "auditor": "security-audit", "treasurer": "finance"}
"""Of a person, by the role of an operator that it gives."""
CLI_CLIENT = {
    "client_id": CLI,
    "token_endpoint_auth_method": "none",
    "application_type": "native",
    "grant_types": ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"],
    "redirect_uris": ["http://127.0.0.1/signed-in"],
    "response_types": ["code"],
}


def operators(issuer: str, *roles: str) -> str:
    """The tables of a collector that give these roles by the issuer's groups."""
    return "".join(
        f'\n[[operators]]\nrole = "{role}"\nissuer = "{issuer}"\nclaim = "groups"\nvalues = ["{GROUPS[role]}"]\n'
        for role in roles
    )


@dataclass(frozen=True, slots=True)
class People(OpenIdProvider):
    """The provider."""

    def control(self, **told) -> None:
        """Groups of a person, or that they are gone."""
        request = urllib.request.Request(f"{self.issuer}/control", json.dumps(told).encode())
        urllib.request.urlopen(request, timeout=20).close()

    def refresh(self, token: str) -> str:
        """Why the provider does not take a refresh token; "" when it does."""
        form = {"grant_type": "refresh_token", "refresh_token": token, "client_id": CLI}
        try:
            urllib.request.urlopen(f"{self.issuer}/token", urllib.parse.urlencode(form).encode(), timeout=20).close()
        except urllib.error.HTTPError as error:
            with error:
                return json.loads(error.read())["error"]
        return ""


@contextlib.contextmanager
def running(*clients, id_token_seconds: int = 600):
    """A provider with these clients and the command's, until the end of the block."""
    port = free_port()
    settings = {"clients": [CLI_CLIENT, *clients], "resource": RESOURCE, "id_token_seconds": id_token_seconds}
    command = ["node", str(HOME / "operators.mjs"), str(port), json.dumps(settings)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout.readline().strip() == "ready"
            yield People(f"http://127.0.0.1:{port}")
        finally:
            process.terminate()
            process.wait(20)


class _Forms(HTMLParser):
    """The first form of a page: where it goes, and what it holds."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.action: str | None = None
        self.fields: dict[str, str] = {}
        self.feed(page)

    def handle_starttag(self, tag, attrs) -> None:
        """Collect."""
        named = dict(attrs)
        if tag == "form" and self.action is None:
            self.action = named.get("action") or ""
        ticked = named.get("type") != "checkbox" or "checked" in named
        if tag in {"input", "button"} and named.get("name") and self.action is not None and ticked:
            self.fields[named["name"]] = named.get("value") or ""


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer."""

    status: int
    text: str
    headers: object

    @property
    def form(self) -> dict[str, str]:
        """What the last form of the page holds."""
        return _Forms(self.text[self.text.rindex("<form") :]).fields


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows nothing."""

    def redirect_request(self, *_: object) -> None:
        """None."""


class Browser:
    """Opens addresses, follows them, and fills in every form with a name where it asks for one."""

    def __init__(self, login: str, ca_file: str | None = None) -> None:
        """Somebody of that name, who trusts these roots."""
        self.login = login
        self.jar = http.cookiejar.CookieJar()
        self._handlers = [
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPCookieProcessor(self.jar),
            urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ca_file)),
        ]
        self._opener = urllib.request.build_opener(*self._handlers)

    def fetch(self, address: str, form: dict | None = None, headers: dict | None = None) -> "Fetched":
        """One answer as it is: no redirect is followed, no form filled in."""
        opener = urllib.request.build_opener(*self._handlers, _Stay)
        data = None if form is None else urllib.parse.urlencode(form, doseq=True).encode()
        try:
            answer = opener.open(urllib.request.Request(address, data, headers or {}), timeout=30)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            return Fetched(answer.status, answer.read().decode(), answer.headers)

    def visit(self, address: str, *, until: str = "") -> str:
        """The last page, or the first whose address begins with `until`."""
        data = None
        for _ in range(PAGES_MAX):
            try:
                with self._opener.open(urllib.request.Request(address, data), timeout=20) as answer:
                    page, address = answer.read().decode(), answer.url
            except urllib.error.HTTPError as error:
                with error:
                    page, address = error.read().decode(), error.url
            form = _Forms(page)
            if form.action is None or (until and address.startswith(until)):
                return page
            form.fields.pop("abort", None)
            if "login" in form.fields:
                form.fields["login"] = self.login
            address = urllib.parse.urljoin(address, form.action)
            data = urllib.parse.urlencode(form.fields).encode()
        raise AssertionError("too many pages")


if __name__ == "__main__":  # as the BROWSER of a command: python -m tests.fakes.people LOGIN ADDRESS
    Browser(sys.argv[1]).visit(sys.argv[2])
