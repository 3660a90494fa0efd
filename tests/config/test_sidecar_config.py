"""The sidecar's configuration: what loads, and what is refused with a sentence that says what to change."""

from pathlib import Path

import pytest

from leasehold_broker.config import ConfigError, load_sidecar
from leasehold_broker.providers import all_providers

GOOD = """
[sidecar]
name = "sidecar-a"
state_dir = "state"

[policy]
file = "policy.toml"

[keys]
file = "keys.json"
master_key_file = "master.key"

[alone]
admin_socket = "admin/admin.sock"
operator_uids = [0]

[[issuers]]
name = "demo"
kind = "oidc"
issuer = "https://issuer.example"
audience = "leasehold"
algorithms = ["ES256"]
replay = "off"
jwks_file = "jwks.json"
labels = { environment = { fixed = "dev" } }
"""


@pytest.fixture
def folder(tmp_path):
    """A folder with every file that a configuration names, each with the right mode."""
    for name, mode in (("policy.toml", 0o644), ("keys.json", 0o600), ("master.key", 0o600), ("jwks.json", 0o644)):
        path = tmp_path / name
        path.write_text("")
        path.chmod(mode)
    return tmp_path


def write(folder: Path, text: str, mode: int = 0o640) -> Path:
    """The text as a configuration file."""
    path = folder / "sidecar.toml"
    path.write_text(text)
    path.chmod(mode)
    return path


def refusal(folder: Path, text: str, mode: int = 0o640) -> str:
    """The sentence with which this configuration is refused."""
    with pytest.raises(ConfigError) as caught:
        load_sidecar(write(folder, text, mode))
    return str(caught.value)


def test_a_good_file_loads_with_absolute_paths(folder):
    """Relative paths are taken from the file's own folder, and defaults listen on this machine only."""
    config = load_sidecar(write(folder, GOOD))

    assert folder / "state" == config.state_dir
    assert config.egress.host == "127.0.0.1"
    assert config.issuers[0].audience == "leasehold"
    assert config.collector is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('jwks_file = "jwks.json"', 'jwks_file = "jwks.json"\nproof = "mtls"'), "needs [grpc] with [grpc.tls]"),
        (('name = "sidecar-a"', 'name = "sidecar-a"\nnmae = "x"'), "unknown key `nmae` in `sidecar`"),
        (('name = "sidecar-a"', 'name = "sidecar-a"\nname = "b"'), "`name` in [sidecar] is stated twice"),
        (("[policy]\n", "[keys]\n[policy]\n"), "[keys] is stated twice"),
        (("[policy]\n", "[policy\n"), "not valid TOML"),
        (('file = "policy.toml"\n', ""), "key `file` is missing in `policy`; add it"),
        (
            ('name = "sidecar-a"', 'name = "sidecar-a"\ndrain_seconds = "3"'),
            "Expected a number, got text in `sidecar.dr",
        ),
        (("[policy]\n", "[polcy]\n[policy]\n"), "unknown key `polcy`"),
        (('name = "sidecar-a"', 'name = "Side Car"'), "[sidecar] name 'Side Car' must be"),
        (('algorithms = ["ES256"]', 'algorithms = ["HS256"]'), "'HS256' is not allowed"),
        (
            ('[alone]\nadmin_socket = "admin/admin.sock"\noperator_uids = [0]\n', '[collector]\ntarget = "unix:/x"\n'),
            "needs token_file, or certificate_file",
        ),
        (("[alone]\n", '[collector]\ntarget = "unix:/x"\ntoken_file = "t"\n[alone]\n'), "exactly one of"),
        (("operator_uids = [0]", 'operator_uids = ["root"]'), "operator_uids"),
        (('file = "policy.toml"', 'file = "missing.toml"'), "policy file"),
        (('master_key_file = "master.key"', 'master_key_file = "policy.toml"'), "chmod 600"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(folder, change, said):
    """Each refusal names the setting, so that the operator knows what to change."""
    assert said in refusal(folder, GOOD.replace(*change))


ENVOY = """
[egress]
socket = "egress.sock"

[envoy]
uid = 1337
url = "https://leasehold.internal:8443"
callers = ["spiffe://prod.example/agent"]
"""


def test_envoy_is_known_by_its_user_and_speaks_for_those_that_are_named(folder):
    """Its place is what agents are told, and what they may put into the Host header."""
    config = load_sidecar(write(folder, GOOD + ENVOY))

    assert config.envoy is not None
    assert (config.envoy.proxy.uid, config.envoy.proxy.callers) == (1337, {"spiffe://prod.example/agent"})
    assert config.egress_hosts == ("leasehold.internal:8443",)
    plain = load_sidecar(write(folder, GOOD + ENVOY.replace("https://leasehold.internal:8443", "http://127.0.0.1:80")))
    assert set(plain.egress_hosts) == {"127.0.0.1", "127.0.0.1:80"}


def test_a_certificate_that_envoy_has_seen_proves_a_token(folder):
    """With callers there are certificates, so tokens may be bound to them."""
    bound = GOOD.replace('jwks_file = "jwks.json"', 'jwks_file = "jwks.json"\nproof = "mtls"')

    assert load_sidecar(write(folder, bound + ENVOY)).envoy is not None
    alone = ENVOY.replace('callers = ["spiffe://prod.example/agent"]', "")
    assert "or [envoy] with callers" in refusal(folder, bound + alone)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('socket = "egress.sock"', ""), "needs a socket in [grpc] and in [egress]"),
        (
            ("[envoy]", '[egress.tls]\ncertificate = "c"\nprivate_key = "k"\nclient_ca = "a"\n[envoy]'),
            "keep one of the two",
        ),
        (("uid = 1337", "uid = -1"), "uid -1 is no user"),
        (("uid = 1337", "uid = 4294967295"), "is no user"),
        (("uid = 1337\n", ""), "`uid`"),
        (("https://", "http://"), "in the clear"),
        (("https://", "ftp://"), "must be like"),
        ((":8443", ":8443/"), "must be like"),
        ((":8443", ":8443?a=b"), "must be like"),
        (("https://", "https://a:b@"), "must be like"),
        (("https://leasehold.internal:8443", ""), "must be like"),
        (("https://leasehold.internal:8443", "https://leasehold.internal:x"), "must be like"),
        (("spiffe://prod.example/agent", "spiffe://prod.example"), "caller 'spiffe://prod.example'"),
        (("spiffe://prod.example/agent", "spiffe://prod.example/*"), "caller 'spiffe://prod.example/*'"),
    ],
)
def test_a_wrong_word_on_envoy_is_refused(folder, change, said):
    """What could trust somebody else, or send tokens in the clear, does not load."""
    assert said in refusal(folder, GOOD + ENVOY.replace(*change))


@pytest.mark.parametrize("address", ["0.0.0.0:8788", "[::]:8788", "192.0.2.1:8788"])
@pytest.mark.parametrize("door", ["grpc", "egress"])
def test_listening_beyond_this_machine_needs_tls(folder, address, door):
    """Without TLS no door listens where others can reach it."""
    said = refusal(folder, f'{GOOD}\n[{door}]\naddress = "{address}"\n')

    assert "without TLS" in said
    assert f"[{door}.tls]" in said


def test_metrics_listen_on_loopback_only(folder):
    """Metrics have no TLS at all, so they stay on this machine."""
    assert "without TLS" in refusal(folder, f'{GOOD}\n[metrics]\naddress = "0.0.0.0:9464"\n')


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o666])
def test_a_configuration_open_to_others_is_refused(folder, mode):
    """Who can change it decides who is believed; who can read it learns where the secrets are."""
    assert "chmod 640" in refusal(folder, GOOD, mode)


def test_a_key_store_open_to_others_is_refused(folder):
    """Not even the group may read the key store."""
    (folder / "keys.json").chmod(0o640)

    assert "key store file" in refusal(folder, GOOD)


def test_a_provider_in_the_clear_must_be_meant(folder):
    """A key is not sent over plain http unless the configuration says that the server is on this machine."""
    text = f'{GOOD}\n[providers.anthropic]\norigin = "http://127.0.0.1:9"\n'

    assert "in the clear" in refusal(folder, text)
    assert load_sidecar(write(folder, text + "allow_private = true\n")).providers["anthropic"].allow_private


@pytest.mark.parametrize("host", ["10.0.0.7", "models.internal", "localhost"])
def test_a_key_never_crosses_a_network_in_the_clear(folder, host):
    """Plain http is for a literal loopback address only, whatever else is allowed: a name could be anywhere."""
    text = f'{GOOD}\n[providers.anthropic]\norigin = "http://{host}:9"\nallow_private = true\n'

    assert "in the clear" in refusal(folder, text)


def test_an_unknown_provider_is_refused(folder):
    """A typing error in a provider's name would otherwise leave its default in force."""
    assert "[providers.antropic] is unknown" in refusal(
        folder, f'{GOOD}\n[providers.antropic]\norigin = "https://api.anthropic.com"\n'
    )


OWN = '[providers.own-llm]\nkind = "openai_compatible"\norigin = "https://llm.internal.example"\n'


def test_hosts_are_declared(folder):
    """A vendor as it is, a second account of one, a host of one's own, Azure: each with what it needs, or defaults."""
    more = (
        '[providers.groq]\nimage_tokens_max = 2048\n[providers.mistral]\n[providers.own-eu]\nkind = "groq"\n'
        '[providers.azure]\norigin = "https://x.openai.azure.com/"\nprices_of = "openai"\n'
        'deployments = { "chat.v2" = "gpt-4.1" }\n'
        f'{OWN}path = "/api/v3"\noutput_limit = "max_completion_tokens"\nasks_for_usage = false\n'
        'extra_fields = ["guided_json"]\nprices_of = "together"\n'
    )
    at = load_sidecar(write(folder, f"{GOOD}\n{more}")).providers

    assert at["mistral"].settings is None
    assert (at["groq"].settings.kind, at["groq"].settings.image_tokens_max, at["groq"].prices_of) == ("groq", 2048, "")
    assert (at["own-eu"].settings.kind, at["own-eu"].origin, at["own-eu"].prices_of) == ("groq", "", "groq")
    assert at["azure"].settings.deployments == {"chat.v2": "gpt-4.1"}
    assert at["azure"].origin == "https://x.openai.azure.com"
    own = at["own-llm"].settings
    assert (own.path, own.output_limit, own.asks_for_usage) == ("/api/v3", "max_completion_tokens", False)
    assert (own.extra_fields, at["own-llm"].prices_of) == (("guided_json",), "together")
    declared = all_providers({name: each.settings for name, each in at.items() if each.settings})
    assert declared.keys() > {"azure", "own-eu", "own-llm"}


def test_clouds_are_placed(folder):
    """Vertex AI in a project and a place, Bedrock in a region, and either a second time elsewhere."""
    more = (
        '[providers.vertex]\nproject = "acme-research"\n[providers.bedrock]\nlocation = "us-west-2"\n'
        '[providers.own-vertex-eu]\nkind = "vertex"\nproject = "acme-research"\nlocation = "europe-west4"\n'
        '[providers.own-bedrock-eu]\nkind = "bedrock"\nlocation = "eu-central-1"\n'
    )
    at = load_sidecar(write(folder, f"{GOOD}\n{more}")).providers
    found = all_providers({name: each.settings for name, each in at.items() if each.settings})

    assert {name: found[name].default_origin for name in at} == {
        "vertex": "https://aiplatform.googleapis.com",
        "bedrock": "https://bedrock-runtime.us-west-2.amazonaws.com",
        "own-vertex-eu": "https://europe-west4-aiplatform.googleapis.com",
        "own-bedrock-eu": "https://bedrock-runtime.eu-central-1.amazonaws.com",
    }
    assert {name: each.prices_of for name, each in at.items()} == {
        "vertex": "",
        "bedrock": "",
        "own-vertex-eu": "vertex",
        "own-bedrock-eu": "bedrock",
    }
    assert "vertex" not in all_providers()


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("[providers.vertex]", "needs project"),
        ('[providers.vertex]\nproject = "a/b"', "must be the id or number of a project"),
        ('[providers.vertex]\nproject = "acme-research"\nlocation = "Mars"', "location 'Mars' must be"),
        ('[providers.bedrock]\nlocation = "global"', "location 'global' must be"),
        ('[providers.bedrock]\nproject = "acme-research"', "project goes with kind vertex only"),
        ('[providers.openai]\nlocation = "us"', "location goes with kind bedrock or vertex only"),
        ('[providers.llm]\norigin = "https://x"', "is unknown: use one of"),
        ('[providers.groq]\nkind = "xai"', "name this host own-..."),
        ('[providers.own-llm]\norigin = "https://x"', "kind '' is unknown"),
        ('[providers.groq]\norigin = "https://[::1"', "nothing more"),
        ('[providers.groq]\norigin = "https://x:99999"', "port above 65535"),
        ('[providers.groq]\norigin = "https://key:word@x"', "'https://...@x' must be scheme://host"),
        ('[providers.own-llm]\nkind = "anthropic"', "kind 'anthropic' is unknown"),
        ('[providers.own-llm]\nkind = "openai_compatible"', "needs origin"),
        ('[providers.azure]\norigin = "https://x"', "needs deployments"),
        ('[providers.azure]\ndeployments = { a = "b" }', "needs origin"),
        ('[providers.azure]\norigin = "https://x"\ndeployments = { "a/b" = "c" }', "must be plain names"),
        ('[providers.openai]\npath = "/v2"', "path goes with kind openai_compatible only"),
        ('[providers.openai]\nextra_fields = ["audio"]', "extra_fields goes with kind"),
        ('[providers.groq]\nprices_of = "xai"', "prices_of goes with kind"),
        (OWN + 'path = "v1/"', "path 'v1/' must be"),
        (OWN + 'output_limit = "max_output"', "output_limit 'max_output' must be"),
        (OWN + 'extra_fields = ["a b"]', "extra_fields must be"),
        (OWN + "image_tokens_max = -1", "image_tokens_max must be"),
        (OWN + 'prices_of = "llm"', "prices_of 'llm' is unknown"),
        (OWN + 'deployments = { a = "b" }', "deployments goes with kind azure only"),
        (OWN.replace("https", "http"), "in the clear"),
    ],
)
def test_a_wrong_declaration_is_refused_by_name(folder, table, said):
    """What a kind does not have, what it needs, and names that could be a misspelt vendor's."""
    assert said in refusal(folder, f"{GOOD}\n{table}\n")


def test_an_empty_list_of_operators_means_the_process_own_uid(folder):
    """Nobody else may revoke at a sidecar that runs alone."""
    config = load_sidecar(write(folder, GOOD.replace("operator_uids = [0]", "operator_uids = []")))

    assert config.alone is not None
    assert len(config.alone.operator_uids) == 1
