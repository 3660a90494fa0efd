"""OpenRouter's management API of keys, by the models of its official SDK."""

import hashlib
from dataclasses import dataclass, field

from tests.fakes.planted import MARKER
from tests.fakes.provider_admin.server import ADMIN_KEY, AdminFake, AnswerError, Request

AT = "/api/v1/keys"
KEYS_MAX = 60
PAGE = 100
WORKSPACE = "0df9e665-d932-5740-b2c7-b52af166bc11"
KNOWN = {"name", "limit", "limit_reset", "include_byok_in_limit", "expires_at", "workspace_id"}
CHANGED = {"name", "disabled", "limit", "limit_reset", "include_byok_in_limit"}


@dataclass
class OpenRouterAdmin(AdminFake):
    """One account."""

    keys: dict[str, tuple[str, dict]] = field(default_factory=dict)

    def living(self) -> list[str]:
        """Every key that is taken."""
        return [value for value, body in self.keys.values() if not body.get("disabled")]

    def add(self, body: dict) -> tuple[str, str]:
        """Hash and value of a new key."""
        number = self.next_id()
        value = f"sk-or-v1-{MARKER.encode().hex()}{hashlib.sha256(f'key {number}'.encode()).hexdigest()[:40]}"
        name = hashlib.sha256(value.encode()).hexdigest()
        self.keys[name] = (value, dict(body))
        return name, value

    def error(self, status: int, request: Request) -> object:
        """Code and message."""
        shown = f"{request.headers.get('authorization')} {request.body} {self.living()}"
        return {"error": {"code": status, "message": shown}}

    def handle(self, request: Request) -> tuple[int, object]:
        """One request."""
        if request.headers.get("authorization") != f"Bearer {ADMIN_KEY}":
            raise AnswerError(401, self.error(401, request))
        if request.path == AT and request.method == "GET":
            return 200, self._list(request)
        if request.path == AT and request.method == "POST":
            return 201, self._create(request)
        name = request.path.removeprefix(f"{AT}/")
        if name not in self.keys:
            raise AnswerError(404, self.error(404, request))
        if request.method == "DELETE":
            del self.keys[name]
            return 200, {"deleted": True}
        if request.method == "PATCH":
            if set(request.body) - CHANGED:
                raise AnswerError(400, self.error(400, request))
            self.keys[name][1].update(request.body)
            return 200, {"data": self.shown(name)}
        raise AnswerError(405, self.error(405, request))

    def _create(self, request: Request) -> object:
        if set(request.body) - KNOWN or not request.body.get("name"):
            raise AnswerError(400, self.error(400, request))
        if len(self.keys) >= KEYS_MAX:
            raise AnswerError(403, {"error": {"code": "key_limit_reached", "message": "no more"}})
        name, value = self.add(request.body)
        return {"data": self.shown(name), "key": value}

    def _list(self, request: Request) -> object:
        if set(request.query) - {"offset", "include_disabled", "workspace_id"}:
            raise AnswerError(400, self.error(400, request))
        start, whole = int(request.query.get("offset", "0")), request.query.get("include_disabled") == "true"
        rows = [self.shown(name) for name, (_, body) in self.keys.items() if whole or not body.get("disabled")]
        rows = [row for row in rows if row["workspace_id"] == request.query.get("workspace_id", WORKSPACE)]
        return {"data": rows[start : start + PAGE]}

    def shown(self, name: str) -> dict:
        """A key without its value."""
        value, body = self.keys[name]
        spent = {
            f"{what}{when}": 0 for what in ("usage", "byok_usage") for when in ("", "_daily", "_weekly", "_monthly")
        }
        return {
            "hash": name,
            "name": body["name"],
            "label": f"{value[:12]}...{value[-3:]}",
            "disabled": body.get("disabled", False),
            "limit": body.get("limit"),
            "limit_remaining": body.get("limit"),
            "limit_reset": body.get("limit_reset"),
            "include_byok_in_limit": False,
            **spent,
            "created_at": "2026-11-25T10:30:00Z",
            "updated_at": None,
            "expires_at": None,
            "creator_user_id": None,
            "external_user": None,
            "last_used_at": None,
            "workspace_id": body.get("workspace_id", WORKSPACE),
        }
