"""The tables of minters: what is refused, and that files are found from the configuration's own folder."""

from pathlib import Path

import msgspec
import pytest

from leasehold_broker.config.minters import (
    AnthropicMinter,
    AwsAccessKeyMinter,
    AzureMinter,
    BedrockMinter,
    ExecMinter,
    GoogleMinter,
    Minter,
    OpenAIMinter,
    OpenRouterMinter,
    Reset,
    VaultRoleMinter,
    VaultRootMinter,
    WebhookMinter,
    engine_of,
    minter_at,
    wrong_minter,
)
from leasehold_broker.config.vault import LoginMethod, VaultLogin

TOKEN = VaultLogin(LoginMethod.TOKEN, token_file="token")


def read(**table) -> Minter:
    """A table as it is read."""
    return msgspec.convert(table, Minter, strict=True)


def test_a_minter_is_told_by_its_name():
    """The tag says which table it is; unknown keys are refused."""
    assert read(minter="openai", admin_key="a", project="p") == OpenAIMinter("a", "p")
    with pytest.raises(msgspec.ValidationError):
        read(minter="openai", admin_key="a", project="p", admin_key_value="sk-no")
    with pytest.raises(msgspec.ValidationError):
        read(minter="unknown")


def test_a_program_is_found_from_the_folder_of_the_file():
    """As every other path."""
    found = minter_at(ExecMinter("bin/mint"), Path("/etc/leasehold"))
    assert isinstance(found, ExecMinter)
    assert found.program == "/etc/leasehold/bin/mint"
    role = minter_at(VaultRoleMinter("https://vault", "r", TOKEN, ca_file="ca.pem"), Path("/etc/leasehold"))
    assert isinstance(role, VaultRoleMinter)
    assert (role.ca_file, role.login.token_file) == ("/etc/leasehold/ca.pem", "/etc/leasehold/token")
    kept = OpenAIMinter("a", "p")
    assert minter_at(kept, Path("/etc/leasehold")) == kept


@pytest.mark.parametrize(
    ("path", "mount"),
    [
        ("database/rotate-root/postgres", "database"),
        ("teams/a/aws/config/rotate-root", "teams/a/aws"),
        ("azure/rotate-root", "azure"),
        ("database/rotate-role/agents", ""),
        ("rotate-root", ""),
        ("database/rotate-root/../x", ""),
        ("database/rotate-root/a/b", ""),
    ],
)
def test_where_an_engines_own_credential_is_rotated(path, mount):
    """The paths that engines have for it, and no others."""
    minter = VaultRootMinter(path, TOKEN)
    assert engine_of(minter) == mount
    assert any("rotate-root" in what for what in wrong_minter(minter)) is not bool(mount)


@pytest.mark.parametrize(
    ("minter", "words"),
    [
        (OpenAIMinter("", "p"), "admin_key is empty"),
        (OpenAIMinter("a", ""), "project is empty"),
        (OpenAIMinter("a", "p", origin="http://example.com"), "in the clear"),
        (OpenAIMinter("a", "p", origin="https://example.com/path"), "nothing more"),
        (ExecMinter("x", seconds_max=0), "seconds_max"),
        (ExecMinter("x", seconds_max=float("nan")), "seconds_max"),
        (ExecMinter("x", seconds_max=601), "seconds_max"),
        (ExecMinter(""), "program is empty"),
        (GoogleMinter("a", "p", ()), "services is empty"),
        (AwsAccessKeyMinter("u", "a", "arn", "f"), "says twice"),
        (AwsAccessKeyMinter("u", role_arn="arn"), "belong together"),
        (AwsAccessKeyMinter("u", endpoint="ftp://x"), "nothing more"),
        (BedrockMinter("u", "a", age_days=-1), "age_days"),
        (AzureMinter("a", "s", "", "n"), "resource_group is empty"),
        (OpenRouterMinter("a", limit_usd=-1), "limit_usd"),
        (OpenRouterMinter("a", limit_reset=Reset.DAILY), "limit_reset needs limit_usd"),
        (AnthropicMinter(""), "admin_key is empty"),
        (VaultRoleMinter("https://vault", "r", VaultLogin(LoginMethod.TOKEN)), "token_file"),
        (VaultRoleMinter("https://vault", "../r", TOKEN), "no plain path"),
        (VaultRoleMinter("https://vault", "r", TOKEN, mount="db/../sys"), "no plain path"),
        (WebhookMinter("http://keys.internal/", "s"), "in the clear"),
        (WebhookMinter("https://user:pw@keys.internal/", "s"), "'https://...@keys.internal/' must be like https://"),
        (WebhookMinter("https://[::1", "s"), "must be like https://"),
        (WebhookMinter("https://keys.internal/a b", "s"), "must be like https://"),
        (WebhookMinter("", "s"), "url is empty"),
    ],
)
def test_what_is_wrong_is_said(minter, words):
    """Each by the name of its key."""
    assert any(words in wrong for wrong in wrong_minter(minter))


@pytest.mark.parametrize(
    "minter",
    [
        OpenAIMinter("a", "p"),
        GoogleMinter("a", "p", ("generativelanguage.googleapis.com",)),
        AwsAccessKeyMinter("u"),
        AwsAccessKeyMinter("u", "", "arn", "f"),
        BedrockMinter("u", "a", age_days=90),
        AzureMinter("a", "s", "g", "n"),
        OpenRouterMinter("a", "", 25, Reset.MONTHLY),
        AnthropicMinter("a"),
        VaultRoleMinter("https://vault", "agents", TOKEN),
        ExecMinter("/bin/true"),
        WebhookMinter("https://keys.internal/path?tenant=a", "s"),
    ],
)
def test_what_is_right_is_taken(minter):
    """Nothing to say."""
    assert wrong_minter(minter) == []
