"""The annotated files of deploy/config load with the real loaders, and name every setting there is."""

import inspect
import re
import shutil
from pathlib import Path

import msgspec
import pytest

from leasehold_broker.adapters import policy_budgets, policy_toml
from leasehold_broker.adapters.keys_local import LocalKeys
from leasehold_broker.adapters.master_keys import FileMasterKey
from leasehold_broker.adapters.policy_files import load_policy
from leasehold_broker.adapters.system_clock import SystemClock
from leasehold_broker.config import collector as collector_shape
from leasehold_broker.config import load_collector, load_sidecar
from leasehold_broker.config import sidecar as sidecar_shape
from leasehold_broker.domain.amounts import UNLIMITED, Amounts
from leasehold_broker.domain.identity import Identity, Subject
from leasehold_broker.domain.lease import Mode
from leasehold_broker.domain.policy import LeaseRequest, Terms
from leasehold_broker.domain.scope import Scope
from leasehold_broker.providers import load_price_book

EXAMPLES = Path(__file__).parents[2] / "deploy" / "config"


@pytest.fixture
def folder(tmp_path):
    """The examples as an operator lays them down: private, with a key store beside them."""
    for example in EXAMPLES.glob("*.toml"):
        shutil.copyfile(example, tmp_path / example.name)
        (tmp_path / example.name).chmod(0o600)
    shutil.copytree(EXAMPLES / "cedar", tmp_path / "cedar")
    (tmp_path / "cedar" / "conditions.cedar").chmod(0o600)
    master = FileMasterKey.create(str(tmp_path / "master.key"))
    LocalKeys.create(str(tmp_path / "keys.json"), master, SystemClock())
    return tmp_path


def settings_of(shape):
    """Names of all settings of a configuration file, through its tables."""
    for field in msgspec.structs.fields(shape):
        yield field.encode_name
        for part in _structs(field.type):
            yield from settings_of(part)


def _structs(kind):
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return [kind]
    return [struct for argument in getattr(kind, "__args__", ()) for struct in _structs(argument)]


def test_the_sidecar_example_loads(folder):
    """deploy/config/sidecar.toml is accepted as it stands."""
    config = load_sidecar(folder / "sidecar.toml")

    assert config.name == "research-0"
    assert config.collector is not None


def test_the_collector_example_loads(folder):
    """deploy/config/collector.toml is accepted as it stands."""
    assert [rule.sidecar for rule in load_collector(folder / "collector.toml").sidecars] == ["research-0"]


def test_the_policy_example_loads(folder):
    """deploy/config/policy.toml is accepted as it stands, and grants what it says."""
    policy = load_policy(str(folder / "policy.toml")).policy

    grant = policy.grant("research-agents")
    assert grant is not None
    assert grant.caps.cost_micro_usd == 5_000_000
    assert [budget.on for budget in policy.budgets] == ["key:anthropic-prod", "everything"]


@pytest.mark.parametrize(
    ("hour", "models", "team", "ttl_seconds", "forbidden"),
    [
        (12, ("claude-haiku-5-5",), "ads", 900, ()),
        (3, ("claude-haiku-5-5",), "ads", 900, ("small-at-night",)),
        (12, ("claude-opus-5-5",), "ads", 900, ("dear-models-for-research",)),
        (12, ("claude-opus-5-5",), "research", 900, ()),
        (12, (), "ads", 900, ("dear-models-for-research",)),
        (12, ("claude-haiku-5-5",), "ads", 7200, ("long-leases-have-a-purpose",)),
    ],
)
def test_the_conditions_example_forbids_what_it_says(folder, hour, models, team, ttl_seconds, forbidden):
    """deploy/config/cedar loads with the example policy, and each of its conditions forbids its own case only."""
    loaded = load_policy(str(folder / "policy.toml"), str(folder / "cedar"))
    labels = {"environment": "prod", "team": team}
    caller = Identity(Subject("https://issuer.example", "agent", labels), {}, "", 0)
    terms = Terms(
        loaded.policy.grants[0],
        (Scope("anthropic", "anthropic-prod", models),),
        Amounts(5_000_000, *[UNLIMITED] * 4),
        ttl_seconds,
        Mode.BROKERED,
    )
    asked = LeaseRequest(terms.scopes, terms.caps, ttl_seconds, Mode.BROKERED)
    thursday = hour * 3_600_000  # the first of January 1970

    assert loaded.conditions.forbidden_by(caller, asked, terms, thursday) == forbidden


def test_the_conditions_example_names_all_that_can_be_asked():
    """Every attribute of the schema stands in the example's head."""
    schema = (Path(policy_toml.__file__).parent / "conditions.cedarschema").read_text()
    head = (EXAMPLES / "cedar" / "conditions.cedar").read_text().partition("\n@id")[0]
    attributes = re.findall(r"^\s*(\w+): ", schema, re.MULTILINE)

    assert len(attributes) > 15
    assert not [name for name in attributes if not re.search(rf"\b{name}\b", head)]


def test_the_prices_example_loads(folder):
    """deploy/config/prices.toml is accepted as it stands, and means what it says."""
    book = load_price_book(folder / "prices.toml")

    listed, paid = (each.price("anthropic", "claude-sonnet-4-5") for each in (load_price_book(), book))
    assert (listed.base.input, paid.base.input) == (3_000_000, 2_550_000)
    private = book.price("openai", "acme-private-1")
    assert (private.rates_for(100_001).input, private.variants["priority"].base.output) == (4_000_000, 16_000_000)
    assert private.regions == {"us": 11_000}


@pytest.mark.parametrize(("name", "shape"), [("sidecar", sidecar_shape._File), ("collector", collector_shape._File)])
def test_every_setting_is_explained(name, shape):
    """No setting exists that the example does not show, in force or as a comment; shared ones stand in sidecar.toml.

    Rotations and where keys are made have files of their own.
    """
    keys = EXAMPLES.parent / "keys"
    files = (EXAMPLES / f"{name}.toml", EXAMPLES / "sidecar.toml", keys / "rotations.toml", keys / "minters.toml")
    text = "".join(file.read_text() for file in files)
    missing = {
        setting
        for setting in settings_of(shape)
        if not re.search(rf"(^|[\s#\[{{.]){setting}( =|\]|\.)", text, re.MULTILINE)
    }

    assert not missing


def test_every_setting_of_the_policy_is_explained():
    """The policy's reader asks for no table, list or value that the example does not show."""
    text = (EXAMPLES / "policy.toml").read_text()
    source = inspect.getsource(policy_toml) + inspect.getsource(policy_budgets)
    read = set(re.findall(r'(?:\.(?:text|texts|integer|table|tables)\(\s*|_moment\(one, )"(\w+)"', source))

    assert {"grants", "leases_max", "subjects", "rolling_seconds", "until"} <= read
    assert not {setting for setting in read if not re.search(rf"(^|[\s#\[.]){setting}( =|\])", text, re.MULTILINE)}
