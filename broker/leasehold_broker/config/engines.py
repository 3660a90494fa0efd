"""The [[keys.engines]] tables: keys that a secret engine makes when they are needed. Owns their TOML shape.

Each table has one environment, as a store has, and no two environments may share a token role or a path.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from leasehold_broker.config.federation import wrong_address
from leasehold_broker.config.parts import Part
from leasehold_broker.config.read import absolute
from leasehold_broker.config.vault import VaultLogin, login_at, wrong_login

PATH = re.compile(r"[A-Za-z0-9_-]+(?:[./][A-Za-z0-9_-]+)+", re.ASCII)
ROLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}", re.ASCII)
REGION = re.compile(r"[a-z]{2}(?:-[a-z]+)+-[0-9]{1,2}", re.ASCII)
LIFE_SECONDS_MIN, LIFE_SECONDS_MAX = 60, 24 * 3600


class EngineKey(Part, frozen=True):
    """One key: its name here, whose it is, and where its credentials are read."""

    name: str
    provider: str
    path: str
    field: str = ""
    bedrock_region: str = ""
    life_seconds: int = 900
    version: int = 1

    @property
    def brokered(self) -> bool:
        """True where it yields one value that a call can carry."""
        return bool(self.field or self.bedrock_region)


class Engines(Part, frozen=True):
    """Secret engines of one Vault or OpenBao, for one environment."""

    environment: str
    address: str
    token_role: str
    login: VaultLogin
    keys: tuple[EngineKey, ...]
    namespace: str = ""
    ca_file: str = ""


def engines_at(engines: Engines, base: Path) -> Engines:
    """With absolute paths."""
    ca_file = str(absolute(engines.ca_file, base)) if engines.ca_file else ""
    return msgspec.structs.replace(engines, ca_file=ca_file, login=login_at(engines.login, base))


def wrong_engines(engines: Engines) -> list[str]:
    """What is wrong with one table, besides the names in it."""
    wrong = [*wrong_address(engines.address), *wrong_login(engines.login)]
    if not ROLE.fullmatch(engines.token_role):
        wrong.append(f"token_role {engines.token_role!r} is no name of a token role")
    for key in engines.keys:
        where = f"key {key.name!r}:"
        if not PATH.fullmatch(key.path):
            wrong.append(f"{where} path {key.path!r} is no plain path of an engine, e.g. database/creds/orders-read")
        if not LIFE_SECONDS_MIN <= key.life_seconds <= LIFE_SECONDS_MAX:
            wrong.append(
                f"{where} life_seconds must be {LIFE_SECONDS_MIN} to {LIFE_SECONDS_MAX}, was {key.life_seconds}"
            )
        if not 1 <= key.version < 2**31:
            wrong.append(f"{where} version must be 1 or more, was {key.version}")
        if key.field and key.bedrock_region:
            wrong.append(f"{where} has field and bedrock_region; give one")
        if key.bedrock_region and not REGION.fullmatch(key.bedrock_region):
            wrong.append(f"{where} bedrock_region {key.bedrock_region!r} is no region of AWS")
    return wrong


def shared_engines(tables: Sequence[Engines]) -> list[str]:
    """What two environments would share."""
    wrong = []
    for number, one in enumerate(tables):
        for other in tables[number + 1 :]:
            if one.environment == other.environment or (one.address, one.namespace) != (other.address, other.namespace):
                continue
            shared = sorted({key.path for key in one.keys} & {key.path for key in other.keys})
            if one.token_role == other.token_role:
                shared.append(f"token role {one.token_role}")
            if shared:
                wrong.append(
                    f"environments {one.environment!r} and {other.environment!r} share {', '.join(shared)}: each needs "
                    "its own"
                )
    return wrong
