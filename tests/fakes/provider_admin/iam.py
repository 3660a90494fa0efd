"""AWS IAM: moto behind a proxy that knows who asks and plants faults; and Bedrock's API keys, which moto does not have.

Answers are read by botocore from its own model of the service, so their shapes are AWS's.
"""

import base64
import http.client
from dataclasses import dataclass, field
from urllib.parse import urlsplit
from xml.sax.saxutils import escape

from tests.fakes.planted import MARKER
from tests.fakes.provider_admin.server import AdminFake, AnswerError, Request

ADMIN_ID = "AKIAADMINEXAMPLE0000"
ADMIN_SECRET = f"{MARKER}/wJalrXUtnFEMI+K7MDENGbPxRfiCYEXAMPLE"
BEDROCK = "bedrock.amazonaws.com"
CODES = {
    400: "ValidationError",
    401: "InvalidClientTokenId",
    403: "AccessDenied",
    404: "NoSuchEntity",
    409: "LimitExceeded",
    429: "Throttling",
    503: "ServiceUnavailable",
}


@dataclass
class IamAdmin(AdminFake):
    """One account, in which moto keeps users, tags and access keys."""

    moto: str = ""
    bedrock: dict[str, dict] = field(default_factory=dict)
    hidden: int = 0

    def error(self, status: int, request: Request) -> bytes:
        """IAM's XML, which echoes."""
        code = CODES.get(status, "InternalFailure")
        shown = escape(f"{request.headers.get('authorization')} {request.body}")
        return (
            f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{shown}</Message></Error>"
            "<RequestId>r</RequestId></ErrorResponse>"
        ).encode()

    def handle(self, request: Request) -> tuple[int, object]:
        """One action."""
        if f"Credential={ADMIN_ID}/" not in request.headers.get("authorization", ""):
            raise AnswerError(403, self.error(401, request))
        action = request.body.get("Action", "")
        act = {
            "CreateServiceSpecificCredential": self._create,
            "ListServiceSpecificCredentials": self._list,
            "DeleteServiceSpecificCredential": self._delete,
            "UpdateServiceSpecificCredential": self._update,
        }.get(action)
        if act is None:
            return self._forwarded(request)
        if request.body.get("ServiceName", BEDROCK) != BEDROCK:
            raise AnswerError(400, self.error(400, request))
        result = act(request)
        return 200, (
            f'<{action}Response xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><{action}Result>{result}'
            f"</{action}Result><ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></{action}Response>"
        ).encode()

    def _forwarded(self, request: Request) -> tuple[int, object]:
        connection = http.client.HTTPConnection(urlsplit(self.moto).netloc, timeout=60)
        try:
            connection.request("POST", "/", request.raw, {**request.headers, "host": "iam.amazonaws.com"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def _create(self, request: Request) -> str:
        user = request.body["UserName"]
        if sum(one["UserName"] == user for one in self.bedrock.values()) >= 2:
            raise AnswerError(409, self.error(409, request))
        number = self.next_id()
        alias = f"BedrockAPIKey-c{number:03}-at-123456789012"
        secret = base64.b64encode(f"{alias}:{MARKER}{number * 7919:08}KqVnLmRtWz".encode()).decode()
        key_id = f"ACCAEXAMPLE{number:010}"
        self.bedrock[key_id] = {
            "UserName": user,
            "ServiceCredentialAlias": alias,
            "ServiceCredentialSecret": f"ABSK{secret}",
            "ServiceSpecificCredentialId": key_id,
            "Status": "Active",
            "ServiceName": BEDROCK,
            "CreateDate": "2026-11-25T19:00:00Z",
            "Age": request.body.get("CredentialAgeDays", ""),
        }
        return f"<ServiceSpecificCredential>{_xml(self.bedrock[key_id])}</ServiceSpecificCredential>"

    def _list(self, request: Request) -> str:
        """One a page; `hidden` lists lack what is newest: IAM is consistent after a while only."""
        rows = [one for one in self.bedrock.values() if one["UserName"] == request.body.get("UserName")]
        if self.hidden:
            self.hidden -= 1
            rows = rows[:-1]
        start = int(request.body.get("Marker", "0"))
        shown = "".join(f"<member>{_xml(one, 'ServiceCredentialSecret')}</member>" for one in rows[start : start + 1])
        more = f"<Marker>{start + 1}</Marker>" if start + 1 < len(rows) else ""
        cut = "true" if more else "false"
        return f"<ServiceSpecificCredentials>{shown}</ServiceSpecificCredentials><IsTruncated>{cut}</IsTruncated>{more}"

    def _delete(self, request: Request) -> str:
        if request.body["ServiceSpecificCredentialId"] not in self.bedrock:
            raise AnswerError(404, self.error(404, request))
        del self.bedrock[request.body["ServiceSpecificCredentialId"]]
        return ""

    def _update(self, request: Request) -> str:
        found = self.bedrock.get(request.body["ServiceSpecificCredentialId"])
        if found is None or request.body.get("UserName") != found["UserName"]:
            raise AnswerError(404, self.error(404, request))
        if request.body.get("Status") not in {"Active", "Inactive"}:
            raise AnswerError(400, self.error(400, request))
        found["Status"] = request.body["Status"]
        return ""


def _xml(fields: dict, *without: str) -> str:
    return "".join(
        f"<{name}>{escape(value)}</{name}>" for name, value in fields.items() if name not in {*without, "Age"}
    )
