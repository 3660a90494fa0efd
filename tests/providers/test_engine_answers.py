"""What becomes of secret engines' answers; the AWS ones as documented, as no server here has that engine."""

import base64
import json

import pytest

from leasehold_broker.ports.key_source import SourceFault, SourceState
from leasehold_broker.providers.engine_answers import bedrock_key, one_member, whole

AWS = {
    "access_key": "ASIAEXAMPLEEXAMPLE00",
    "secret_key": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "security_token": "Fwo+/==",
    "arn": "arn:aws:sts::123456789012:assumed-role/agents/vault",
}
NOW_MS = 1_795_000_000_000


def test_the_whole_answer_is_one_line():
    """A JSON object that any reader takes, whatever is in its strings: blanks, quotes, umlauts, line breaks."""
    data = {"username": "v-orders", "password": 'a b"ü\n\x7f\\ ', "ttl": 60, "nested": {"x": 1}}
    secret = whole(data, 60, NOW_MS).reveal().decode("ascii")
    assert json.loads(secret) == {"username": "v-orders", "password": 'a b"ü\n\x7f\\ ', "ttl": 60}
    assert not set(secret) & {" ", "\n", "\x7f"}


def test_one_member_is_taken():
    """The member that the configuration names."""
    assert one_member("token")({"token": "t-1", "other": "x"}, 60, NOW_MS).reveal() == b"t-1"


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1"])
@pytest.mark.parametrize("life", [900, 200_000])
def test_a_bedrock_key_of_an_aws_session(region, life):
    """A presigned call of that session and region, for its life and twelve hours at most."""
    key = bedrock_key(region)(AWS, life, NOW_MS).reveal().decode()
    url = base64.b64decode(key.removeprefix("bedrock-api-key-")).decode()
    assert f"ASIAEXAMPLEEXAMPLE00%2F20261118%2F{region}%2Fbedrock" in url
    assert f"X-Amz-Expires={min(life, 43200)}&" in url
    assert AWS["secret_key"] not in url


@pytest.mark.parametrize(
    ("form", "data"),
    [
        (whole, {}),
        (whole, {"nested": {}}),
        (whole, {"password": "x" * 20_000}),
        (one_member("token"), {}),
        (one_member("token"), {"token": ""}),
        (one_member("token"), {"token": 7}),
        (one_member("token"), {"token": "sk two words"}),
        (one_member("token"), {"token": "sk-ü"}),
        (bedrock_key("us-east-1"), {**AWS, "security_token": None}),
        (bedrock_key("us-east-1"), {**AWS, "secret_key": None}),
    ],
)
def test_answers_that_are_none(form, data):
    """Empty, too long, without the member, not a line of ASCII, keys that end with no session: MALFORMED, not shown."""
    with pytest.raises(SourceFault) as caught:
        form(data, 60, NOW_MS)
    assert caught.value.state is SourceState.MALFORMED
    assert "sk" not in str(caught.value)
    assert "xxx" not in str(caught.value)
