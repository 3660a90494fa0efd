"""Anthropic's admin API of keys, by the types of the official SDK: listed, made inactive, never made."""

from dataclasses import dataclass, field

from tests.fakes.planted import MARKER
from tests.fakes.provider_admin.server import ADMIN_KEY, AdminFake, AnswerError, Request

AT = "/v1/organizations/api_keys"
WORKSPACE = "wrkspc_01JwQvzr7rXLA5AGx3HKfFUJ"
TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
VERSIONS = {"2023-06-01", "2026-10-21"}
"""The documented one, and that of the official SDK."""
PAGE = 3


@dataclass
class AnthropicAdmin(AdminFake):
    """One organisation."""

    keys: dict[str, dict] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)

    def living(self) -> list[str]:
        """Every key that is taken."""
        return [self.values[name] for name, key in self.keys.items() if key["status"] == "active"]

    def add(self, name: str, workspace: str = WORKSPACE) -> tuple[str, str]:
        """Id and value of a key that somebody made in the console."""
        number = self.next_id()
        key_id = f"apikey_{number:024}"
        value = f"sk-ant-api03-{number:03}{MARKER}{number * 7919:08}-x7Kq2Vn9Lm4RtWz8-{number:04}AA"
        self.values[key_id] = value
        self.keys[key_id] = {
            "id": key_id,
            "created_at": "2024-10-30T23:58:27.427722Z",
            "created_by": {"id": "user_01WCz1FkmYMm4gnmykNKUu3Q", "type": "user"},
            "expires_at": None,
            "name": name,
            "partial_key_hint": f"{value[:16]}...{value[-4:]}",
            "principal": None,
            "scope": {"type": "workspace", "workspace_id": workspace},
            "status": "active",
            "type": "api_key",
            "workspace_id": workspace,
        }
        return key_id, value

    def error(self, status: int, request: Request) -> object:
        """As documented: an error of a type, and a request id."""
        shown = f"{request.headers} {request.body} {self.living()}"
        error = {"type": TYPES.get(status, "api_error"), "message": shown}
        return {"type": "error", "error": error, "request_id": "req_1"}

    def handle(self, request: Request) -> tuple[int, object]:
        """One request."""
        # The documentation sends the one header, the official SDK the other.
        if ADMIN_KEY not in {request.headers.get("x-api-key"), request.headers.get("authorization", "")[7:]}:
            raise AnswerError(401, self.error(401, request))
        if request.headers.get("anthropic-version") not in VERSIONS:
            raise AnswerError(400, self.error(400, request))
        if request.path == AT and request.method == "GET":
            return 200, self._list(request)
        name = request.path.removeprefix(f"{AT}/")
        if name not in self.keys:
            raise AnswerError(404 if request.path.startswith(f"{AT}/") else 405, self.error(404, request))
        if request.method == "POST":
            if set(request.body) - {"name", "status"} or request.body.get("status") not in {None, "active", "inactive"}:
                raise AnswerError(400, self.error(400, request))
            self.keys[name] |= request.body
        return 200, self.keys[name]

    def _list(self, request: Request) -> object:
        query = dict(request.query)
        limit = int(query.pop("limit", "20"))
        after, status, workspace = (query.pop(name, "") for name in ("after_id", "status", "workspace_id"))
        if query or not 1 <= limit <= 1000:
            raise AnswerError(400, self.error(400, request))
        rows = [
            key
            for key in self.keys.values()
            if (not status or key["status"] == status) and (not workspace or key["scope"]["workspace_id"] == workspace)
        ]
        ids = [row["id"] for row in rows]
        start = ids.index(after) + 1 if after else 0
        found = rows[start : start + min(limit, PAGE)]
        return {
            "data": found,
            "first_id": found[0]["id"] if found else None,
            "last_id": found[-1]["id"] if found else None,
            "has_more": start + PAGE < len(rows),
        }
