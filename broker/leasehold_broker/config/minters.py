"""The tables that say where a key is made and ended. Owns their TOML shape and what is refused.

`minter` says which; an admin key is named, never written here: it is read from the key store.
"""

import re
from enum import StrEnum
from pathlib import Path

import msgspec

from leasehold_broker.config.federation import wrong_address, wrong_origin, wrong_secret_url
from leasehold_broker.config.keys import PATH
from leasehold_broker.config.parts import Part
from leasehold_broker.config.read import absolute
from leasehold_broker.config.vault import VaultLogin, login_at, wrong_login

EXEC_SECONDS_MAX = 600.0
LIMIT_USD_MAX = 1_000_000
AGE_DAYS_MAX = 36_600


class Reset(StrEnum):
    """When a spending limit begins anew."""

    NEVER = ""
    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"


class OpenAIMinter(Part, frozen=True, tag_field="minter", tag="openai"):
    """Service accounts of one project at OpenAI."""

    admin_key: str
    project: str
    scopes: tuple[str, ...] = ()
    origin: str = ""


class GoogleMinter(Part, frozen=True, tag_field="minter", tag="google"):
    """API keys of one project at Google. The admin key is a federated one: an access token."""

    admin_key: str
    project: str
    services: tuple[str, ...]
    service_account: str = ""
    origin: str = ""


class AwsAccessKeyMinter(Part, frozen=True, tag_field="minter", tag="aws-access-key"):
    """Access keys of one IAM user. Without an admin key: a role by web identity, or the machine's own."""

    user: str
    admin_key: str = ""
    role_arn: str = ""
    token_file: str = ""
    region: str = "us-east-1"
    endpoint: str = ""
    sts_endpoint: str = ""


class BedrockMinter(Part, frozen=True, tag_field="minter", tag="bedrock"):
    """Bedrock's API keys of one IAM user; who we are, as above."""

    user: str
    admin_key: str = ""
    role_arn: str = ""
    token_file: str = ""
    region: str = "us-east-1"
    age_days: int = 0
    endpoint: str = ""
    sts_endpoint: str = ""


class AzureMinter(Part, frozen=True, tag_field="minter", tag="azure"):
    """The two keys of one account at Azure. The admin key is a federated one: an Entra access token."""

    admin_key: str
    subscription: str
    resource_group: str
    account: str
    origin: str = ""


class OpenRouterMinter(Part, frozen=True, tag_field="minter", tag="openrouter"):
    """Keys of one account at OpenRouter."""

    admin_key: str
    workspace: str = ""
    limit_usd: int = 0
    limit_reset: Reset = Reset.NEVER
    origin: str = ""


class AnthropicMinter(Part, frozen=True, tag_field="minter", tag="anthropic"):
    """Keys at Anthropic: found and ended, made by hand."""

    admin_key: str
    workspace: str = ""
    origin: str = ""


class VaultRoleMinter(Part, frozen=True, tag_field="minter", tag="vault-static-role"):
    """The password of a static role of Vault's database engine."""

    address: str
    role: str
    login: VaultLogin
    mount: str = "database"
    namespace: str = ""
    ca_file: str = ""


class VaultRootMinter(Part, frozen=True, tag_field="minter", tag="vault-root"):
    """The own credential of the secret engine that makes this key: its table of [keys] says where."""

    path: str
    login: VaultLogin


class ExecMinter(Part, frozen=True, tag_field="minter", tag="exec"):
    """A program of the operator's."""

    program: str
    arguments: tuple[str, ...] = ()
    admin_key: str = ""
    seconds_max: float = 60.0
    can_disable: bool = False


class WebhookMinter(Part, frozen=True, tag_field="minter", tag="webhook"):
    """A service of the operator's."""

    url: str
    signing_key: str
    ca_file: str = ""
    can_disable: bool = False


AwsMinter = AwsAccessKeyMinter | BedrockMinter
KeyMinter = (
    OpenAIMinter
    | GoogleMinter
    | AwsAccessKeyMinter
    | BedrockMinter
    | AzureMinter
    | OpenRouterMinter
    | AnthropicMinter
    | VaultRoleMinter
    | ExecMinter
    | WebhookMinter
)
"""Those that give a key of which a store keeps the value."""
Minter = KeyMinter | VaultRootMinter
_ROTATE_ROOT = re.compile(r"(.+?)/(?:config/)?rotate-root(?:/[^/]+)?")
_FILES = ("program", "token_file", "ca_file")
_ADDRESSES = ("endpoint", "sts_endpoint", "address")


def minter_at(minter: Minter, base: Path) -> Minter:
    """With absolute paths."""
    named = {name: path for name in _FILES if (path := getattr(minter, name, ""))}
    changed: dict[str, object] = {name: str(absolute(path, base)) for name, path in named.items()}
    if isinstance(minter, VaultRoleMinter | VaultRootMinter):
        changed["login"] = login_at(minter.login, base)
    return msgspec.structs.replace(minter, **changed)


def engine_of(minter: VaultRootMinter) -> str:
    """Where the engine is mounted whose credential is rotated there; "" for a path that does not rotate one."""
    found = _ROTATE_ROOT.fullmatch(minter.path)
    return found[1] if found and PATH.fullmatch(minter.path) else ""


def admin_key_of(minter: Minter) -> str:
    """Name of the key in our store that it logs in with, or signs with; "" for none."""
    if isinstance(minter, WebhookMinter):
        return minter.signing_key
    return "" if isinstance(minter, VaultRoleMinter | VaultRootMinter) else minter.admin_key


def wrong_minter(minter: Minter) -> list[str]:
    """What is wrong with one table."""
    required = [field.name for field in msgspec.structs.fields(minter) if field.required]
    wrong = [f"{name} is empty" for name in required if not getattr(minter, name)]
    wrong += wrong_origin(origin) if (origin := getattr(minter, "origin", "")) else []
    wrong += [what for name in _ADDRESSES if (url := getattr(minter, name, "")) for what in wrong_address(url)]
    match minter:
        case ExecMinter(seconds_max=seconds) if not 1 <= seconds <= EXEC_SECONDS_MAX:
            wrong.append(f"seconds_max must be 1 to {EXEC_SECONDS_MAX:g}, was {seconds:g}")
        case AwsAccessKeyMinter() | BedrockMinter():
            wrong += _wrong_aws(minter)
        case OpenRouterMinter():
            if not 0 <= minter.limit_usd <= LIMIT_USD_MAX:
                wrong.append(f"limit_usd must be 0 to {LIMIT_USD_MAX}, was {minter.limit_usd}")
            if minter.limit_reset and not minter.limit_usd:
                wrong.append("limit_reset needs limit_usd")
        case VaultRoleMinter():
            wrong += wrong_login(minter.login)
            wrong += [
                f"{name} {path!r} is no plain path"
                for name, path in (("mount", minter.mount), ("role", minter.role))
                if not PATH.fullmatch(path)
            ]
        case VaultRootMinter():
            wrong += wrong_login(minter.login)
            if not engine_of(minter):
                wrong.append(f"path {minter.path!r} is none like database/rotate-root/NAME or aws/config/rotate-root")
        case WebhookMinter():
            wrong += wrong_secret_url(minter.url)
        case _:
            pass
    return wrong


def _wrong_aws(minter: AwsMinter) -> list[str]:
    wrong = []
    if bool(minter.role_arn) != bool(minter.token_file):
        wrong.append("role_arn and token_file belong together: give both or none")
    if minter.admin_key and minter.role_arn:
        wrong.append("says twice who we are: give admin_key or role_arn")
    if isinstance(minter, BedrockMinter) and not 0 <= minter.age_days <= AGE_DAYS_MAX:
        wrong.append(f"age_days must be 0 to {AGE_DAYS_MAX}, was {minter.age_days}")
    return wrong
