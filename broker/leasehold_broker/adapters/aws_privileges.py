"""What our own login may do at AWS Secrets Manager beyond reading its own secrets. Owns the questions; changes nothing.

AWS has no question for it that needs no permission of its own (`iam:SimulatePrincipalPolicy` is one more), so calls are
tried on a name that nobody has: AWS decides whether they are permitted before it looks for the secret. What the login
may change of its own secrets cannot be found out without changing them, and is not.
"""

import uuid
from collections.abc import Callable, Sequence
from typing import Any

from botocore.exceptions import ClientError

_DENIED = frozenset({"AccessDenied", "AccessDeniedException"})
_PERMITTED = frozenset({"ResourceNotFoundException", "InvalidRequestException"})
"""It was permitted, and there is no such secret, or it is deleted."""


def excess(client: Any, apart: Sequence[str]) -> list[str]:
    """One sentence for each thing that was permitted. Blocking.

    Args:
        client: boto3's of Secrets Manager, with the login that is looked at.
        apart: names or ARNs of other environments' secrets; they are read, and dropped, where that is permitted.

    Raises:
        ClientError, BotoCoreError: AWS did not say.
    """
    nobody = f"leasehold-audit-{uuid.uuid4().hex}"
    wide = [
        f"the login may read {name!r}, which is of another environment"
        for name in apart
        if _permitted(client.get_secret_value, SecretId=name)
    ]
    questions: tuple[tuple[str, Callable[..., Any], dict[str, Any]], ...] = (
        ("read secrets of any name", client.get_secret_value, {"SecretId": nobody}),
        ("write secrets of any name", client.put_secret_value, {"SecretId": nobody, "SecretString": "none"}),
        ("delete secrets of any name", client.delete_secret, {"SecretId": nobody, "RecoveryWindowInDays": 30}),
        ("list all secrets", client.list_secrets, {"MaxResults": 1}),
    )
    wide += [f"the login may {what}, which it does not need" for what, call, of in questions if _permitted(call, **of)]
    return wide


def _permitted(call: Callable[..., Any], **arguments: Any) -> bool:
    try:
        call(**arguments)
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code in _DENIED:
            return False
        if code in _PERMITTED:
            return True
        raise
    return True
