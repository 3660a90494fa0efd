"""How a sidecar logs in at Vault or OpenBao, wherever its file says so: stores, Transit, secret engines."""

from enum import StrEnum
from pathlib import Path

import msgspec

from leasehold_broker.config.parts import Part
from leasehold_broker.config.read import absolute


class LoginMethod(StrEnum):
    """How a sidecar proves to Vault who it is."""

    JWT = "jwt"
    KUBERNETES = "kubernetes"
    APPROLE = "approle"
    TOKEN = "token"  # noqa: S105 - the name of a method


class VaultLogin(Part, frozen=True):
    """How to log in; which files are needed follows from the method."""

    method: LoginMethod
    mount: str = ""
    role: str = ""
    token_file: str = ""
    role_id_file: str = ""
    secret_id_file: str = ""


def login_at(login: VaultLogin, base: Path) -> VaultLogin:
    """With absolute paths."""
    files = ("token_file", "role_id_file", "secret_id_file")
    given = {name: str(absolute(getattr(login, name), base)) for name in files if getattr(login, name)}
    return msgspec.structs.replace(login, **given)


def wrong_login(login: VaultLogin) -> list[str]:
    """What is missing, or too much."""
    needed = {
        LoginMethod.JWT: ("mount", "role", "token_file"),
        LoginMethod.KUBERNETES: ("mount", "role", "token_file"),
        LoginMethod.APPROLE: ("mount", "role_id_file", "secret_id_file"),
        LoginMethod.TOKEN: ("token_file",),
    }[login.method]
    given = {name for name in VaultLogin.__struct_fields__ if name != "method" and getattr(login, name)}
    if given == set(needed):
        return []
    return [f"login by {login.method} needs exactly: {', '.join(needed)}"]
