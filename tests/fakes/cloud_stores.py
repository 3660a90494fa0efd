"""Our two cloud stores over the fakes of their vendors, each with the vendor's own library."""

import contextlib
import ssl

from azure.core.credentials import AccessToken
from google.auth.credentials import AnonymousCredentials
from tests.fakes.certificates import Authority
from tests.fakes.cloud_secrets import RESOURCE, AzureSecrets, GoogleSecrets, serve

from leasehold_broker.adapters.keys_azure import AzureAt, AzureKeyAt, AzureKeys
from leasehold_broker.adapters.keys_gcp import GcpAt, GcpKeyAt, GcpKeys


class AzureToken:
    """A credential that is taken everywhere."""

    def get_token(self, *scopes, **_):
        """A token for Key Vault, and for nothing else."""
        assert scopes == (f"{RESOURCE}/.default",)
        return AccessToken("a.token", 4_000_000_000)


@contextlib.contextmanager
def google():
    """Secrets of Google, and what makes a store of some of them."""
    secrets = GoogleSecrets()
    stop = serve(secrets)
    try:
        at = GcpAt("project1", endpoint=secrets.address)
        yield secrets, lambda *names: GcpKeys(at, {name: GcpKeyAt(name) for name in names}, AnonymousCredentials())
    finally:
        stop()


@contextlib.contextmanager
def azure(folder):
    """Secrets of Azure, over TLS, and what makes a store of some of them."""
    secrets, authority, tls = AzureSecrets(), Authority(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*authority.issue().files(folder, "azure"))
    (folder / "ca.pem").write_bytes(authority.pem)
    stop = serve(secrets, tls)
    try:
        at, roots = AzureAt(secrets.address), str(folder / "ca.pem")
        yield secrets, lambda *names: AzureKeys(at, {name: AzureKeyAt(name) for name in names}, AzureToken(), roots)
    finally:
        stop()
