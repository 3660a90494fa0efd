"""Where keys come from: what loads, and what is refused because two environments could meet."""

import pytest
from tests.config.test_sidecar_config import GOOD, folder, refusal, write

from leasehold_broker.config import load_sidecar

__all__ = ["folder"]
LOCAL = '[keys]\nfile = "keys.json"\nmaster_key_file = "master.key"\n'
VAULT = """
[[keys.stores]]
kind = "vault"
environment = "{environment}"
path = "{path}"
address = "https://vault.internal:8200"
login = {{ method = "jwt", mount = "jwt", role = "sidecar", token_file = "vault.jwt" }}
[[keys.stores.keys]]
name = "anthropic-{environment}"
provider = "anthropic"
secret = "anthropic"
"""


def with_keys(text: str) -> str:
    """A good file with these keys."""
    assert LOCAL in GOOD
    return GOOD.replace(LOCAL, text)


def vault(environment: str = "prod", path: str = "leasehold/prod") -> str:
    """One store."""
    return VAULT.format(environment=environment, path=path)


def test_a_store_for_each_environment(folder):
    """Two environments with a place each load; paths of files are absolute; the key has its table's environment."""
    text = with_keys(vault() + vault("staging", "leasehold/staging"))
    config = load_sidecar(write(folder, text)).keys
    assert config.path is None
    assert [store.environment for store in config.stores] == ["prod", "staging"]
    assert config.stores[0].login.token_file == str(folder / "vault.jwt")
    assert config.stores[0].keys[0].name == "anthropic-prod"


def test_the_local_store_may_stand_beside(folder):
    """File and stores together load."""
    config = load_sidecar(write(folder, with_keys(LOCAL + vault()))).keys
    assert config.path == folder / "keys.json"
    assert len(config.stores) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [("leasehold", "leasehold"), ("leasehold", "leasehold/staging"), ("leasehold/prod/a", "leasehold/prod")],
)
def test_environments_share_no_place(folder, one, other):
    """The same path, or one within the other, is refused: a key of one could be named from the other."""
    said = refusal(folder, with_keys(vault("prod", one) + vault("staging", other)))
    assert "environments 'prod' and 'staging' share a place" in said


@pytest.mark.parametrize("path", ["", "/abs", "a/../b", "a//b", "a/", "../a", "a b"])
def test_paths_are_plain(folder, path):
    """No path can climb out of its environment: neither the store's nor a key's."""
    assert "path" in refusal(folder, with_keys(vault(path=path)))
    assert "no plain path" in refusal(folder, with_keys(vault().replace('secret = "anthropic"', f'secret = "{path}"')))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("https://vault", "http://vault", "in the clear"),
        ("https://vault.internal:8200", "https://vault/ui", "nothing more"),
        ('"anthropic"\nsecret', '"acme"\nsecret', "provider 'acme' is not known"),
        ('name = "anthropic-prod"', 'name = "Prod Key"', "a name is"),
        ('role = "sidecar", ', "", "needs exactly: mount, role, token_file"),
        ('method = "jwt"', 'method = "token"', "needs exactly: token_file"),
        ('path = "leasehold', 'refresh_seconds = 1\npath = "leasehold', "refresh_seconds must be 5 to 3600"),
        ('path = "leasehold', 'max_stale_seconds = 9\npath = "leasehold', "max_stale_seconds must be"),
        ('kind = "vault"', 'kind = "excel"', "kind"),
        ('environment = "prod"', 'environment = ""', "environment ''"),
    ],
)
def test_wrong_settings_are_named(folder, old, new, said):
    """Each refusal names the setting."""
    text = vault()
    assert old in text
    assert said in refusal(folder, with_keys(text.replace(old, new)))


def test_names_are_unique(folder):
    """One name in two stores is refused: a grant must mean one key."""
    twice = vault("staging", "leasehold/staging").replace("anthropic-staging", "anthropic-prod")
    assert "names 'anthropic-prod' twice" in refusal(folder, with_keys(vault() + twice))


def test_no_keys_at_all(folder):
    """A [keys] table that names nothing is refused; so are two master keys, and one without a store."""
    assert "names no key" in refusal(folder, with_keys("[keys]\n"))
    login = 'login = { method = "token", token_file = "t" }'
    transit = f'[keys.transit]\naddress = "https://v"\nkey = "leasehold"\n{login}\n'
    assert "two master keys" in refusal(folder, with_keys(LOCAL + transit))
    assert "belong to file" in refusal(folder, with_keys("[keys]\n" + transit + vault()))


AT = {
    "vault": 'address = "https://{host}"\nlogin = {{ method = "token", token_file = "t" }}',
    "aws": 'region = "eu-central-1"\nendpoint = "https://{host}"',
    "gcp": 'project = "p"\nendpoint = "https://{host}"',
    "azure": 'vault_url = "https://{host}"',
}


@pytest.mark.parametrize(
    ("kind", "prod", "staging", "host", "shared"),
    [
        ("gcp", "leasehold", "leasehold-staging", "x.test", True),
        ("azure", "leasehold", "leasehold-staging", "x.test", True),
        ("gcp", "leasehold-prod", "leasehold-staging", "x.test", False),
        ("azure", "leasehold-prod", "Leasehold-PROD", "x.test", True),
        ("vault", "leasehold", "leasehold-staging", "x.test", False),
        ("vault", "leasehold", "leasehold/staging", "x.test", True),
        ("aws", "leasehold", "leasehold-staging", "x.test", False),
        ("aws", "leasehold", "leasehold/staging", "x.test", True),
        ("vault", "leasehold", "leasehold/staging", "X.test/", True),
        ("vault", "leasehold", "leasehold/staging", "y.test", False),
    ],
)
def test_no_name_of_one_environment_is_one_of_another(folder, kind, prod, staging, host, shared):
    """A secret is path and name with "/" or "-" between: prod's "staging-openai" must not be staging's "openai"."""
    stores = "".join(
        f'[[keys.stores]]\nkind = "{kind}"\nenvironment = "{environment}"\npath = "{path}"\nkeys = []\n{at}\n'
        for environment, path, at in (
            ("prod", prod, AT[kind].format(host="x.test")),
            ("staging", staging, AT[kind].format(host=host)),
        )
    )
    if shared:
        assert "share a place" in refusal(folder, with_keys("[keys]\n" + stores))
    else:
        assert len(load_sidecar(write(folder, with_keys("[keys]\n" + stores))).keys.stores) == 2


@pytest.mark.parametrize("field", ["pending", "previous", "rotation", "disabled"])
def test_a_field_that_a_rotation_writes_is_no_key(folder, field):
    """The next rotation would put something else in the key's place."""
    text = vault().replace('secret = "anthropic"', f'secret = "anthropic"\nfield = "{field}"')
    assert f"field '{field}' is where a rotation keeps" in refusal(folder, with_keys(text))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('kind = "aws"\nregion = "eu-central-1"\nrole_arn = "arn:x"', "role_arn, token_file belong together"),
        ('kind = "gcp"\nproject = "p"\naudience = "a"', "token_file, audience belong together"),
        ('kind = "azure"\nvault_url = "https://v"\nclient_id = "c"', "tenant_id, client_id, token_file belong"),
        ('kind = "azure"\nvault_url = "http://v"', "in the clear"),
    ],
)
def test_clouds(folder, more, said):
    """Half an identity is refused: it would fall back to the machine's own without a word."""
    text = f'[[keys.stores]]\nenvironment = "prod"\npath = "leasehold-prod"\nkeys = []\n{more}\n'
    assert said in refusal(folder, with_keys(text))


ENGINES = """
[[keys.engines]]
environment = "{environment}"
address = "https://vault.internal:8200"
token_role = "leasehold-{environment}"
login = {{ method = "jwt", mount = "jwt", role = "sidecar", token_file = "vault.jwt" }}
[[keys.engines.keys]]
name = "orders-{environment}"
provider = "own-orders-db"
path = "database/creds/orders-{environment}"
"""


def engines(environment: str = "prod") -> str:
    """One table of secret engines."""
    return ENGINES.format(environment=environment)


def test_engines_of_two_environments(folder):
    """They load beside each other; files are absolute; a key without a field is only handed out."""
    config = load_sidecar(write(folder, with_keys(engines() + engines("staging")))).keys
    assert [table.environment for table in config.engines] == ["prod", "staging"]
    assert config.engines[0].login.token_file == str(folder / "vault.jwt")
    assert not config.engines[0].keys[0].brokered


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("leasehold-staging", "leasehold-prod", "share token role leasehold-prod"),
        ("creds/orders-staging", "creds/orders-prod", "share database/creds/orders-prod"),
        ("orders-staging", "orders-prod", "names 'orders-prod' twice"),
    ],
)
def test_environments_share_no_engine(folder, old, new, said):
    """Neither a token role nor a path, and no name."""
    assert said in refusal(folder, with_keys(engines() + engines("staging").replace(old, new)))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("https://", "http://", "in the clear"),
        ('role = "sidecar", ', "", "needs exactly: mount, role, token_file"),
        ('token_role = "leasehold-prod"', 'token_role = "../sys"', "no name of a token role"),
        ("database/creds/orders-prod", "database/../sys", "no plain path"),
        ("database/creds/orders-prod", "database", "no plain path"),
        ('provider = "own-orders-db"', 'provider = "acme"', "provider 'acme' is not known"),
        ('provider = "own', 'life_seconds = 59\nprovider = "own', "life_seconds must be 60 to 86400, was 59"),
        ('provider = "own', 'version = 0\nprovider = "own', "version must be 1 or more"),
        ('provider = "own', 'field = "a"\nbedrock_region = "us-east-1"\nprovider = "own', "give one"),
        ('provider = "own', 'bedrock_region = "moon"\nprovider = "own', "no region of AWS"),
    ],
)
def test_wrong_engines_are_named(folder, old, new, said):
    """Each refusal names the setting."""
    assert old in engines()
    assert said in refusal(folder, with_keys(engines().replace(old, new)))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "token_file is empty"),
        ('exchanges = "agent"\ntoken_file = "t"', 'token_file is for exchanges = "sidecar"'),
        ('exchanges = "nobody"', "exchanges"),
    ],
)
def test_whose_token_is_exchanged(folder, given, said):
    """The sidecar's from a file, or the agent's without one; anything else is refused."""
    text = """
[[keys.federated]]
name = "wif"
provider = "anthropic"
environment = "prod"
rule = { at = "anthropic", federation_rule_id = "fdrl_1", organization_id = "org" }
"""
    assert said in refusal(folder, with_keys(f"{text}{given}\n"))
    load_sidecar(write(folder, with_keys(f'{text}exchanges = "agent"\n')))
