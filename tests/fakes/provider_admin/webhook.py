"""A service of an operator's that makes keys: it checks signatures with Standard Webhooks' own library."""

from dataclasses import dataclass, field

from standardwebhooks.webhooks import Webhook, WebhookVerificationError
from tests.fakes.planted import MARKER
from tests.fakes.provider_admin.server import AdminFake, AnswerError, Request

SIGNING_KEY = "whsec_Y2FuYXJ5LXNpZ25pbmcta2V5LW9mLXRoZS13ZWJob29rLTAwMQ=="


@dataclass
class WebhookService(AdminFake):
    """Keeps keys by rotation."""

    keys: dict[str, dict] = field(default_factory=dict)
    keys_max: int = 10

    def living(self) -> list[str]:
        """Every key that is taken."""
        return [key["value"] for key in self.keys.values() if not key.get("inactive")]

    def error(self, status: int, request: Request) -> object:
        """Echoes."""
        del status
        return {"error": f"{request.headers} {request.body} {self.living()}"}

    def handle(self, request: Request) -> tuple[int, object]:
        """One request."""
        try:
            Webhook(SIGNING_KEY).verify(request.raw, request.headers)
        except WebhookVerificationError:
            raise AnswerError(401, self.error(401, request)) from None
        if request.path != "/keys" or request.query != {"tenant": "a"}:
            raise AnswerError(404, self.error(404, request))
        action = request.body.get("action")
        if action == "mint":
            return 200, self._mint(request)
        if action == "current":
            fitting = [name for name, key in self.keys.items() if key["value"] == request.body["value"]]
            return 200, {"id": fitting[0] if fitting else ""}
        if action == "sweep":
            rotation, keep = request.body["rotation"], request.body["keep"]
            self.keys = {name: key for name, key in self.keys.items() if key["rotation"] != rotation or name == keep}
            return 204, None
        if action == "disable" and request.body["id"] in self.keys:
            self.keys[request.body["id"]]["inactive"] = True
            return 204, None
        if action == "end" and self.keys.pop(request.body["id"], None) is not None:
            return 204, None
        raise AnswerError(404, self.error(404, request))

    def _mint(self, request: Request) -> object:
        rotation = request.body["rotation"]
        self.keys = {name: key for name, key in self.keys.items() if key["rotation"] != rotation}
        if len(self.keys) >= self.keys_max:
            raise AnswerError(507, self.error(507, request))
        number = self.next_id()
        name = f"hook-{number}"
        self.keys[name] = {"rotation": rotation, "value": f"hook-key-{number:04}-{MARKER}-{number * 7919:08}KqVn"}
        return {"id": name, "value": self.keys[name]["value"]}
