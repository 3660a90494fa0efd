"""The resource manager of Azure, as far as an account's two keys go, by the models of azure-mgmt-cognitiveservices."""

from dataclasses import dataclass, field

from tests.fakes.planted import MARKER
from tests.fakes.provider_admin.server import ADMIN_KEY, AdminFake, AnswerError, Request

SUBSCRIPTION = "11111111-2222-3333-4444-555555555555"
GROUP = "agents"
ACCOUNT = "openai-prod"
AT = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.CognitiveServices/accounts/{ACCOUNT}"
CODES = {
    400: "BadRequest",
    401: "InvalidAuthenticationToken",
    403: "AuthorizationFailed",
    404: "ResourceNotFound",
    409: "Conflict",
    429: "TooManyRequests",
}


@dataclass
class AzureAdmin(AdminFake):
    """One account."""

    keys: dict[str, str] = field(default_factory=dict)
    stuck: bool = False

    def __post_init__(self) -> None:
        """With two keys."""
        self.keys = {"key1": self.fresh(), "key2": self.fresh()}

    def fresh(self) -> str:
        """A value that was never given."""
        number = self.next_id()
        return f"az{MARKER}{number:04}{number * 7919:08}KqVnLmRtWzACYeBjFXJ3w3AAABACOG"

    def living(self) -> list[str]:
        """Both."""
        return list(self.keys.values())

    def error(self, status: int, request: Request) -> object:
        """As the resource manager's: code and message."""
        shown = f"{request.headers.get('authorization')} {request.body} {self.living()}"
        return {"error": {"code": CODES.get(status, "InternalServerError"), "message": shown}}

    def handle(self, request: Request) -> tuple[int, object]:
        """One request."""
        if request.headers.get("authorization") != f"Bearer {ADMIN_KEY}":
            raise AnswerError(401, self.error(401, request))
        if "api-version" not in request.query or request.method != "POST":
            raise AnswerError(400, self.error(400, request))
        if request.path == f"{AT}/listKeys":
            return 200, dict(self.keys)
        if request.path != f"{AT}/regenerateKey":
            raise AnswerError(404, self.error(404, request))
        slot = {"Key1": "key1", "Key2": "key2"}.get(request.body.get("keyName", ""))
        if slot is None:
            raise AnswerError(400, self.error(400, request))
        if not self.stuck:
            self.keys[slot] = self.fresh()
        return 200, dict(self.keys)
