"""OpenAI's admin API of projects: service accounts and API keys, by the types of the official SDK."""

from dataclasses import dataclass, field

from tests.fakes.planted import MARKER
from tests.fakes.provider_admin.server import ADMIN_KEY, AdminFake, AnswerError, Request

PROJECT = "proj_agents"
ACCOUNTS_MAX = 50
PAGE_MAX = 100
AT = f"/v1/organization/projects/{PROJECT}"


@dataclass
class Key:
    """One key of a project."""

    id: str
    value: str
    account: str
    scopes: tuple[str, ...] = ()


@dataclass
class OpenAIAdmin(AdminFake):
    """One organisation with one project."""

    accounts: dict[str, str] = field(default_factory=dict)
    keys: dict[str, Key] = field(default_factory=dict)
    users: set[str] = field(default_factory=set)

    def accepts(self, value: str) -> bool:
        """Whether the provider's API takes this key."""
        return any(key.value == value for key in self.keys.values())

    def living(self) -> list[str]:
        """Every key that is taken."""
        return [key.value for key in self.keys.values()]

    def add_key(self, account: str) -> Key:
        """A key of an account or a person."""
        number = self.next_id()
        key = Key(f"key_{number:04}", f"sk-svcacct-{number:04}-{MARKER}-T3BlbkFJ-{number * 7919:08}", account)
        self.keys[key.id] = key
        return key

    def error(self, status: int, request: Request) -> object:
        """As documented: message, type, param, code."""
        codes = {401: "invalid_api_key", 429: "rate_limit_exceeded"}
        shown = f"{request.headers.get('authorization')} {request.body} {self.living()}"
        return {"error": {"message": shown, "type": "invalid_request_error", "param": None, "code": codes.get(status)}}

    def handle(self, request: Request) -> tuple[int, object]:
        """One request."""
        if request.headers.get("authorization") != f"Bearer {ADMIN_KEY}":
            raise AnswerError(401, self.error(401, request))
        if not request.path.startswith(f"{AT}/"):
            raise AnswerError(404, self.error(404, request))
        what, _, name = request.path.removeprefix(f"{AT}/").partition("/")
        act = {
            ("GET", "service_accounts"): self._list_accounts,
            ("POST", "service_accounts"): self._create,
            ("DELETE", "service_accounts"): self._delete_account,
            ("GET", "api_keys"): self._list_keys,
            ("POST", "api_keys"): self._update_key,
            ("DELETE", "api_keys"): self._delete_key,
        }.get((request.method, what))
        if act is None:
            raise AnswerError(405, self.error(405, request))
        return 200, act(name, request)

    def _create(self, name: str, request: Request) -> object:
        wanted = request.body.get("name")
        if name or set(request.body) - {"name", "expires_in_seconds"} or not isinstance(wanted, str) or not wanted:
            raise AnswerError(400, self.error(400, request))
        if len(self.accounts) >= ACCOUNTS_MAX:
            body = {"message": "no more", "type": "invalid_request_error", "param": None, "code": "limit_exceeded"}
            raise AnswerError(400, {"error": body})
        account = f"svc_acct_{self.next_id():04}"
        self.accounts[account] = wanted
        key = self.add_key(account)
        return {
            "object": "organization.project.service_account",
            "id": account,
            "name": wanted,
            "role": "member",
            "created_at": 1_760_000_000,
            "api_key": {
                "object": "organization.project.service_account.api_key",
                "value": key.value,
                "name": "Secret Key",
                "created_at": 1_760_000_000,
                "id": key.id,
            },
        }

    def _list_accounts(self, name: str, request: Request) -> object:
        if name:
            raise AnswerError(404, self.error(404, request))
        rows = [
            {
                "object": "organization.project.service_account",
                "id": account,
                "name": name,
                "role": "member",
                "created_at": 1_760_000_000,
            }
            for account, name in self.accounts.items()
        ]
        return self._page(rows, request, {"limit", "after"})

    def _list_keys(self, name: str, request: Request) -> object:
        if name:
            raise AnswerError(404, self.error(404, request))
        rows = [self._key(key) for key in self.keys.values()]
        if request.query.get("owner_project_access") != "any":
            # By membership: keys of service accounts are not shown to everybody.
            rows = [row for row in rows if row["owner"]["type"] == "user"]
        return self._page(rows, request, {"limit", "after", "owner_project_access"})

    def _page(self, rows: list[dict], request: Request, known: set[str]) -> object:
        limit = int(request.query.get("limit", 20))
        if set(request.query) - known or not 1 <= limit <= PAGE_MAX:
            raise AnswerError(400, self.error(400, request))
        ids = [row["id"] for row in rows]
        start = ids.index(request.query["after"]) + 1 if "after" in request.query else 0
        found = rows[start : start + limit]
        return {
            "object": "list",
            "data": found,
            "first_id": found[0]["id"] if found else None,
            "last_id": found[-1]["id"] if found else None,
            "has_more": start + limit < len(rows),
        }

    def _key(self, key: Key) -> dict:
        owner = {"id": key.account, "name": "one", "role": "member", "created_at": 1_760_000_000}
        if key.account in self.users:
            whose = {"type": "user", "user": owner | {"email": "one@example.com"}}
        else:
            whose = {"type": "service_account", "service_account": owner}
        return {
            "object": "organization.project.api_key",
            "id": key.id,
            "name": "Secret Key",
            "created_at": 1_760_000_000,
            "last_used_at": None,
            "redacted_value": f"{key.value[:8]}{'*' * 20}{key.value[-4:]}",
            "owner": whose,
            "owner_project_access": "active",
        }

    def _update_key(self, name: str, request: Request) -> object:
        if name not in self.keys:
            raise AnswerError(404, self.error(404, request))
        self.keys[name].scopes = tuple(request.body["scopes"])
        return self._key(self.keys[name])

    def _delete_key(self, name: str, request: Request) -> object:
        if name not in self.keys:
            raise AnswerError(404, self.error(404, request))
        if self.keys[name].account not in self.users:
            raise AnswerError(400, self.error(400, request))
        del self.keys[name]
        return {"object": "organization.project.api_key.deleted", "id": name, "deleted": True}

    def _delete_account(self, name: str, request: Request) -> object:
        if name not in self.accounts:
            raise AnswerError(404, self.error(404, request))
        del self.accounts[name]
        self.keys = {key.id: key for key in self.keys.values() if key.account != name}
        return {"object": "organization.project.service_account.deleted", "id": name, "deleted": True}
