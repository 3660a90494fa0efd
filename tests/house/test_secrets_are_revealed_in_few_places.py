"""The list of lines that may see a secret in the clear. A new one is added here, with its reason, or not at all."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAY_REVEAL = {
    "broker/leasehold_broker/providers/anthropic.py": "places the key into the header",
    "broker/leasehold_broker/providers/azure.py": "places the key into the header",
    "broker/leasehold_broker/providers/bedrock.py": "places the key into the header",
    "broker/leasehold_broker/providers/openai_host.py": "places the key into the header",
    "broker/leasehold_broker/providers/vertex.py": "places the token into the header",
    "broker/leasehold_broker/providers/gemini.py": "places the key into the header",
    "broker/leasehold_broker/adapters/keys_local.py": "seals the key",
    "broker/leasehold_broker/adapters/token_endpoints.py": "places a federated token into the next exchange",
    "broker/leasehold_broker/providers/exchanges/messages.py": "places a workload token into the body of its exchange",
    "broker/leasehold_broker/adapters/keys_aws.py": "writes a rotation's pending key to its store",
    "broker/leasehold_broker/adapters/keys_vault.py": "writes a rotation's pending key to its store",
    "broker/leasehold_broker/adapters/keys_gcp.py": "writes a rotation's pending key to its store",
    "broker/leasehold_broker/adapters/keys_azure.py": "writes a rotation's pending key to its store",
    "broker/leasehold_broker/adapters/minters/admin_api.py": "places an admin key into the header of its request",
    "broker/leasehold_broker/adapters/aws_client.py": "makes credentials of an admin key",
    "broker/leasehold_broker/adapters/minters/aws.py": "takes the public part of a key from its value",
    "broker/leasehold_broker/adapters/minters/azure.py": "digests a key, to know its slot's value again",
    "broker/leasehold_broker/adapters/minters/webhook.py": "signs a request, and asks about a key",
    "broker/leasehold_broker/adapters/minters/exec.py": "writes a secret to the input of the operator's program",
    "broker/leasehold_broker/adapters/minters/marks.py": "compares a key with the hint that a list shows of it",
    "broker/leasehold_broker/adapters/openid_sign_in.py": "places a refresh token into the form that renews or ends it",
    "broker/leasehold_broker/adapters/usage_reports_http.py": "places an admin key into the header of a usage report",
    "broker/leasehold_broker/adapters/vault_session.py": "places the token of one reading of a secret engine",
    "broker/leasehold_broker/domain/honeytokens.py": "shows a fresh honeytoken, which opens nothing, once",
    "broker/leasehold_broker/egress/redaction.py": "searches answers for an echo of the key",
    "broker/leasehold_broker/flows/audit_keys.py": "digests each key, to find secrets that are shared",
    "broker/leasehold_broker/flows/issuing.py": "digests a fresh lease token",
    "broker/leasehold_broker/sidecar/lease_service.py": "shows a fresh lease token to its holder, once",
}


def revealers() -> set[str]:
    """Files of the broker with a call to something named `reveal`."""
    found = set()
    for path in (ROOT / "broker").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "reveal":
                found.add(str(path.relative_to(ROOT)))
    return found


def test_only_the_listed_files_reveal_a_secret():
    """No other line of the broker can put a key or a lease token in the clear."""
    assert set() == revealers() - set(MAY_REVEAL)


def test_the_list_has_no_stale_entry():
    """A file that no longer reveals anything is taken off the list."""
    assert set() == set(MAY_REVEAL) - revealers()
