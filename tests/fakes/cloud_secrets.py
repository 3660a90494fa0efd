"""Google Secret Manager and Azure Key Vault as far as keys need them, with the documented shapes, over real sockets.

State machines: versions with their states, aliases and etags (Google), tags and attributes of each version (Azure).
"""

import base64
import json
import re
import ssl
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from tests.fakes.keep_alive import KeepAlive

RESOURCE = "https://vault.azure.net"
PAGE = 2
ENABLED, DISABLED, DESTROYED = "ENABLED", "DISABLED", "DESTROYED"


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    query: dict[str, str]
    body: dict


@dataclass
class Version:
    """One version of a secret."""

    value: str
    state: str = ENABLED
    tags: dict[str, str] = field(default_factory=dict)
    id: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass
class Kept:
    """One secret: its versions, oldest first, and what is known of it as a whole."""

    versions: list[Version] = field(default_factory=list)
    aliases: dict[str, int] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    etag: int = 1


class AnswerError(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, code: str = "") -> None:
        """With this status, and the vendor's own code."""
        super().__init__(status)
        self.status, self.code = status, code


@dataclass
class CloudSecrets:
    """Secrets by name; `status` answers every question with an error, `gate` is asked "before" and "after" each.

    `permissions` are what Google says that the caller has, by secret; `denied` are names that Azure lets nobody read.
    """

    secrets: dict[str, Kept] = field(default_factory=dict)
    permissions: dict[str, set[str]] = field(default_factory=dict)
    denied: set[str] = field(default_factory=set)
    status: int = 0
    address: str = ""
    gate: Callable[[Asked, str], bool] = lambda _asked, _where: True
    asked: list[Asked] = field(default_factory=list)

    def put(self, name: str, value: str) -> None:
        """Store the next version."""
        self.secrets.setdefault(name, Kept()).versions.append(Version(value))

    def disable(self, name: str) -> None:
        """Disable the latest version."""
        self.secrets[name].versions[-1].state = DISABLED

    def remove(self, name: str) -> None:
        """Forget every version."""
        del self.secrets[name]

    def readable(self, name: str) -> list[str]:
        """Values that somebody can still read."""
        return [each.value for each in self.secrets[name].versions if each.state == ENABLED]

    def challenge(self, headers: dict[str, str]) -> dict[str, str] | None:
        """The headers of a refusal for want of a token."""
        del headers

    def answer(self, asked: Asked) -> tuple[int, dict]:
        """Status and body."""
        self.asked.append(asked)
        if self.status:
            return self.status, self.error(AnswerError(self.status))
        try:
            return 200, self.handle(asked)
        except AnswerError as wrong:
            return wrong.status, self.error(wrong)

    def handle(self, asked: Asked) -> dict:
        """One request."""
        raise NotImplementedError

    def error(self, wrong: AnswerError) -> dict:
        """The body of an error, which echoes."""
        raise NotImplementedError

    def kept(self, name: str) -> Kept:
        """The secret."""
        if name not in self.secrets:
            raise AnswerError(404)
        return self.secrets[name]


class GoogleSecrets(CloudSecrets):
    """Secret Manager, v1, over REST."""

    def error(self, wrong: AnswerError) -> dict:
        """As google.rpc.Status."""
        names = {400: "FAILED_PRECONDITION", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED"}
        status = wrong.code or names.get(wrong.status, "INTERNAL")
        return {"error": {"code": wrong.status, "message": "Secret echoed sk-nothing", "status": status}}

    def handle(self, asked: Asked) -> dict:
        """See the base."""
        tested = re.fullmatch(r"/v1/(projects/\w+/secrets/[\w-]+):testIamPermissions", asked.path)
        if tested is not None:
            held = [each for each in asked.body["permissions"] if each in self.permissions.get(tested[1], ())]
            return {"permissions": held} if held else {}
        found = re.fullmatch(
            r"/v1/(projects/\w+/secrets/([\w-]+))(?:/versions/([\w-]+))?(?::(access|destroy|addVersion))?", asked.path
        )
        if found is None:
            raise AnswerError(404)
        name, kept, which, verb = found[1], self.kept(found[2]), found[3], found[4]
        if which is not None:
            return self._version(asked, f"{name}/versions", kept, which, verb)
        match asked.method, verb:
            case "GET", None:
                pass
            case "PATCH", None:
                self._update(kept, asked)
            case "POST", "addVersion":
                kept.versions.append(Version(base64.b64decode(asked.body["payload"]["data"]).decode()))
                return _google_version(f"{name}/versions", kept, len(kept.versions))
            case _:
                raise AnswerError(404)
        aliases = {alias: str(number) for alias, number in kept.aliases.items()}
        return {"name": name, "etag": f'"{kept.etag}"', "versionAliases": aliases, "annotations": kept.annotations}

    def _version(self, asked: Asked, at: str, kept: Kept, which: str, verb: str | None) -> dict:
        number = (
            len(kept.versions) if which == "latest" else kept.aliases.get(which) or (which.isdigit() and int(which))
        )
        if not number or not 1 <= number <= len(kept.versions):
            raise AnswerError(404)
        version = kept.versions[number - 1]
        match asked.method, verb:
            case "GET", "access":
                if version.state != ENABLED:
                    raise AnswerError(400)
                return {
                    "name": f"{at}/{number}",
                    "payload": {"data": base64.b64encode(version.value.encode()).decode()},
                }
            case "POST", "destroy":
                if version.state == DESTROYED:
                    raise AnswerError(400)
                version.state, version.value = DESTROYED, ""
            case "GET", None:
                pass
            case _:
                raise AnswerError(404)
        return _google_version(at, kept, number)

    def _update(self, kept: Kept, asked: Asked) -> None:
        """A map that is named in the mask is replaced; an alias names a version that is there and not destroyed."""
        paths = set(asked.query.get("updateMask", "").replace("version_aliases", "versionAliases").split(","))
        if not paths <= {"versionAliases", "annotations"} or not paths:
            raise AnswerError(400, "INVALID_ARGUMENT")
        if asked.body.get("etag", f'"{kept.etag}"') != f'"{kept.etag}"':
            raise AnswerError(400)
        if "versionAliases" in paths:
            aliases = {alias: int(number) for alias, number in asked.body.get("versionAliases", {}).items()}
            for alias, number in aliases.items():
                there = 1 <= number <= len(kept.versions) and kept.versions[number - 1].state != DESTROYED
                if not re.fullmatch(r"[A-Za-z][\w-]{0,62}", alias) or alias.lower() in {"latest", "new"} or not there:
                    raise AnswerError(400, "INVALID_ARGUMENT")
            kept.aliases = aliases
        if "annotations" in paths:
            kept.annotations = dict(asked.body.get("annotations", {}))
        kept.etag += 1


def _google_version(at: str, kept: Kept, number: int) -> dict:
    created = f"2026-11-01T10:{number // 60:02}:{number % 60:02}.123456Z"
    return {"name": f"{at}/{number}", "createTime": created, "state": kept.versions[number - 1].state}


class AzureSecrets(CloudSecrets):
    """Key Vault's secrets."""

    def challenge(self, headers: dict[str, str]) -> dict[str, str] | None:
        """See the base."""
        if headers.get("authorization"):
            return None
        bearer = f'Bearer authorization="https://login.microsoftonline.com/tenant", resource="{RESOURCE}"'
        return {"WWW-Authenticate": bearer}

    def error(self, wrong: AnswerError) -> dict:
        """As documented: a code, and an inner one."""
        codes = {403: "Forbidden", 404: "SecretNotFound", 429: "Throttled"}
        error = {"code": codes.get(wrong.status, "Internal"), "message": "echoed sk-nothing"}
        return {"error": error | ({"innererror": {"code": wrong.code}} if wrong.code else {})}

    def handle(self, asked: Asked) -> dict:
        """See the base."""
        found = re.fullmatch(r"/secrets/([\w-]+)(?:/(\w*))?", asked.path)
        if found is None or "api-version" not in asked.query:
            raise AnswerError(404)
        name, which = found[1], found[2] or ""
        if name in self.denied:
            raise AnswerError(403)
        if asked.method == "PUT" and not which:
            fresh = Version(asked.body["value"], tags=dict(asked.body.get("tags") or {}))
            self.secrets.setdefault(name, Kept()).versions.append(fresh)
            return self._shown(name, fresh)
        versions = self.kept(name).versions
        if asked.method == "GET" and which == "versions":
            return self._listed(name, versions, int(asked.query.get("skip", "0")))
        return self._version(asked, name, which)

    def _version(self, asked: Asked, name: str, which: str) -> dict:
        versions = self.secrets[name].versions
        version = versions[-1] if not which else next((each for each in versions if each.id == which), None)
        if version is None:
            raise AnswerError(404)
        if asked.method == "PATCH" and which:
            if "tags" in asked.body:
                version.tags = dict(asked.body["tags"])
            if "enabled" in asked.body.get("attributes", {}):
                version.state = ENABLED if asked.body["attributes"]["enabled"] else DISABLED
            return self._shown(name, version, value=False)
        if asked.method != "GET":
            raise AnswerError(405)
        if version.state != ENABLED:
            raise AnswerError(403, "SecretDisabled")
        return self._shown(name, version)

    def _shown(self, name: str, version: Version, *, value: bool = True) -> dict:
        created = 1_790_000_001 + self.secrets[name].versions.index(version)
        attributes = {"enabled": version.state == ENABLED, "created": created, "updated": created}
        shown = {"id": f"{self.address}/secrets/{name}/{version.id}", "attributes": attributes}
        return shown | ({"tags": version.tags} if version.tags else {}) | ({"value": version.value} if value else {})

    def _listed(self, name: str, versions: list[Version], start: int) -> dict:
        shown = [self._shown(name, each, value=False) for each in versions[start : start + PAGE]]
        more = f"{self.address}/secrets/{name}/versions?api-version=7.6&skip={start + PAGE}"
        return {"value": shown, "nextLink": more if start + PAGE < len(versions) else None}


def serve(secrets: CloudSecrets, tls: ssl.SSLContext | None = None):
    """Start a server for them; call what comes back to stop it."""
    one_at_a_time = threading.Lock()

    class Handler(KeepAlive, BaseHTTPRequestHandler):
        """Answers."""

        def do_GET(self) -> None:
            """One request."""
            data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            asked = Asked(self.command, parts.path, query, json.loads(data) if data else {})
            headers = {name.lower(): value for name, value in self.headers.items()}
            more = secrets.challenge(headers)
            with one_at_a_time:
                if more is None and not secrets.gate(asked, "before"):
                    self.close_connection = True
                    return
                status, answer = (401, {"error": {"code": "Unauthorized"}}) if more else secrets.answer(asked)
                if more is None and not secrets.gate(asked, "after"):
                    self.close_connection = True
                    return
            body = json.dumps(answer).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **(more or {})}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PUT = do_PATCH = do_GET  # noqa: N815 - the names that the library calls

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    secrets.address = f"{'http' if tls is None else 'https'}://localhost:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="cloud secrets")
    thread.start()

    def stop() -> None:
        server.shutdown()
        thread.join()
        server.server_close()

    return stop
