"""The budgets of the policy file: what is read from them, and what is complained of."""

import pytest
from tests.adapters.test_policy_files import GOOD, complaints

from leasehold_broker.adapters.policy_toml import read_policy
from leasehold_broker.domain.amounts import NO_CAPS
from leasehold_broker.domain.limits import Budget, Level, Raise, WindowLimit
from leasehold_broker.domain.windows import Period, Rolling

BUDGETS = """
[[budgets]]
on = "label:team=search"
period = "quarter"
time_zone = "Europe/Berlin"
cost_micro_usd = 100
soft_percent = 50
limit = "soft"

  [[budgets.raise]]
  from = 2026-12-01T00:00:00+01:00
  until = 2026-12-02T00:00:00+01:00
  cost_micro_usd = 200

[[budgets]]
on = "everything"
rolling_seconds = 3600
requests = 7
"""


def test_every_field_of_a_budget_is_read():
    """Target, span, zone, caps, warning, softness and raises are what the file says."""
    policy = read_policy((GOOD + BUDGETS).encode(), "p.toml", "v")
    _, quarter, rolling = policy.budgets
    limit = quarter.limit
    assert (
        quarter.on,
        limit.name,
        limit.soft_percent,
        limit.hard,
    ) == ("label:team=search", "label:team/quarter@Europe/Berlin", 50, False)
    assert str(limit.zone) == "Europe/Berlin"
    raised = Raise(1_796_079_600_000, 1_796_166_000_000, NO_CAPS._replace(cost_micro_usd=200))
    assert (raised,) == limit.raises
    assert Budget("", WindowLimit(Level.EVERYTHING, Rolling(3600), NO_CAPS._replace(requests=7))) == rolling


def test_what_a_grant_does_with_shortage_and_warnings_is_read():
    """Defaults: lower, warn at 80; a window may be counted by a label."""
    (grant,) = read_policy(GOOD.encode(), "p.toml", "v").grants
    assert (grant.lower_output, grant.soft_percent) == (True, 80)
    text = GOOD.replace("leases_max = 5", 'leases_max = 5\non_shortage = "refuse"\nsoft_percent = 0')
    text = text.replace('period = "day"', 'per = "label:team"\nperiod = "total"\nconcurrency = 3')
    (grant,) = read_policy(text.encode(), "p.toml", "v").grants
    assert (grant.lower_output, grant.soft_percent) == (False, 0)
    assert (
        grant.windows[0].level,
        grant.windows[0].label,
        grant.windows[0].span,
    ) == (Level.LABEL, "team", Period.TOTAL)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('"label:team=search"', '"team:search"', 'budgets[1].on: must be "everything", or "key:"'),
        ('"label:team=search"', '"label:team"', 'budgets[1].on: must be "everything", or "key:"'),
        ('"label:team=search"', '"label:environment=x"', 'budgets[1].on: is the environment; write "environment:x"'),
        ('"label:team=search"', '"provider:antropic"', "budgets[1].on: names no provider: use one of anthropic, azure"),
        ('"label:team=search"', '"everything:x"', 'budgets[1].on: must be "everything"'),
        ('on = "everything"', "", "budgets[2].on: is missing; add it"),
        ('"Europe/Berlin"', '"Europe/Bärlin"', "budgets[1].time_zone: 'Europe/Bärlin' is not in the table of time zo"),
        ('"Europe/Berlin"', '"../../etc/passwd"', "budgets[1].time_zone: '../../etc/passwd' is not in the table"),
        ('period = "quarter"', 'period = "total"', "budgets[1].time_zone: does not go with period"),
        ('period = "quarter"', "rolling_seconds = 60", "budgets[1].time_zone: does not go with rolling_seconds"),
        ('period = "quarter"', "", "budgets[1]: has no span; add a period or rolling_seconds"),
        (
            "rolling_seconds = 3600",
            "rolling_seconds = 59",
            "budgets[2].rolling_seconds: must be a whole number from 60",
        ),
        ("requests = 7", "concurrency = 7", "budgets[2].concurrency: is how many calls are open at once"),
        ("requests = 7", "", "budgets[2]: caps nothing; name at least one of"),
        ("soft_percent = 50", "soft_percent = 101", "budgets[1].soft_percent: must be a whole number from 0 to 100"),
        ('limit = "soft"', 'limit = "none"', "budgets[1].limit: must be one of hard, soft"),
        ("cost_micro_usd = 200", "cost_micro_usd = 100", "budgets[1].raise[0].cost_micro_usd: 100 does not raise it"),
        ("cost_micro_usd = 200", "requests = 2", "budgets[1].raise[0].requests: 2 does not raise it, which has no cap"),
        ("from = 2026-12-01T00:00:00+01:00", "from = 2026-12-01", "budgets[1].raise[0].from: must be a time with its"),
        (
            "until = 2026-12-02T00:00:00+01:00",
            "until = 2026-12-01T00:00:00+01:00",
            "budgets[1].raise[0].until: must be",
        ),
        (
            'on = "everything"\nrolling_seconds = 3600',
            'on = "key:anthropic-prod"\nperiod = "month"',
            "budgets[2]: 'key:an",
        ),
    ],
)
def test_complaints_about_budgets(old, new, expected):
    """Each mistake is named with file, path, what it was and what to do."""
    assert old in BUDGETS
    found = complaints(GOOD + BUDGETS.replace(old, new, 1))
    assert any(text.startswith(f"p.toml: {expected}") for text in found), found


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('period = "day"', 'per = "label:"\nperiod = "day"', 'grants[0].windows[0].per: must be "subject", or "label:'),
        ('period = "day"', 'per = "key"\nperiod = "day"', 'grants[0].windows[0].per: must be "subject", or "label:'),
        (
            "  [grants.rate]",
            '  [[grants.windows]]\n  period = "day"\n  requests = 1\n  [grants.rate]',
            "grants[0].windows[1]",
        ),
        ('period = "day"', "rolling_seconds = 60", "grants[0].rate: and a window of 60 rolling seconds"),
        ("leases_max = 5", 'on_shortage = "panic"', "grants[0].on_shortage: must be one of lower, refuse"),
    ],
)
def test_complaints_about_windows_of_a_grant(old, new, expected):
    """Two windows over one span, a level that a grant does not have, a shortage that nobody knows."""
    found = complaints(GOOD.replace(old, new, 1))
    assert any(text.startswith(f"p.toml: {expected}") for text in found), found
