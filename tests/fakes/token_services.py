"""The token endpoints of the providers: they check workload tokens for real, mint tokens that end, fail as documented.

One server plays all of them, told apart by path as the real ones are by host. It remembers what it minted and until
when: `accepts` is the provider's API, asked whether a token is good.
"""

import json
import secrets
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import jwt
from tests.fakes.keep_alive import KeepAlive
from tests.fakes.planted import planted

JWT_TYPE = "urn:ietf:params:oauth:token-type:jwt"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ANTHROPIC_BETAS = {"oauth-2025-04-20", "oidc-federation-2026-04-01"}


@dataclass
class Rule:
    """What a provider was told about our issuer."""

    public_key: object
    audience: str
    issuer: str = "https://idp.test"
    subject: str = "sidecar-a"
    life_seconds: int = 600
    archived: bool = False


class RefusedError(Exception):
    """An answer that is not 200."""

    def __init__(self, status: int, body: object, headers: dict | None = None) -> None:
        """With this status and body."""
        super().__init__(status)
        self.status, self.body, self.headers = status, body, headers or {}


def oauth_error(code: str, status: int = 400) -> RefusedError:
    """RFC 6749 section 5.2, with a description that echoes what a careless server would."""
    return RefusedError(status, {"error": code, "error_description": "assertion eyJhbGciOi.echoed.here was not good"})


@dataclass
class TokenServices:
    """State of all of them."""

    rules: dict[str, Rule] = field(default_factory=dict)
    broken: RefusedError | None = None
    raw: bytes | None = None
    seconds_slow: float = 0.0
    asked: list[dict] = field(default_factory=list)
    minted: dict[str, float] = field(default_factory=dict)
    origin: str = ""

    def accepts(self, token: str) -> bool:
        """True while a token lives."""
        return self.minted.get(token, 0) > time.time()

    def claims(self, rule: Rule, assertion: str) -> dict:
        """The claims of a workload token that the rule takes."""
        if rule.archived:
            raise oauth_error("invalid_grant")
        try:
            claims = jwt.decode(
                assertion,
                rule.public_key,
                ["ES256"],
                audience=rule.audience,
                issuer=rule.issuer,
                options={"require": ["exp", "iat", "sub"]},
            )
        except jwt.InvalidTokenError:
            raise oauth_error("invalid_grant") from None
        if claims["sub"] != rule.subject:
            raise oauth_error("invalid_grant", 401)
        return claims

    def rule(self, name: str) -> Rule:
        """A rule by its id."""
        if name not in self.rules:
            raise oauth_error("invalid_request")
        return self.rules[name]

    def token(self, prefix: str, life: int) -> str:
        """A fresh one."""
        token = f"{planted(prefix=prefix)}{secrets.token_urlsafe(24)}"
        self.minted[token] = time.time() + life
        return token

    def anthropic(self, body: dict, headers: dict) -> dict:
        """POST /v1/oauth/token: the life is at most twice what is left of the assertion's."""
        if not set(headers.get("anthropic-beta", "").split(",")) >= ANTHROPIC_BETAS:
            raise oauth_error("invalid_request")
        if body.get("grant_type") != BEARER or not body.get("organization_id"):
            raise oauth_error("unsupported_grant_type")
        rule = self.rule(str(body.get("federation_rule_id")))
        claims = self.claims(rule, str(body.get("assertion")))
        life = max(60, min(rule.life_seconds, int(2 * (claims["exp"] - time.time()))))
        token = self.token("sk-ant-oat01-", life)
        return {"access_token": token, "token_type": "Bearer", "expires_in": life, "scope": "workspace:inference"}

    def openai(self, body: dict, _: dict) -> dict:
        """POST /oauth/token."""
        if body.get("grant_type") != EXCHANGE or body.get("subject_token_type") != JWT_TYPE:
            raise oauth_error("invalid_request")
        rule = self.rule(f"{body.get('identity_provider_id')}/{body.get('service_account_id')}")
        self.claims(rule, str(body.get("subject_token")))
        life = rule.life_seconds
        return {"access_token": self.token("sk-oai-wif-", life), "expires_in": life, "token_type": "Bearer"}

    def openrouter(self, body: dict, _: dict) -> dict:
        """POST /api/v1/oauth/token: 15 minutes at most, and no longer than the assertion."""
        if body.get("grant_type") != EXCHANGE:
            raise oauth_error("unsupported_grant_type")
        rule = self.rule("openrouter")
        claims = self.claims(rule, str(body.get("subject_token")))
        life = int(min(900, rule.life_seconds, claims["exp"] - time.time()))
        return {"access_token": self.token("sk-or-wif-", life), "expires_in": life, "token_type": "bearer"}

    def google_sts(self, body: dict, _: dict) -> dict:
        """POST /v1/token."""
        if body.get("grant_type") != EXCHANGE or not str(body.get("requested_token_type")).endswith(":access_token"):
            raise oauth_error("invalid_request")
        self.claims(self.rule(str(body.get("audience"))), str(body.get("subject_token")))
        answer = {"issued_token_type": body["requested_token_type"], "token_type": "Bearer", "expires_in": 3600}
        return {"access_token": self.token("ya29.federated.", 3600), **answer}

    def google_iam(self, body: dict, headers: dict) -> dict:
        """POST /v1/projects/-/serviceAccounts/EMAIL:generateAccessToken."""
        if not self.accepts(headers.get("authorization", "").removeprefix("Bearer ")):
            raise RefusedError(401, {"error": {"code": 401, "message": "echo", "status": "UNAUTHENTICATED"}})
        if headers["path"].split("/")[-1] != "agents@project.iam.gserviceaccount.com:generateAccessToken":
            raise RefusedError(403, {"error": {"code": 403, "message": "echo", "status": "PERMISSION_DENIED"}})
        life = int(str(body.get("lifetime", "3600s")).removesuffix("s"))
        if not body.get("scope") or not 1 <= life <= 3600:
            raise RefusedError(400, {"error": {"code": 400, "message": "echo", "status": "INVALID_ARGUMENT"}})
        until = datetime.fromtimestamp(time.time() + life, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {"accessToken": self.token("ya29.impersonated.", life), "expireTime": until}

    def azure(self, body: dict, headers: dict) -> dict:
        """POST /TENANT/oauth2/v2.0/token."""
        if body.get("grant_type") != "client_credentials" or not str(body.get("scope")).endswith("/.default"):
            raise oauth_error("invalid_scope")
        tenant = headers["path"].split("/")[1]
        self.claims(self.rule(f"{tenant}/{body.get('client_id')}"), str(body.get("client_assertion")))
        return {"token_type": "Bearer", "expires_in": 3599, "access_token": self.token("eyJ0.entra.", 3599)}

    def aws(self, body: dict, _: dict) -> str:
        """POST / at STS: AssumeRoleWithWebIdentity, in XML."""
        life = int(body.get("DurationSeconds", 3600))
        if body.get("Action") != "AssumeRoleWithWebIdentity" or not 900 <= life <= 43200:
            raise _aws_error("ValidationError")
        try:
            self.claims(self.rule(str(body.get("RoleArn"))), str(body.get("WebIdentityToken")))
        except RefusedError:
            raise _aws_error("InvalidIdentityToken") from None
        until = datetime.fromtimestamp(time.time() + life, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return (
            '<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
            "<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>ASIAEXAMPLEEXAMPLE00</AccessKeyId>"
            "<SecretAccessKey>wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY</SecretAccessKey>"
            f"<SessionToken>FwoGZXIvYXdzEXAMPLE+/==</SessionToken><Expiration>{until}</Expiration></Credentials>"
            "<AssumedRoleUser><Arn>arn:aws:sts::123456789012:assumed-role/r/leasehold</Arn>"
            "<AssumedRoleId>AROA:leasehold</AssumedRoleId></AssumedRoleUser></AssumeRoleWithWebIdentityResult>"
            "</AssumeRoleWithWebIdentityResponse>"
        )

    def answer(self, path: str, headers: dict, data: bytes) -> tuple[int, dict, bytes]:
        """One request at any of them."""
        form = headers.get("content-type", "").startswith("application/x-www-form-urlencoded")
        body = {name: values[0] for name, values in parse_qs(data.decode()).items()} if form else json.loads(data)
        self.asked.append({"path": path, **body})
        time.sleep(self.seconds_slow)
        try:
            if self.broken is not None:
                raise self.broken
            service = _service_at(path)
            found = getattr(self, service)(body, headers | {"path": path})
        except RefusedError as refused:
            text = refused.body if isinstance(refused.body, bytes) else json.dumps(refused.body).encode()
            return refused.status, refused.headers, text
        if self.raw is not None:
            return 200, {}, self.raw
        return 200, {}, found.encode() if isinstance(found, str) else json.dumps(found).encode()


def _service_at(path: str) -> str:
    """Which service answers at a path."""
    if path == "/":
        return "aws"
    if path.endswith(":generateAccessToken"):
        return "google_iam"
    if path.endswith("/oauth2/v2.0/token"):
        return "azure"
    paths = {
        "/v1/oauth/token": "anthropic",
        "/oauth/token": "openai",
        "/api/v1/oauth/token": "openrouter",
        "/v1/token": "google_sts",
    }
    if path not in paths:
        raise RefusedError(404, {"error": "not_found"})
    return paths[path]


def _aws_error(code: str) -> RefusedError:
    body = (
        f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>echo</Message></Error></ErrorResponse>"
    )
    return RefusedError(400, body.encode())


def serve(services: TokenServices):
    """Start a server for them; call what comes back to stop it."""

    class Handler(KeepAlive, BaseHTTPRequestHandler):
        """Answers."""

        def do_POST(self) -> None:
            """One exchange."""
            data = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, more, body = services.answer(urlsplit(self.path).path, headers, data)
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **more}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    services.origin = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="token services")
    thread.start()

    def stop() -> None:
        server.shutdown()
        thread.join()
        server.server_close()

    return stop
