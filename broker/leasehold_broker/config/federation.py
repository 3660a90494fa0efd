"""The [[keys.federated]] tables: keys without a secret. Owns their TOML shape and what is refused."""

from enum import StrEnum
from pathlib import Path

import msgspec

from leasehold_broker.config.parts import Part
from leasehold_broker.config.read import absolute
from leasehold_broker.domain.http_url import http_url_wrong, in_the_clear, origin_wrong, shown


class AnthropicRule(Part, frozen=True, tag_field="at", tag="anthropic"):
    """A federation rule at Anthropic."""

    federation_rule_id: str
    organization_id: str
    service_account_id: str = ""
    workspace_id: str = ""
    origin: str = ""


class OpenAIRule(Part, frozen=True, tag_field="at", tag="openai"):
    """A workload identity provider and a service account at OpenAI."""

    identity_provider_id: str
    service_account_id: str
    origin: str = ""


class OpenRouterRule(Part, frozen=True, tag_field="at", tag="openrouter"):
    """A rule at OpenRouter."""

    audience: str = ""
    origin: str = ""


class GoogleRule(Part, frozen=True, tag_field="at", tag="google"):
    """A workload identity provider at Google, and a service account to impersonate."""

    audience: str
    service_account: str = ""
    scope: str = "https://www.googleapis.com/auth/cloud-platform"
    lifetime_seconds: int = 900
    sts_origin: str = ""
    iam_origin: str = ""


class AwsRule(Part, frozen=True, tag_field="at", tag="aws"):
    """A role at AWS, for Bedrock."""

    role_arn: str
    region: str
    models: tuple[str, ...] = ()
    session_seconds: int = 900
    sts_origin: str = ""


class AzureRule(Part, frozen=True, tag_field="at", tag="azure"):
    """An application with a federated credential at Entra."""

    tenant_id: str
    client_id: str
    scope: str = "https://cognitiveservices.azure.com/.default"
    origin: str = ""


Rule = AnthropicRule | OpenAIRule | OpenRouterRule | GoogleRule | AwsRule | AzureRule


class Exchanges(StrEnum):
    """Whose workload token is exchanged."""

    SIDECAR = "sidecar"
    AGENT = "agent"


class Federated(Part, frozen=True):
    """One key."""

    name: str
    provider: str
    environment: str
    rule: Rule
    token_file: str = ""
    exchanges: Exchanges = Exchanges.SIDECAR
    version: int = 1


def federated_at(key: Federated, base: Path) -> Federated:
    """With absolute paths."""
    return msgspec.structs.replace(key, token_file=str(absolute(key.token_file, base))) if key.token_file else key


def wrong_federated(key: Federated) -> list[str]:
    """What is wrong with one key, besides its names."""
    wrong = []
    if key.exchanges is Exchanges.SIDECAR and not key.token_file:
        wrong.append("token_file is empty: the workload token to exchange lies in a file")
    if key.exchanges is Exchanges.AGENT and key.token_file:
        wrong.append('token_file is for exchanges = "sidecar"; the agent shows its token itself')
    if not 1 <= key.version < 2**31:
        wrong.append(f"version must be 1 or more, was {key.version}")
    names = [name for name in key.rule.__struct_fields__ if name.endswith("origin")]
    wrong += [what for name in names if (url := getattr(key.rule, name)) for what in wrong_origin(url)]
    match key.rule:
        case GoogleRule(lifetime_seconds=seconds) if not 60 <= seconds <= 43200:
            wrong.append(f"lifetime_seconds must be 60 to 43200, was {seconds}")
        case AwsRule(session_seconds=seconds) if not 900 <= seconds <= 43200:
            wrong.append(f"session_seconds must be 900 to 43200, was {seconds}")
        case _:
            pass
    return wrong


def wrong_origin(url: str) -> list[str]:
    """What is wrong with where secrets are asked for or sent to."""
    why = origin_wrong(url)
    return wrong_secret_url(url) if why is None else [f"{shown(url)} {why}"]


def wrong_address(url: str) -> list[str]:
    """The same for a server whose own library reads its address, and takes a slash at the end."""
    return wrong_origin(url.removesuffix("/"))


def wrong_secret_url(url: str) -> list[str]:
    """What is wrong with a URL, with or without a path, to which secrets are sent."""
    why = http_url_wrong(url)
    if why is None and in_the_clear(url):
        why = "would carry secrets in the clear; use https"
    return [] if why is None else [f"{shown(url)} {why}"]
