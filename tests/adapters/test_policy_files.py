"""The policy file and its conditions: what is read, what is complained of, and how a new version comes into force."""

import asyncio
import os
from dataclasses import replace

import pytest
from tests.fakes.manual_clock import ManualClock

from leasehold_broker.adapters.policy_files import PolicyFiles, load_policy
from leasehold_broker.adapters.policy_toml import PolicyRefusedError, read_policy
from leasehold_broker.domain.amounts import NO_CAPS, UNLIMITED, Amounts
from leasehold_broker.domain.identity import Identity, Subject
from leasehold_broker.domain.keys import KeyRecord, KeyState
from leasehold_broker.domain.lease import Mode
from leasehold_broker.domain.limits import Budget, Level, WindowLimit
from leasehold_broker.domain.policy import LeaseRequest, decide, explain
from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.domain.scope import Scope
from leasehold_broker.domain.windows import Period, Rolling

GOOD = """
version = 1

[[grants]]
name = "research"
issuer = "https://issuer.example"
subjects = ["agent-*"]
environment = "production"
keys = ["anthropic-prod"]
ttl_seconds_max = 900
life_seconds_max = 3600
modes = ["brokered"]
leases_max = 5
delegation_depth_max = 2

  [grants.claims]
  team = ["search", "ads"]

  [[grants.scopes]]
  provider = "anthropic"
  models = ["claude-haiku-4-5", "claude-sonnet-*"]
  operations = ["messages"]
  tools = ["web_search_*"]
  max_output_tokens_per_request = 4096

  [grants.caps]
  cost_micro_usd = 5_000_000
  concurrency = 4

  [[grants.windows]]
  period = "day"
  cost_micro_usd = 20_000_000

  [grants.rate]
  requests_per_minute = 60
  output_tokens_per_minute = 100_000

[[budgets]]
on = "key:anthropic-prod"
period = "month"
cost_micro_usd = 900_000_000
"""
KEYS = (KeyRecord("anthropic-prod", "anthropic", "production", KeyState.ENABLED, 1, 0),)
IDENTITY = Identity(
    Subject("https://issuer.example", "agent-7", {"environment": "production", "team": "search"}),
    {"team": "search"},
    "",
    0,
)
REQUEST = LeaseRequest((Scope("anthropic", models=("claude-haiku-4-5",)),), NO_CAPS, 600, Mode.BROKERED)


def complaints(text):
    """What is complained of in this policy file."""
    with pytest.raises(PolicyRefusedError) as caught:
        read_policy(text.encode(), "p.toml", "v")
    return caught.value.complaints


def write(path, text, mode=0o644):
    """Replace a file in one step, as editors and Kubernetes do."""
    fresh = path.with_name(path.name + ".next")
    fresh.write_text(text)
    fresh.chmod(mode)
    fresh.rename(path)
    return path


def terms(request=REQUEST, identity=IDENTITY):
    """The terms that the good policy gives."""
    return decide(read_policy(GOOD.encode(), "p.toml", "v"), identity, request, KEYS)


def test_every_field_is_read():
    """The file says what the grant says."""
    policy = read_policy(GOOD.encode(), "p.toml", "v7")
    (grant,) = policy.grants
    assert (
        policy.version,
        grant.name,
        grant.subjects,
        grant.environment,
    ) == ("v7", "research", ("agent-*",), "production")
    assert (("anthropic-prod",), 900, 3600, frozenset({Mode.BROKERED}), 5, 2) == (
        grant.keys,
        grant.ttl_seconds_max,
        grant.life_seconds_max,
        grant.modes,
        grant.leases_max,
        grant.delegation_depth_max,
    )
    assert grant.claims == {"team": ("search", "ads")}
    scope = Scope("anthropic", "", ("claude-haiku-4-5", "claude-sonnet-*"), ("messages",), ("web_search_*",), 4096)
    assert (scope,) == grant.scopes
    assert Amounts(5_000_000, UNLIMITED, UNLIMITED, UNLIMITED, 4) == grant.caps
    assert (
        WindowLimit(Level.SUBJECT, Period.DAY, NO_CAPS._replace(cost_micro_usd=20_000_000)),
        WindowLimit(Level.SUBJECT, Rolling(60), NO_CAPS._replace(requests=60, output_tokens=100_000)),
    ) == grant.windows
    month = WindowLimit(Level.KEY, Period.MONTH, NO_CAPS._replace(cost_micro_usd=900_000_000))
    assert (Budget("anthropic-prod", month),) == policy.budgets


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("leases_max = 5", "lease_max = 5", "grants[0].lease_max: is not known here (did you mean 'leases_max'?)"),
        ('name = "research"', "", "grants[0].name: is missing; add it"),
        ('issuer = "https://issuer.example"', "issuer = 7", "grants[0].issuer: must be text of 1 to 128"),
        ('subjects = ["agent-*"]', "subjects = []", "grants[0].subjects: must be a list of texts with at least one"),
        ('["agent-*"]', '["a*b"]', "grants[0].subjects[0]: 'a*b': '*' may stand at the end only"),
        ('["agent-*"]', '["a", "a"]', "grants[0].subjects[1]: 'a' is listed twice; remove one"),
        ('keys = ["anthropic-prod"]', 'keys = ["*"]', "grants[0].keys[0]: '*': names of keys are exact"),
        ("ttl_seconds_max = 900", "ttl_seconds_max = 0", "grants[0].ttl_seconds_max: must be a whole number from 1"),
        ("ttl_seconds_max = 900", "ttl_seconds_max = -5", "grants[0].ttl_seconds_max: must be a whole number from 1"),
        ("ttl_seconds_max = 900", "ttl_seconds_max = 9000", "grants[0].life_seconds_max: must not be below ttl_sec"),
        ("= 900\n", "= true\n", "grants[0].ttl_seconds_max: must be a whole number from 1 to 2592000, was True"),
        ('["brokered"]', '["brokerd"]', "grants[0].modes[0]: must be one of brokered, minted, disclosed"),
        ('["brokered"]', '["minted"]', "grants[0].minted_seconds_max: belongs to mode"),
        ('["brokered"]', '["disclosed"]', "grants[0].disclosed_keys: belongs to mode"),
        (
            'modes = ["brokered"]',
            'modes = ["disclosed"]\ndisclosed_keys = ["unheard-of"]',
            "grants[0].disclosed_keys: 'unheard-of' is not among the grant's keys",
        ),
        (
            'modes = ["brokered"]',
            'modes = ["minted"]\nminted_seconds_max = 60',
            "grants[0].modes: calls with a minted or disclosed",
        ),
        ('["brokered"]', "[]", "grants[0].modes: must name at least one mode"),
        ('provider = "anthropic"', 'provider = "antropic"', "grants[0].scopes[0].provider: must be one of anthropic"),
        ('operations = ["messages"]', "operations = []", "grants[0].scopes[0].operations: is empty"),
        ("cost_micro_usd = 5_000_000", "cost_usd = 5", "grants[0].caps.cost_usd: is not known here (did you mean"),
        ("cost_micro_usd = 5_000_000", "cost_micro_usd = 0", "grants[0].caps.cost_micro_usd: must be a whole number"),
        ("= 5_000_000", "= 5.0", "grants[0].caps.cost_micro_usd: must be a whole number from 1 to 1000000000000000"),
        ("= 5_000_000", "= 1_000_000_000_000_001", "grants[0].caps.cost_micro_usd: must be a whole number from 1 to"),
        ('period = "day"', 'period = "days"', "grants[0].windows[0].period: must be one of day, hour, minute, month"),
        ("requests_per_minute = 60", "requests = 60", "grants[0].rate.requests: is not known here"),
        ("[[budgets]]\n", "[budgets]\n", "budgets: must be written as [[budgets]], was a table"),
        ("version = 1", "version = 2", "version: must be 1, was 2"),
        ("version = 1", "", "version: is missing; add version = 1"),
        ('["search", "ads"]', '"search"', "grants[0].claims.team: must be a list of texts with at least one"),
    ],
)
def test_complaints(old, new, expected):
    """Each mistake is named with file, path, what it was and what to do."""
    assert old in GOOD
    found = complaints(GOOD.replace(old, new, 1))
    assert any(text.startswith(f"p.toml: {expected}") for text in found), found


def test_all_complaints_at_once():
    """One run shows every mistake."""
    text = GOOD.replace("= 900\n", "= 0\n").replace('"anthropic"', '"x"').replace("leases_max", "leases_top")
    assert len(complaints(text)) == 3


@pytest.mark.parametrize("text", ["", "version = 1", "x = ", "version = 1\nversion = 1", "\ufffe"])
def test_files_that_are_no_policy(text):
    """Empty files, broken TOML and duplicate members are refused."""
    assert complaints(text)


def test_what_is_stated_twice_is_named():
    """A duplicate member is refused by its name, a duplicate table by its header, and no value is shown."""
    [member] = complaints(GOOD.replace("leases_max = 5", "leases_max = 5\nleases_max = 777"))
    [table] = complaints(GOOD.replace("[grants.caps]", "[grants.caps]\nrequests = 1\n[grants.caps]"))

    assert "`leases_max` in [[grants]] is stated twice" in member
    assert "777" not in member
    assert "[grants.caps] is stated twice" in table


def test_names_and_providers_used_twice():
    """Two grants of one name, and two scopes of one provider in a grant, are refused."""
    second = GOOD[GOOD.index("[[grants]]") : GOOD.index("[[budgets]]")]
    assert complaints(GOOD + second) == ("p.toml: grants[1].name: 'research' is used twice; names must differ",)
    twice = GOOD.replace("[grants.caps]", '[[grants.scopes]]\n  provider = "anthropic"\n\n  [grants.caps]')
    assert (complaints(twice)) == (
        "p.toml: grants[0].scopes: provider 'anthropic' has two scopes; a grant has one per provider",
    )


def test_explanation_agrees_with_the_decision():
    """The first grant with terms is the one that decides; each other says why not."""
    others = {
        "issuer": ('issuer = "https://issuer.example"', 'issuer = "https://other.example"'),
        "environment": ('environment = "production"', 'environment = "staging"'),
        "subject": ('["agent-*"]', '["bot-*"]'),
        "claim": ('["search", "ads"]', '["ads"]'),
        "ttl": ("= 900\n", "= 60\n"),
    }
    head, body, tail = "version = 1\n", GOOD[GOOD.index("[[grants]]") : GOOD.index("[[budgets]]")], ""
    for name, (old, new) in others.items():
        tail += body.replace('"research"', f'"{name}"').replace(old, new)
    policy = read_policy((head + tail + body).encode(), "p.toml", "v")
    verdicts = explain(policy, IDENTITY, REQUEST, KEYS)
    assert [name in verdict.why_not for name, verdict in zip(others, verdicts, strict=False)] == [True] * 5
    assert decide(policy, IDENTITY, REQUEST, KEYS) == next(verdict.terms for verdict in verdicts if verdict.terms)
    assert [grant.covers_identity(IDENTITY) for grant in policy.grants] == [
        grant.identity_mismatch(IDENTITY) is None for grant in policy.grants
    ]


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_file_that_others_may_write(tmp_path, mode):
    """A policy that others may write is refused, with the command that mends it."""
    path = write(tmp_path / "policy.toml", GOOD, mode)
    with pytest.raises(PolicyRefusedError, match="run chmod go-w on it"):
        load_policy(str(path))


def test_file_of_another_owner(tmp_path):
    """A policy that belongs to some other user is refused."""
    if os.geteuid() != 0:
        pytest.skip("needs root to give a file away")
    path = write(tmp_path / "policy.toml", GOOD)
    os.chown(path, 12345, -1)
    with pytest.raises(PolicyRefusedError, match="belongs to uid 12345"):
        load_policy(str(path))


def test_no_policy_does_not_start(tmp_path):
    """Without a usable first version there is no policy source."""
    for path in (tmp_path / "missing.toml", tmp_path):
        with pytest.raises(PolicyRefusedError):
            PolicyFiles(str(path), "", ManualClock())


async def test_new_version_comes_into_force(tmp_path):
    """A replaced file is found by the watch; a bad one leaves the old in force, and says so once."""
    path = write(tmp_path / "policy.toml", GOOD)
    loaded, rejected = asyncio.Queue(), asyncio.Queue()
    source = PolicyFiles(str(path), "", ManualClock(), loaded.put_nowait, rejected.put_nowait)
    first = source.current()
    watching = asyncio.create_task(source.watch())
    write(path, GOOD.replace("leases_max = 5", "leases_max = 6"))
    source.reload()
    assert (await loaded.get()).grants[0].leases_max == 6
    assert first.version != source.current().version
    write(path, "nonsense")
    source.reload()
    assert "is not valid TOML" in (await rejected.get())[0]
    assert source.current().grants[0].leases_max == 6
    await source.look()
    assert rejected.empty()
    path.unlink()
    await source.look()
    assert "cannot be read" in (await rejected.get())[0]
    source.reload()
    assert "cannot be read" in (await rejected.get())[0]
    assert source.current().grants[0].leases_max == 6
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


async def test_folder_swapped_by_symlink(tmp_path):
    """A change by symlink swap, as Kubernetes makes it, is found."""
    for name, count in (("one", 5), ("two", 6)):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "policy.toml", GOOD.replace("leases_max = 5", f"leases_max = {count}"))
    (tmp_path / "data").symlink_to("one")
    (tmp_path / "policy.toml").symlink_to("data/policy.toml")
    source = PolicyFiles(str(tmp_path / "policy.toml"), "", ManualClock())
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").rename(tmp_path / "data")
    await source.look()
    assert source.current().grants[0].leases_max == 6


async def test_unchanged_file_can_be_reloaded(tmp_path):
    """SIGHUP loads the file whether it changed or not."""
    path = write(tmp_path / "policy.toml", GOOD)
    loaded = []
    source = PolicyFiles(str(path), "", ManualClock(), loaded.append)
    await source.look()
    assert loaded == []
    source.reload()
    await source.look()
    assert [source.current()] == loaded


SMALL_ONLY = """@id("only-small")
forbid (principal, action == Action::"acquire", resource)
unless { ["claude-haiku-4-5"].containsAll(context.models) };
"""
NIGHT = """@id("no-nights")
forbid (principal, action, resource) when { context.hour < 6 };
@id("search-only")
forbid (principal, action, resource) unless { principal.hasTag("team") && principal.getTag("team") == "search" };
@id("dear")
forbid (principal, action, resource == Key::"anthropic-prod") when { context.cost_micro_usd > 5000000 };
"""


def conditional(tmp_path, *texts, clock=None):
    """A policy source with these condition files."""
    folder = tmp_path / "cedar"
    folder.mkdir(exist_ok=True)
    for number, text in enumerate(texts):
        write(folder / f"{number}.cedar", text)
    return PolicyFiles(str(write(tmp_path / "policy.toml", GOOD)), str(folder), clock or ManualClock())


def test_conditions_forbid_by_name(tmp_path):
    """Conditions take away from what a grant gives, each by its name; without any that applies the terms stand."""
    clock = ManualClock(wall_ms=86_400_000 * 20_000 + 12 * 3_600_000)
    source = conditional(tmp_path, SMALL_ONLY, NIGHT, clock=clock)
    assert source.forbidden_by(IDENTITY, REQUEST, terms()) == ()
    anything = replace(REQUEST, scopes=(Scope("anthropic", models=("claude-sonnet-4",)),))
    assert source.forbidden_by(IDENTITY, anything, terms(anything)) == ("only-small",)
    unnamed = replace(terms(), scopes=(Scope("anthropic", "anthropic-prod"),), caps=NO_CAPS)
    assert source.forbidden_by(IDENTITY, REQUEST, unnamed) == ("dear", "only-small")
    other = replace(IDENTITY, subject=replace(IDENTITY.subject, labels={"environment": "production"}))
    assert source.forbidden_by(other, REQUEST, terms()) == ("search-only",)
    clock.wall_ms -= 8 * 3_600_000
    assert source.forbidden_by(IDENTITY, REQUEST, terms()) == ("no-nights",)


def test_any_scope_of_the_lease_can_forbid(tmp_path):
    """Each provider's scope is asked about."""
    source = conditional(tmp_path, SMALL_ONLY)
    both = replace(terms(), scopes=(*terms().scopes, Scope("openai", "openai-prod", ("gpt-5.2",))))
    assert source.forbidden_by(IDENTITY, REQUEST, both) == ("only-small",)


def test_condition_that_cannot_be_evaluated(tmp_path):
    """Cedar would skip a forbid that overflows and allow: here it forbids, by the name "error"."""
    source = conditional(
        tmp_path,
        '@id("overflow") forbid (principal, action, resource) when { context.cost_micro_usd * 4 > 7 };',
    )
    uncapped = replace(terms(), caps=NO_CAPS)
    assert source.forbidden_by(IDENTITY, REQUEST, uncapped) == ("error",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('@id("x") forbid (principal, action, resource) when { context.modles == [] };', "modles"),
        ("forbid (principal, action, resource);", "has no name"),
        ('@id("error") forbid (principal, action, resource);', "has no name"),
        ('@id("x") permit (principal, action, resource);', "conditions only forbid"),
        ('@id("x") forbid (principal == ?principal, action, resource);', "has a template"),
        ('@id("only-small") forbid (principal, action, resource);', "is taken"),
        ("forbid (principal", "is not valid Cedar"),
    ],
)
def test_conditions_that_are_refused(tmp_path, text, expected):
    """Misspelt, unnamed, permitting and broken conditions do not load; the complaint names the file."""
    with pytest.raises(PolicyRefusedError) as caught:
        conditional(tmp_path, SMALL_ONLY, text)
    assert any("1.cedar: " in line and expected in line for line in caught.value.complaints), caught.value.complaints


async def test_conditions_reload_with_the_policy(tmp_path):
    """A condition that is added comes into force and changes the policy's version; a bad one keeps the old set."""
    source = conditional(tmp_path, SMALL_ONLY)
    version = source.current().version
    write(tmp_path / "cedar" / "9.cedar", '@id("all") forbid (principal, action, resource);')
    await source.look()
    assert source.forbidden_by(IDENTITY, REQUEST, terms()) == ("all",)
    assert version != source.current().version
    write(tmp_path / "cedar" / "9.cedar", "broken")
    await source.look()
    assert source.forbidden_by(IDENTITY, REQUEST, terms()) == ("all",)


def test_denials_of_the_good_policy():
    """Wider scope, longer life, more money and other modes than granted are refused."""
    for request in (
        replace(REQUEST, scopes=(Scope("openai"),)),
        replace(REQUEST, scopes=(Scope("anthropic", models=("claude-opus-5",)),)),
        replace(REQUEST, ttl_seconds=901),
        replace(REQUEST, caps=NO_CAPS._replace(cost_micro_usd=5_000_001)),
        replace(REQUEST, mode=Mode.DISCLOSED),
    ):
        with pytest.raises(Refusal):
            terms(request)


@pytest.mark.parametrize("wrong", ["[]", "[1, 1]", "[-1]", '["root"]', "[true]", "7", "[4294967295]"])
def test_uids_are_numbers_of_users(wrong):
    """An empty list would mean anybody; a repeated or impossible uid is a mistake: each is complained of."""
    text = GOOD.replace("ttl_seconds_max", f"peer_uids = {wrong}\nttl_seconds_max", 1)
    with pytest.raises(PolicyRefusedError) as caught:
        read_policy(text.encode(), "p.toml", "v")
    assert "peer_uids: must list different whole numbers" in str(caught.value)


@pytest.mark.parametrize(("uid", "allowed"), [(None, False), (1000, True), (0, False)])
def test_a_grant_for_users_is_decided_and_explained_by_the_uid(uid, allowed):
    """The uid decides as the rest of the grant does, and the explanation says so."""
    text = GOOD.replace("ttl_seconds_max", "peer_uids = [1000]\nttl_seconds_max", 1)
    policy = read_policy(text.encode(), "p.toml", "v")
    first = explain(policy, IDENTITY, REQUEST, KEYS, uid)[0]
    assert (first.terms is not None) is allowed
    assert allowed or "it names the local users" in first.why_not
