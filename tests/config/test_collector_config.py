"""The collector's configuration: what loads, and what is refused with a sentence that says what to change."""

import pytest

from leasehold_broker.config import ConfigError, load_collector
from leasehold_broker.domain.collector_rules import Role, RoleRule, SidecarRule

GOOD = """
[collector]
name = "centre"
state_dir = "state"

[[issuers]]
name = "demo"
kind = "oidc"
issuer = "https://issuer.example"
audience = "leasehold-collector"
algorithms = ["ES256"]
replay = "off"
jwks_file = "jwks.json"

[[sidecars]]
name = "sidecar-a"
issuer = "https://issuer.example"
subject = "sidecar-a"

[[operators]]
role = "responder"
uids = [0]

[[operators]]
role = "auditor"
issuer = "https://issuer.example"
claim = "groups"
values = ["audit"]
"""


def write(folder, text):
    """The text as a configuration file."""
    path = folder / "collector.toml"
    path.write_text(text)
    path.chmod(0o640)
    return path


def test_a_good_file_loads(tmp_path):
    """Sidecars, operators and issuers come out as rules."""
    config = load_collector(write(tmp_path, GOOD))

    assert config.sidecars == (SidecarRule("https://issuer.example", "sidecar-a", "sidecar-a"),)
    assert config.roles == (RoleRule("https://issuer.example", "groups", "audit", Role.AUDITOR),)
    assert config.roles_of_uid == {0: frozenset({Role.RESPONDER})}
    assert config.authority_seconds == 60


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('name = "centre"', 'name = "sidecar-a"'), "used twice"),
        (('subject = "sidecar-a"', 'subjekt = "sidecar-a"'), "subjekt"),
        (('issuer = "https://issuer.example"\nsubject', 'issuer = "https://other.example"\nsubject'), "which no"),
        (('role = "responder"', 'role = "auditor"'), "nobody could revoke"),
        (('subject = "sidecar-a"', ""), "needs issuer and subject of its token, or the spiffe_id"),
        (('subject = "sidecar-a"', 'subject = "sidecar-a"\nspiffe_id = "spiffe://a/b"'), "both spiffe_id and issuer"),
        (('issuer = "https://issuer.example"\nsubject = "sidecar-a"', 'spiffe_id = "spiffe://a/b"'), "needs client_ca"),
        (('issuer = "https://issuer.example"\nsubject = "sidecar-a"', 'spiffe_id = "https://a/b"'), "spiffe_id"),
        (("uids = [0]", ""), "either uids or issuer"),
        (('jwks_file = "jwks.json"', 'jwks_file = "jwks.json"\nproof = "dpop"'), "keeps no list of what was shown"),
        (('jwks_file = "jwks.json"', 'jwks_file = "jwks.json"\nproof = "mtls"'), "needs client_ca in [grpc.tls]"),
        (('values = ["audit"]', ""), "needs claim and values"),
        (("[[issuers]]", '[grpc]\naddress = "0.0.0.0:1"\n[[issuers]]'), "beyond this machine without TLS"),
        (('state_dir = "state"', 'state_dir = "state"\nauthority_seconds = 0'), "authority_seconds"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(tmp_path, change, said):
    """Each refusal names the setting, so that the operator knows what to change."""
    with pytest.raises(ConfigError) as caught:
        load_collector(write(tmp_path, GOOD.replace(*change, 1)))

    assert said in str(caught.value)
