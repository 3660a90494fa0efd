"""Clients of AWS: who we are there, and bounds of time. Blocking: used from a worker thread.

Environment variables with credentials are not read: the process drops them at its start. What the library would log of
requests and answers is not logged at any level: a key is in some of them.
"""

import logging
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config
from botocore.credentials import AssumeRoleWithWebIdentityCredentialFetcher, Credentials, DeferredRefreshableCredentials
from botocore.loaders import create_loader
from botocore.session import Session, get_session

from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.key_source import SourceFault, SourceState

_LOADER = create_loader()
"""Keeps the tables that it has read: making a client takes a tenth of a second without, and a hundredth with it."""
_LOGGERS = ("boto3", "botocore", "urllib3")


@dataclass(frozen=True, slots=True)
class AwsAt:
    """Where and who.

    Args:
        region: e.g. "eu-central-1".
        role_arn, token_file: the role to assume with the workload token of this file; both "" for the machine's own.
        endpoint: "" for AWS's; another for a private endpoint.
        sts_endpoint: as above, for the exchange of the token.
        timeout_seconds: for each connect and each silence.
    """

    region: str
    role_arn: str = ""
    token_file: str = ""
    endpoint: str = ""
    sts_endpoint: str = ""
    timeout_seconds: float = 4.0


def aws_client(service: str, at: AwsAt, own: Secret | None = None) -> Any:
    """A client of this service. The library reads its tables from disk at the first, which takes a while.

    Args:
        service: as AWS names it, e.g. "iam".
        at: where and who.
        own: an access key of ours, "ID:SECRET", in place of a role's.

    Raises:
        SourceFault: LOGIN_REFUSED: `own` is no access key.
    """
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    session = get_session()
    session.register_component("data_loader", _LOADER)
    if own is not None:
        session._credentials = _own(own)  # noqa: SLF001 - botocore's way for own providers
    elif at.role_arn:
        session._credentials = _web_identity(session, at)  # noqa: SLF001 - as above
    config = Config(
        connect_timeout=at.timeout_seconds,
        read_timeout=at.timeout_seconds,
        retries={"total_max_attempts": 1},
        proxies={},
    )
    return boto3.Session(botocore_session=session, region_name=at.region).client(
        service, endpoint_url=at.endpoint or None, config=config
    )


def _own(own: Secret) -> Credentials:
    key_id, _, secret = own.reveal().decode("ascii").partition(":")
    if not key_id or not secret:
        raise SourceFault(SourceState.LOGIN_REFUSED, "the admin key is no access key: store it as ID:SECRET")
    return Credentials(key_id, secret)


def _web_identity(session: Session, at: AwsAt) -> DeferredRefreshableCredentials:
    def client(service: str, **kwargs: Any) -> Any:
        more = {"endpoint_url": at.sts_endpoint} if at.sts_endpoint else {}
        return session.create_client(service, region_name=at.region, **(kwargs | more))

    def token() -> str:
        try:
            with open(at.token_file, encoding="ascii") as file:  # noqa: PTH123 - one bounded read
                return file.read(16 * 1024).strip()
        except (OSError, ValueError):
            message = f"workload token file {at.token_file} cannot be read"
            raise SourceFault(SourceState.LOGIN_REFUSED, message) from None

    fetcher = AssumeRoleWithWebIdentityCredentialFetcher(
        client_creator=client,
        web_identity_token_loader=token,
        role_arn=at.role_arn,
        extra_args={"RoleSessionName": "leasehold"},
    )
    return DeferredRefreshableCredentials(fetcher.fetch_credentials, "leasehold-web-identity")
