"""deploy/keys/rotations.toml: accepted as part of a collector's file, with every setting of its tables named."""

import re
import shutil
from pathlib import Path

import pytest
from tests.deploy.test_config_examples import EXAMPLES, settings_of

from leasehold_broker.adapters.keys_local import LocalKeys
from leasehold_broker.adapters.master_keys import FileMasterKey
from leasehold_broker.adapters.system_clock import SystemClock
from leasehold_broker.config import ConfigError, load_collector
from leasehold_broker.config.pipelines import Pipeline
from leasehold_broker.config.rotations import Closed, Limits, RotationTable
from leasehold_broker.wiring.rotations import check_rotations

ROTATIONS = EXAMPLES.parent / "keys" / "rotations.toml"
BY_AGE = """every_days = 30.0                      # so long after the last rotation, or after the key was stored
cron = \"\""""
CLAIMS = 'claims = { repository = "acme/agents", ref = "refs/heads/main", environment = "production" }'


FIRST = '[[rotations]]\nkey = "openai-prod"'
AT = 'at = { minter = "openai", admin_key = "openai-admin", project = "proj_..." }'
ROOT = """at.minter = "vault-root"
at.path = "database/rotate-root/main"
at.login = { method = "token", token_file = "t" }"""
ELSEWHERE = """[[keys.stores]]
kind = "gcp"
environment = "prod"
path = "leasehold"
project = "p"
keys = [{ name = "openai-prod", provider = "openai", secret = "openai", field = "key" }]
[[keys.engines]]
environment = "prod"
address = "https://vault"
token_role = "sidecar"
login = { method = "token", token_file = "t" }
keys = [{ name = "orders-db", provider = "own-orders-db", path = "other/creds/orders" }]
[[rotations]]"""


@pytest.fixture
def load(tmp_path):
    """Loads the collector's example with the rotations' after it, changed as a test says."""
    master = FileMasterKey.create(str(tmp_path / "master.key"))
    LocalKeys.create(str(tmp_path / "keys.json"), master, SystemClock())
    shutil.copyfile(EXAMPLES / "collector.toml", tmp_path / "collector.toml")
    file = tmp_path / "collector.toml"
    file.chmod(0o600)
    plain = file.read_text()

    def load(old="", new=""):
        text = ROTATIONS.read_text()
        assert old in text
        file.write_text(f"{plain}\n{text.replace(old, new, 1)}")
        config = load_collector(Path(file))
        check_rotations(config.rotations)
        return config

    return load


def test_it_is_accepted(load):
    """As it stands: one key by age with two blackouts, and one pipeline."""
    config = load()
    (rotation,) = config.rotations
    assert (rotation.key, rotation.schedule.every_days, len(rotation.schedule.blackouts)) == ("openai-prod", 30.0, 2)
    assert (rotation.limits.drain, rotation.limits.by_hand) == (3600.0, 7 * 86400.0)
    (pipeline,) = config.pipelines
    assert dict(pipeline.claims)["repository"] == "acme/agents"


@pytest.mark.parametrize("claim", ["repository_id", "sub", "workflow_ref"])
def test_any_claim_that_says_whose_will_do(load, claim):
    """Beside whatever else is asked."""
    (pipeline,) = load(CLAIMS, f'claims = {{ {claim} = "x", ref = "refs/heads/main" }}').pipelines
    assert pipeline.claims == (("ref", "refs/heads/main"), (claim, "x"))


def test_a_key_in_any_store_elsewhere_may_be_rotated(load):
    """Where the secret is the key itself."""
    config = load(FIRST, f'{ELSEWHERE}\nkey = "openai-prod"'.replace(', field = "key"', ""))
    assert [rotation.key for rotation in config.rotations] == ["openai-prod"]


def test_every_setting_is_named():
    """What can be configured is explained, apart from the minters, which have a page of their own."""
    text = ROTATIONS.read_text()
    names = {name for shape in (Closed, Limits, Pipeline) for name in settings_of(shape)}
    names |= set(RotationTable.__struct_fields__) - {"limits"}
    assert not {name for name in names if not re.search(rf"(^|[\s{{]){name} =", text, re.MULTILINE)}


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('cron = ""', 'cron = "0 3 * * *"', "every_days or cron, not both"),
        ('timezone = "Europe/Berlin"', 'timezone = "Mars/Base"', "timezone 'Mars/Base' is not known"),
        ("jitter_seconds = 3600", "jitter_seconds = 90000", "jitter_seconds must be 0 to 86400"),
        ('start = "16:00"', 'start = "4pm"', "'4pm' is no time like 09:30"),
        ('days = ["fri"]', 'days = ["friday"]', "days are of mon, tue"),
        ("verify_seconds = 900.0", "verify_seconds = -1.0", "limits must not be negative"),
        ('project = "proj_..."', 'project = ""', "project is empty"),
        ('keys = ["openai-prod"]', 'keys = ["other"]', "names key 'other', which no"),
        (CLAIMS, "claims = {}", "needs claims"),
        (CLAIMS, 'claims = { environment = "production" }', "the token of anybody's job"),
        (
            CLAIMS,
            'claims = { job_workflow_ref = "acme/shared/.github/workflows/r.yml@refs/heads/main" }',
            "anybody's job",
        ),
        (CLAIMS, "claims = { repository = 7 }", "Expected text, got a whole number"),
        ('master_key_file = "master.key"', "", "asks for no passphrase"),
        (AT, ROOT, "rotates what a key of [[keys.engines]] stands on"),
        (FIRST, f'{ELSEWHERE}\nkey = "openai-prod"', "its secret is a JSON object"),
        (
            FIRST,
            f'{ELSEWHERE}\n{ROOT}\nkey = "orders-db"\n{FIRST}',
            "path is of the engine at database, the key's (other/creds/orders) is not",
        ),
        (
            FIRST,
            f'{ELSEWHERE}\n{AT}\nkey = "orders-db"\n{FIRST}',
            "an engine makes it anew for each lease",
        ),
        (BY_AGE, 'cron = "61 3 * * *"', "cron '61 3 * * *'"),
        (BY_AGE, 'cron = "0 3 30 2 *"', "Bad day-of-month"),
    ],
)
def test_what_is_wrong_is_told(load, old, new, why):
    """Each mistake is a sentence that names it; nothing starts."""
    with pytest.raises(ConfigError, match=re.escape(why)):
        load(old, new)
