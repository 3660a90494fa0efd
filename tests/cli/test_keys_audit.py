"""leasehold-broker keys audit: each finding alone, and the command as CI runs it."""

import json
import shutil
import subprocess
from dataclasses import replace

import pytest
from tests.config.test_collector_config import GOOD as COLLECTOR
from tests.config.test_keys_config import LOCAL
from tests.config.test_sidecar_config import GOOD
from tests.fakes.core import GRANT, KEY
from tests.fakes.planted import MARKER, planted

from leasehold_broker.adapters.key_marks_file import read_marks, write_marks
from leasehold_broker.adapters.keys_local import LocalKeys
from leasehold_broker.adapters.master_keys import FileMasterKey
from leasehold_broker.adapters.system_clock import SystemClock
from leasehold_broker.demo.stage import broker
from leasehold_broker.domain.amounts import NO_CAPS, UNLIMITED, Amounts
from leasehold_broker.domain.key_audit import DAY_MS, AuditLimits, FindingKind, Rotated, findings
from leasehold_broker.domain.keys import KeyKind, KeyMark, KeyMarkKind
from leasehold_broker.domain.lease import Mode
from leasehold_broker.domain.limits import Budget, Level, WindowLimit
from leasehold_broker.domain.policy import Policy
from leasehold_broker.domain.scope import Scope
from leasehold_broker.domain.secret import Secret
from leasehold_broker.domain.windows import Period

LIMITS = AuditLimits(age=90, due=14, unused=30)
NOW = 1_000 * DAY_MS
FRESH = replace(KEY, created_wall_ms=NOW - 10 * DAY_MS)
DOLLAR = Amounts(1_000_000, UNLIMITED, UNLIMITED, UNLIMITED, UNLIMITED)
NARROW = replace(GRANT, scopes=(Scope("anthropic", models=("claude-small",)),), keys=(KEY.name,), caps=DOLLAR)
USED = KeyMark(KEY.name, 1, KeyMarkKind.USED, NOW - DAY_MS)


def found(*records, grants=(NARROW,), marks=(USED,), digests=None, budgets=(), rotated=None):
    """Kinds of findings, sorted."""
    given = findings(records or (FRESH,), Policy("v", grants, budgets), marks, digests or {}, LIMITS, NOW, rotated)
    return sorted(finding.kind for finding in given)


def aged(days):
    """The key, stored so many days ago."""
    return replace(KEY, created_wall_ms=NOW - days * DAY_MS)


def test_a_good_key_has_no_finding():
    """Fresh, used, narrowly granted, alone with its secret."""
    assert found() == []


@pytest.mark.parametrize(
    ("days", "kinds"), [(76, []), (77, ["due"]), (90, ["due"]), (91, ["old"]), (0, []), (-1, []), (-2, ["old"])]
)
def test_age(days, kinds):
    """Due in the last two weeks before the limit, old after it, and where its store's clock was ahead by days."""
    assert found(aged(days)) == kinds


@pytest.mark.parametrize(
    ("age", "due_in", "kinds"),
    [
        (80, 5, []),  # its schedule sees to it in time
        (80, 0, []),
        (80, -1, ["due"]),  # it should have
        (10, 81, ["due"]),  # it will not before the limit
        (10, 80, []),
        (80, None, ["due"]),  # it has none
        (91, 5, ["old"]),
    ],
)
def test_a_key_that_is_rotated_is_due_by_its_schedule(age, due_in, kinds):
    """In time: nothing to find. Overdue, or later than the limit: due; whatever is planned, old is old."""
    due_ms = None if due_in is None else NOW + due_in * DAY_MS
    assert found(aged(age), rotated={KEY.name: Rotated(due_ms)}) == kinds


def test_a_key_that_makes_keys_is_granted_to_nobody():
    """That no grant names it, and no call uses it, is right; that one does is a finding."""
    rotated = {"openai-prod": Rotated(None, admin_key=KEY.name)}
    assert found(aged(31), grants=(), marks=(), rotated=rotated) == []
    assert found(grants=(NARROW,), rotated=rotated) == ["over_scoped"]
    assert found(aged(91), grants=(), rotated=rotated) == ["old"]


def test_a_federated_key_does_not_age():
    """It holds no secret."""
    assert found(replace(aged(900), kind=KeyKind.FEDERATED)) == []


def test_a_key_that_is_handed_out_wants_a_rotation():
    """It is too wide in any case; that nothing replaces it afterwards is said."""
    grants = (replace(NARROW, disclosed_keys=(KEY.name,)),)

    def why(rotated):
        (finding,) = findings((FRESH,), Policy("v", grants, ()), (USED,), {}, LIMITS, NOW, rotated)
        return finding.why

    assert why({KEY.name: Rotated(None)}).endswith("gives the key itself")
    assert why({}).endswith("gives the key itself, and no rotation is known to replace it")


def test_unused():
    """No use for 31 days, never since it was stored, or granted by nobody; unknown marks say nothing."""
    assert found(marks=(replace(USED, wall_ms=NOW - 31 * DAY_MS),)) == ["unused"]
    assert found(aged(31), marks=()) == ["unused"]
    assert found(aged(29), marks=()) == []
    assert found(aged(31), marks=None) == []
    assert found(grants=()) == ["unused"]
    assert found(grants=(replace(NARROW, environment="staging"),)) == ["unused"]


@pytest.mark.parametrize(
    "wider",
    [
        {"scopes": (Scope("anthropic"),)},
        {"scopes": (Scope("anthropic", models=("*",)),)},
        {"subjects": ("*",)},
        {"disclosed_keys": (KEY.name,)},
    ],
)
def test_over_scoped(wider):
    """Any model, any subject, or the key itself."""
    assert found(grants=(replace(NARROW, **wider),)) == ["over_scoped"]


def test_money_without_a_cap():
    """A cap of the lease, a window of the grant, or a budget that covers the key is one; a warning is none."""
    free = replace(NARROW, caps=NO_CAPS)
    daily = WindowLimit(Level.SUBJECT, Period.DAY, DOLLAR)
    assert found(grants=(free,)) == ["over_scoped"]
    assert found(grants=(replace(free, windows=(daily,)),)) == []
    assert found(grants=(replace(free, windows=(replace(daily, hard=False),)),)) == ["over_scoped"]
    assert found(grants=(replace(free, windows=(replace(daily, caps=NO_CAPS),)),)) == ["over_scoped"]
    assert found(grants=(replace(free, modes=frozenset({Mode.MINTED})),)) == []
    for value, level in ((KEY.name, Level.KEY), ("anthropic", Level.PROVIDER), ("prod", Level.ENVIRONMENT)):
        assert found(grants=(free,), budgets=(Budget(value, replace(daily, level=level)),)) == []
        assert found(grants=(free,), budgets=(Budget("another", replace(daily, level=level)),)) == ["over_scoped"]


def test_shared():
    """The same secret in two environments is a finding of both, and says which; different ones are not."""
    other = replace(FRESH, name="other", environment="staging")
    grants = (NARROW, replace(NARROW, keys=("other",), environment="staging"))
    marks = (USED, replace(USED, key="other"))
    same = findings((FRESH, other), Policy("v", grants), marks, {KEY.name: b"d", "other": b"d"}, LIMITS, NOW)
    assert [(each.kind, each.key) for each in same] == [(FindingKind.SHARED, KEY.name), (FindingKind.SHARED, "other")]
    assert "of environment 'staging', not 'prod'" in same[0].why
    assert found(FRESH, other, grants=grants, marks=marks, digests={KEY.name: b"d", "other": b"e"}) == []


def test_exposed_and_refused():
    """Marks of the current version are findings; those of an older one, and of a key that is back, are not."""
    exposed = KeyMark(KEY.name, 1, KeyMarkKind.EXPOSED, NOW, "leases/1")
    refused = KeyMark(KEY.name, 1, KeyMarkKind.REFUSED, NOW)
    assert found(marks=(USED, exposed)) == ["exposed"]
    assert found(marks=(USED, refused)) == ["refused"]
    spent = replace(refused, kind=KeyMarkKind.EXHAUSTED)
    assert found(marks=(USED, spent)) == ["exhausted"]
    assert found(marks=(USED, spent, replace(spent, wall_ms=NOW + 1, lease="back"))) == []
    assert found(marks=(USED, replace(refused, wall_ms=NOW + 1, lease="back"), refused)) == []
    assert found(replace(FRESH, version=2), marks=(USED, exposed, refused)) == []


POLICY = """version = 1
[[grants]]
name = "agents"
issuer = "https://issuer.example"
subjects = ["agents/*"]
environment = "prod"
keys = ["a", "b"]
ttl_seconds_max = 60
life_seconds_max = 60
caps = { cost_micro_usd = 5000000 }
[[grants.scopes]]
provider = "openai"
models = ["gpt-6-luna"]
"""


@pytest.fixture
def folder(tmp_path):
    """A sidecar's files, with two keys of its local store."""
    folder = tmp_path / "private"
    folder.mkdir(mode=0o700)
    master = FileMasterKey.create(str(folder / "master.key"))
    store = LocalKeys.create(str(folder / "keys.json"), master, SystemClock())
    store.add("a", "openai", "prod", Secret(planted("audit-1").encode()))
    store.add("b", "openai", "prod", Secret(planted("audit-2").encode()))
    for name, text in (("policy.toml", POLICY), ("jwks.json", "{}"), ("sidecar.toml", GOOD)):
        (folder / name).touch(mode=0o600)
        (folder / name).write_text(text)
    (folder / "state").mkdir(mode=0o700)
    return folder


def audit(folder, *more):
    """Exit code and output of the command, as CI runs it."""
    arguments = broker("keys", "audit", "--config", str(folder / "sidecar.toml"), *more)
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)
    assert MARKER not in done.stdout + done.stderr
    return done.returncode, done.stdout, done.stderr


def test_the_command_in_ci(folder):
    """Nothing found: 0. An exposure and a shared secret: 3, and what was found as JSON. A wrong file: 1."""
    write_marks(folder / "state", [])
    assert audit(folder) == (0, "nothing found\n", "")
    write_marks(folder / "state", [KeyMark("a", 1, KeyMarkKind.EXPOSED, 1, "leases/1")])
    store = LocalKeys(str(folder / "keys.json"), FileMasterKey(str(folder / "master.key")), SystemClock())
    store.add("b", "openai", "prod", Secret(planted("audit-1").encode()), replacing=True)
    code, out, _ = audit(folder, "--json")
    assert code == 3
    assert [(each["finding"], each["key"]) for each in json.loads(out)] == [
        ("shared", "a"),
        ("exposed", "a"),
        ("shared", "b"),
    ]
    (folder / "state" / "key-marks.json").unlink()
    code, out, said = audit(folder)
    assert (code, "exposed" in out) == (3, False)
    assert "uses and exposures are not known" in said
    (folder / "policy.toml").write_text("version = 9\n")
    assert audit(folder)[0] == 1


def test_the_command_compares_with_files_of_other_environments(folder):
    """A secret of prod that staging has in a file of its own, and a store there that cannot be read, are findings."""
    write_marks(folder / "state", [])
    master = FileMasterKey(str(folder / "master.key"))
    staging = LocalKeys.create(str(folder / "staging.json"), master, SystemClock())
    for name, environment, number in (("x", "staging", 1), ("y", "prod", 2), ("z", "staging", 3)):
        staging.add(name, "openai", environment, Secret(planted(f"audit-{number}").encode()))
    other = (folder / "sidecar.toml").read_text().replace("keys.json", "staging.json")
    (folder / "staging.toml").touch(mode=0o600)
    (folder / "staging.toml").write_text(other)
    assert audit(folder)[0] == 0
    code, out, _ = audit(folder, "--json", "--beside", str(folder / "staging.toml"))
    assert code == 3
    (finding,) = json.loads(out)
    assert (finding["finding"], finding["key"]) == ("shared", "a")
    assert finding["why"].endswith(f"'x' of environment 'staging' in {folder / 'staging.toml'}, not 'prod'")
    gone = """[keys]
[[keys.stores]]
kind = "vault"
environment = "staging"
path = "p"
address = "http://127.0.0.1:1"
login = { method = "token", token_file = "none" }
keys = [{ name = "gone", provider = "openai", secret = "s" }]
"""
    (folder / "staging.toml").write_text(other.replace(LOCAL.replace("keys.json", "staging.json"), gone))
    code, out, _ = audit(folder, "--json", "--beside", str(folder / "staging.toml"))
    assert [(each["finding"], each["key"]) for each in json.loads(out)] == [("unreadable", "gone")]
    assert "is not compared" in out


ROTATED = """
[[rotations]]
key = "a"
every_days = 200
at = { minter = "openai", admin_key = "b", project = "proj_1" }
"""


@pytest.mark.parametrize("where", ["sidecar", "collector"])
def test_the_command_knows_rotations(folder, where):
    """Of a sidecar alone, and of the collector's file: too late a schedule, and an admin key that is granted."""
    write_marks(folder / "state", [])
    more = []
    if where == "sidecar":
        text = (folder / "sidecar.toml").read_text()
        (folder / "sidecar.toml").write_text(text + ROTATED)
    else:
        shutil.copyfile(folder / "keys.json", folder / "central.json")
        (folder / "central.json").chmod(0o600)
        (folder / "collector.toml").touch(mode=0o600)
        keys = '[keys]\nfile = "central.json"\nmaster_key_file = "master.key"\n'
        (folder / "collector.toml").write_text(COLLECTOR + keys + ROTATED)
        more = ["--collector", str(folder / "collector.toml")]
    code, out, said = audit(folder, "--json", *more)
    assert code == 3, said
    assert [(each["finding"], each["key"]) for each in json.loads(out)] == [("due", "a"), ("over_scoped", "b")]


def test_the_copy_of_the_marks(tmp_path):
    """What is written is read again; none, a damaged one and one that is open to others are not believed."""
    tmp_path.chmod(0o700)
    mark = KeyMark("a", 1, KeyMarkKind.USED, 5)
    assert read_marks(tmp_path) is None
    write_marks(tmp_path, [mark])
    assert read_marks(tmp_path) == [mark]
    (tmp_path / "key-marks.json").chmod(0o644)
    assert read_marks(tmp_path) is None
    (tmp_path / "key-marks.json").chmod(0o600)
    (tmp_path / "key-marks.json").write_text("[{]")
    assert read_marks(tmp_path) is None
