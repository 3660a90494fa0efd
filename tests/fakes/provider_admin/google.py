"""Google's API Keys API v2, by the types of google-cloud-api-keys: operations take a while, deleted keys stay."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from tests.fakes.planted import MARKER
from tests.fakes.provider_admin.server import ADMIN_KEY, AdminFake, AnswerError, Request

PROJECT = "agents-prod-123456"
SERVICE = "generativelanguage.googleapis.com"
AT = f"/v2/projects/{PROJECT}/locations/global/keys"
KEYS_MAX = 300
CODES = {
    400: (3, "INVALID_ARGUMENT"),
    401: (16, "UNAUTHENTICATED"),
    403: (7, "PERMISSION_DENIED"),
    404: (5, "NOT_FOUND"),
    409: (6, "ALREADY_EXISTS"),
    429: (8, "RESOURCE_EXHAUSTED"),
    503: (14, "UNAVAILABLE"),
}


@dataclass
class Key:
    """One key."""

    id: str
    value: str
    body: dict
    deleted: bool = False


@dataclass
class GoogleAdmin(AdminFake):
    """One project."""

    keys: dict[str, Key] = field(default_factory=dict)
    operations: dict[str, dict] = field(default_factory=dict)
    polls: int = 1
    broken: int = 0

    def living(self) -> list[str]:
        """Every key that is taken, once Google is done with deleting it."""
        return [key.value for key in self.keys.values() if not key.deleted]

    def add(self, key_id: str, body: dict) -> Key:
        """A key."""
        number = self.next_id()
        self.keys[key_id] = Key(key_id, f"AIzaSy{MARKER}{number:04}-x7Kq2Vn9Lm4Rt{number * 7919:08}", body)
        return self.keys[key_id]

    def error(self, status: int, request: Request) -> object:
        """google.rpc.Status in JSON."""
        shown = f"{request.headers.get('authorization')} {request.body} {self.living()}"
        return {"error": {"code": status, "message": shown, "status": CODES.get(status, (2, "UNKNOWN"))[1]}}

    def refuse(self, status: int, request: Request) -> AnswerError:
        """An error."""
        return AnswerError(status, self.error(status, request))

    def handle(self, request: Request) -> tuple[int, object]:
        """One request."""
        if request.headers.get("authorization") != f"Bearer {ADMIN_KEY}":
            raise self.refuse(401, request)
        if request.path.startswith("/v2/operations/") and request.method == "GET":
            return 200, self._poll(request.path.removeprefix("/v2/"))
        if request.path == AT:
            return 200, self._create(request) if request.method == "POST" else self._list(request)
        key_id, _, action = request.path.removeprefix(f"{AT}/").partition("/")
        key = self.keys.get(key_id) if request.path.startswith(f"{AT}/") else None
        if key is None:
            raise self.refuse(404, request)
        if request.method == "DELETE" and not action:
            if key.deleted:
                raise self.refuse(400, request)
            key.deleted = True
            return 200, self._operation(self.shown(key))
        if request.method != "GET" or action not in {"", "keyString"}:
            raise self.refuse(404, request)
        return 200, {"keyString": key.value} if action else self.shown(key)

    def _create(self, request: Request) -> object:
        key_id = request.query.get("keyId", "")
        if set(request.query) - {"keyId"} or set(request.body) - {"displayName", "restrictions", "serviceAccountEmail"}:
            raise self.refuse(400, request)
        if not key_id or len(key_id) > 63 or len(request.body.get("displayName", "")) > 63:
            raise self.refuse(400, request)
        if key_id in self.keys:
            raise self.refuse(409, request)
        if len(self.living()) >= KEYS_MAX:
            body = {"code": 400, "message": "no more", "status": "FAILED_PRECONDITION", "reason": "KEY_LIMIT_EXCEEDED"}
            raise AnswerError(400, {"error": body})
        if self.broken:
            return self._operation(None, self.broken)
        return self._operation(self.shown(self.add(key_id, request.body)))

    def _list(self, request: Request) -> object:
        size = int(request.query.get("pageSize", 50))
        if request.method != "GET" or set(request.query) - {"pageSize", "pageToken", "showDeleted"} or size > 300:
            raise self.refuse(400, request)
        rows = [self.shown(key) for key in self.keys.values() if not key.deleted]
        start = int(request.query.get("pageToken", "0"))
        size = min(size, 7)
        more = {"nextPageToken": str(start + size)} if start + size < len(rows) else {}
        return {"keys": rows[start : start + size], **more}

    def shown(self, key: Key) -> dict:
        """A key without its value."""
        stamp = datetime(2026, 11, 25, tzinfo=UTC).isoformat().replace("+00:00", "Z")
        return {
            "name": f"projects/123456/locations/global/keys/{key.id}",
            "uid": f"uid-{key.id}",
            "createTime": stamp,
            "updateTime": stamp,
            "etag": "W/zHib8eXEMCxe4ayQEbIaZg==",
            **key.body,
            **({"deleteTime": stamp} if key.deleted else {}),
        }

    def _operation(self, key: dict | None, broken: int = 0) -> dict:
        name = f"operations/akmf.p7-{self.next_id()}"
        kind = "type.googleapis.com/google.api.apikeys.v2.Key"
        ended = (
            {"error": {"code": broken, "message": "echo"}} if broken else {"response": {"@type": kind, **(key or {})}}
        )
        self.operations[name] = {"left": self.polls, "ended": ended}
        return {"name": name, "done": True, **ended} if not self.polls else {"name": name}

    def _poll(self, name: str) -> dict:
        operation = self.operations[name]
        operation["left"] -= 1
        if operation["left"] > 0:
            return {"name": name, "done": False}
        return {"name": name, "done": True, **operation["ended"]}
