"""The collector's configuration: what loads, and what is refused with a sentence that says what to change."""

import pytest

from leasehold_broker.config import ConfigError, load_collector
from leasehold_broker.config.collector_store import PostgresStore
from leasehold_broker.domain.amounts import Metric
from leasehold_broker.domain.collector_rules import Role, RoleRule, SidecarRule
from leasehold_broker.domain.windows import Rolling

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


# A copy of the sidecar's table with another name: a slip when a fleet is written down.
TWIN = '[[sidecars]]\nname = "sidecar-b"\nissuer = "https://issuer.example"\nsubject = "sidecar-a"\n\n'


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
        (("[[operators]]", TWIN + "[[operators]]"), "is named as two sidecars"),
        (('subject = "sidecar-a"', 'subjekt = "sidecar-a"'), "subjekt"),
        (('issuer = "https://issuer.example"\nsubject', 'issuer = "https://other.example"\nsubject'), "which no"),
        (('role = "responder"', 'role = "auditor"'), "nobody could revoke"),
        (("[[issuers]]", "[grpc]\nconnections_max = 5001\n[[issuers]]"), "connections_max must be 1 to 5000"),
        (("[[issuers]]", "[grpc]\nconnections_max = 20\n[[issuers]]"), "connections_per_peer_max 1 to connections_max"),
        (("[[issuers]]", "[grpc]\nconnections_per_peer_max = 0\n[[issuers]]"), "connections_per_peer_max 1 to"),
        (('subject = "sidecar-a"', ""), "needs issuer and subject of its token, or the spiffe_id"),
        (('subject = "sidecar-a"', 'subject = "sidecar-a"\nspiffe_id = "spiffe://a/b"'), "both spiffe_id and issuer"),
        (('issuer = "https://issuer.example"\nsubject = "sidecar-a"', 'spiffe_id = "spiffe://a/b"'), "needs client_ca"),
        (('issuer = "https://issuer.example"\nsubject = "sidecar-a"', 'spiffe_id = "https://a/b"'), "spiffe_id"),
        (('subject = "sidecar-a"', 'subject = "sidecar-a"\nuids = [-1]'), "uids must be 0 or more"),
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


SHARED = """
[store]
engine = "postgres"
url = "postgresql://leasehold@db.example/leasehold?sslmode=verify-full"
"""


def test_a_log_may_be_in_postgresql(tmp_path, monkeypatch):
    """The store comes out checked; a replica may take its name from its host."""
    password = tmp_path / "password"
    password.write_text("secret")
    password.chmod(0o600)
    monkeypatch.setattr("socket.gethostname", lambda: "Pod-3")
    more = SHARED + 'password_file = "password"\nreplica_from_host = true\nschema = "lh"\n'
    config = load_collector(write(tmp_path, GOOD + more))
    assert config.name == "centre.pod-3"
    assert config.postgres == PostgresStore(
        "postgresql://leasehold@db.example/leasehold?sslmode=verify-full", "lh", password, 8
    )
    assert load_collector(write(tmp_path, GOOD)).postgres is None


def test_disk_is_kept_for_revocations(tmp_path):
    """By default, as configured, or none."""
    assert load_collector(write(tmp_path, GOOD)).disk_reserve_bytes == 32 << 20
    for mib in (0, 8, 64):
        assert load_collector(write(tmp_path, f"{GOOD}\n[store]\ndisk_reserve_mib = {mib}\n")).disk_reserve_bytes == (
            mib << 20
        )


@pytest.mark.parametrize(
    ("store", "said"),
    [
        ('engine = "mysql"', "engine"),
        ('schema = "x"', "settings of engine"),
        ("disk_reserve_mib = 7", "disk_reserve_mib must be"),
        ("disk_reserve_mib = -1", "disk_reserve_mib must be"),
        ('engine = "postgres"\nurl = "postgresql://a@127.0.0.1/d"\ndisk_reserve_mib = 64', "belongs to engine"),
        ('engine = "postgres"', "url must be like"),
        ('engine = "postgres"\nurl = "mysql://a@127.0.0.1/d"', "url must be like"),
        ('engine = "postgres"\nurl = "postgresql://a:hunter2@127.0.0.1/d"', "holds a password"),
        ('engine = "postgres"\nurl = "postgresql://a@127.0.0.1/d?password=hunter2"', "holds a password"),
        ('engine = "postgres"\nurl = "postgresql://a@db.example/d"', "sslmode=verify-full"),
        ('engine = "postgres"\nurl = "postgresql://a@db.example/d?sslmode=require"', "sslmode=verify-full"),
        ('engine = "postgres"\nurl = "postgresql://a@/d?host=db.example"', "sslmode=verify-full"),
        ('engine = "postgres"\nurl = "postgresql://a@127.0.0.1/d"\nschema = "a b"', "lower-case"),
        ('engine = "postgres"\nurl = "postgresql://a@127.0.0.1/d"\nconnections_max = 0', "connections_max"),
        ('engine = "postgres"\nurl = "postgresql://a@127.0.0.1/d"\npassword_file = "none"', "password"),
        (
            'engine = "postgres"\nurl = "postgresql://a@127.0.0.1/d"\nreplica_from_host = true',
            "replica_from_host makes the name",
        ),
    ],
)
def test_a_store_that_cannot_be_right_is_refused(tmp_path, monkeypatch, store, said):
    """Each with what to change; a password that was written there is not repeated."""
    monkeypatch.setattr("socket.gethostname", lambda: "a host")
    with pytest.raises(ConfigError, match=said) as refused:
        load_collector(write(tmp_path, f"{GOOD}\n[store]\n{store}\n"))
    assert "hunter2" not in str(refused.value)


FLEET = """
[[fleet_budgets]]
on = "label:team=search"
period = "month"
time_zone = "Europe/Berlin"
cost_micro_usd = 500000000
requests = 10
"""


def test_replicas_share_fleet_budgets(tmp_path):
    """A store in PostgreSQL and fleet budgets go together."""
    config = load_collector(write(tmp_path, GOOD + FLEET + SHARED))
    assert (config.postgres is not None, len(config.fleet_budgets)) == (True, 1)


def test_fleet_budgets_are_read_with_their_names(tmp_path):
    """What counts, over which span, and the caps by metric; the name is what operators use."""
    (budget,) = load_collector(write(tmp_path, GOOD + FLEET)).fleet_budgets

    assert budget.name == "fleet:label:team=search|month@Europe/Berlin"
    assert budget.metrics == (Metric.COST_MICRO_USD, Metric.REQUESTS)
    assert budget.budget.limit.caps[0] == 500000000
    assert budget.sidecar_percent_max == 100
    assert load_collector(write(tmp_path, GOOD)).fleet_budgets == ()
    (limited,) = load_collector(write(tmp_path, f"{GOOD}{FLEET}sidecar_percent_max = 40\n")).fleet_budgets
    assert limited.sidecar_percent_max == 40


def test_a_fleet_budget_may_roll(tmp_path):
    """Over so many seconds that always end now."""
    text = FLEET.replace('period = "month"\ntime_zone = "Europe/Berlin"', "rolling_seconds = 86400")
    (budget,) = load_collector(write(tmp_path, GOOD + text)).fleet_budgets
    assert (budget.name, budget.budget.limit.span) == ("fleet:label:team=search|rolling-86400s", Rolling(86_400))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("label:team=search", "label:team"), 'must be "everything"'),
        (("label:team=search", "subject:a"), 'must be "everything"'),
        (("label:team=search", "provider:nobody"), 'must be "everything"'),
        (("label:team=search", "everything:x"), 'must be "everything"'),
        (("month", "fortnight"), "fortnight"),
        (("month", "total"), "does not go with"),
        (("Europe/Berlin", "Europe/Bonn"), "not in the table of time zones"),
        (("cost_micro_usd = 500000000\nrequests = 10", ""), "caps nothing"),
        (("requests = 10", "requests = 0"), "a cap must be 1 to"),
        (("requests = 10", "requests = 10\nsidecar_percent_max = 0"), "sidecar_percent_max must be 1 to 100"),
        (("requests = 10", "requests = 10\nsidecar_percent_max = 101"), "sidecar_percent_max must be 1 to 100"),
        (("requests = 10", "concurrency = 10"), "concurrency"),
        (('period = "month"\ntime_zone = "Europe/Berlin"', "rolling_seconds = 60"), "rolling_seconds must be 3600 to"),
        (('period = "month"', "rolling_seconds = 86400"), "does not go with rolling_seconds"),
        (('time_zone = "Europe/Berlin"', "rolling_seconds = 86400"), "one of period and rolling_seconds"),
        (('period = "month"\ntime_zone = "Europe/Berlin"', ""), "one of period and rolling_seconds"),
        ((FLEET, FLEET + FLEET), "put all their caps into one"),
    ],
)
def test_a_wrong_fleet_budget_is_refused_by_name(tmp_path, change, said):
    """Each refusal names what is wrong, and nothing is limited by guesswork."""
    with pytest.raises(ConfigError) as caught:
        load_collector(write(tmp_path, (GOOD + FLEET).replace(*change, 1)))

    assert said in str(caught.value)
