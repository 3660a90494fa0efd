"""What an issuer says of itself. Owns discovery (OpenID Connect Discovery 1.0, section 4) and what we demand of it."""

from dataclasses import dataclass, field

from leasehold.signin.asking import Answer, ask, failed, shown, url_wrong

WELL_KNOWN = "/.well-known/openid-configuration"


@dataclass(frozen=True, slots=True)
class Client:
    """As whom we ask. What runs on people's machines is a public client, without a secret (RFC 8252, section 8.4).

    Args:
        issuer: its URL, as it names itself.
        client_id: as registered there.
        scopes: asked for; "openid" is among them.
        resource: URI whose access token (RFC 8707) is shown to the collector; "": the ID token is.
        secret: of a client that can keep one; "": a public client.
    """

    issuer: str
    client_id: str
    scopes: tuple[str, ...] = ("openid",)
    resource: str = ""
    secret: str = field(default="", repr=False)

    @property
    def credentials(self) -> tuple[str, str] | None:
        """Client id and secret, for the endpoints that ask for them."""
        return (self.client_id, self.secret) if self.secret else None

    def form(self) -> list[tuple[str, str]]:
        """What each request for authority begins with."""
        resource = [("resource", self.resource)] if self.resource else []
        return [("client_id", self.client_id), ("scope", " ".join(self.scopes)), *resource]


@dataclass(frozen=True, slots=True)
class Issuer:
    """Where an issuer is asked for what. Endpoints that it does not have are "".

    Args:
        states_itself: its answers to the redirect address say `iss` (RFC 9207).
    """

    name: str
    authorization_endpoint: str
    token_endpoint: str
    device_endpoint: str
    revocation_endpoint: str
    states_itself: bool


def discover(name: str) -> Issuer:
    """Read the issuer's configuration.

    Raises:
        Unavailable: no answer.
        IdentityRejected: it is not that issuer's, lacks what we need, or an address of it cannot be trusted.
    """
    loopback = name.startswith("http://")
    wrong = url_wrong(name, loopback=True) or ("must have no query" if "?" in name else None)
    if wrong is not None:
        message = f"the issuer {shown(name)!r} {wrong}"
        raise failed(message)
    answer = ask(name.rstrip("/") + WELL_KNOWN)
    if answer.status != 200:
        message = f"{name} has no configuration at {WELL_KNOWN}: {answer.error()}"
        raise failed(message)
    if answer.body.get("issuer") != name:
        message = (
            f"the configuration at {name} is of the issuer {shown(str(answer.body.get('issuer')))!r}; give --issuer "
            "exactly as it names itself"
        )
        raise failed(message)
    methods = answer.body.get("code_challenge_methods_supported")
    if isinstance(methods, list) and "S256" not in methods:
        message = f"{name} does not know PKCE with S256, without which nobody signs in here"
        raise failed(message)
    return Issuer(
        name,
        _endpoint(answer, "authorization_endpoint", loopback=loopback),
        _endpoint(answer, "token_endpoint", loopback=loopback, needed=True),
        _endpoint(answer, "device_authorization_endpoint", loopback=loopback),
        _endpoint(answer, "revocation_endpoint", loopback=loopback),
        answer.body.get("authorization_response_iss_parameter_supported") is True,
    )


def _endpoint(answer: Answer, name: str, *, loopback: bool, needed: bool = False) -> str:
    url = answer.text(name)
    if not url and not needed:
        return ""
    wrong = url_wrong(url, loopback=loopback)
    if wrong is not None:
        message = f"the issuer's {name} {wrong}"
        raise failed(message)
    return url
