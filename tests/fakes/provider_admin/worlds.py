"""A provider with a minter, each behind the same handles: the parameters of the contract of `ProviderKeys`."""

import json
import sys
import uuid
from contextlib import contextmanager
from pathlib import Path

from moto.iam.models import iam_backends
from tests.fakes.manual_clock import ManualClock
from tests.fakes.planted import on_purpose
from tests.fakes.provider_admin import anthropic, azure, google, iam, openrouter, program, webhook
from tests.fakes.provider_admin.openai import ACCOUNTS_MAX, PROJECT, OpenAIAdmin
from tests.fakes.provider_admin.server import ADMIN_KEY, AdminFake, Fault, serving

from leasehold_broker.adapters.system_clock import SystemClock
from leasehold_broker.config.minters import (
    AnthropicMinter,
    AwsAccessKeyMinter,
    AzureMinter,
    BedrockMinter,
    ExecMinter,
    GoogleMinter,
    OpenAIMinter,
    OpenRouterMinter,
    Reset,
    WebhookMinter,
)
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.secret import Secret
from leasehold_broker.wiring.minters import Minters

KEY = "agents-prod"
ADMIN = "the-admin-key"


class AdminKeys:
    """The key store, as far as minters read it."""

    def __init__(self) -> None:
        """With one admin key."""
        self.value = ADMIN_KEY

    def records(self):
        """Nothing to lease."""
        return ()

    def find(self, name):
        """As above."""
        del name

    async def secret(self, name, models=(), holder=None):
        """The admin key, or why not."""
        del models, holder
        if name != ADMIN or not self.value:
            raise Refusal(Reason.KEY_UNAVAILABLE, f"no key {name!r}")
        return Secret(self.value.encode())


class World:
    """One provider and our minter of it.

    `makes` is what a regular expression finds in the request that makes a key.
    """

    makes = ""

    def __init__(self) -> None:
        """No minter yet."""
        self.admin_keys = AdminKeys()
        self.current = ""
        self.clock = ManualClock()
        self.made: list[Minters] = []

    def table(self):
        """The table of the configuration."""
        raise NotImplementedError

    def minter(self):
        """A minter that knows nothing of earlier ones: what a restart after a crash has."""
        minters = Minters({KEY: self.table()}, self.admin_keys, self.clock)
        self.made.append(minters)

        async def current():
            return Secret(self.current.encode())

        return minters.build(KEY, current)

    async def aclose(self):
        """Close every client."""
        for minters in self.made:
            await minters.aclose()

    def living(self) -> list[str]:
        """Values that the provider takes."""
        raise NotImplementedError

    def revive(self, key_id: str) -> None:
        """Somebody undoes a switch-off at the provider."""
        raise NotImplementedError

    def fill(self) -> None:
        """It keeps no more keys."""
        raise NotImplementedError

    def lose_answer(self) -> None:
        """The next key is made, and nobody is told."""
        raise NotImplementedError

    def fail(self, status: int, headers: dict | None = None) -> None:
        """The next request is answered so."""
        raise NotImplementedError


class AtFake(World):
    """A fake of an admin API over HTTP."""

    fake: AdminFake
    origin = ""

    def living(self):
        """See above."""
        return self.fake.living()

    def lose_answer(self):
        """See above."""
        self.fake.faults.append(Fault(0, self.makes, effect=True))

    def fail(self, status, headers=None):
        """See above."""
        self.fake.faults.append(Fault(status, headers=headers or {}))


class AtOpenAI(AtFake):
    """A project of an organisation."""

    makes = "^POST .*/service_accounts "

    def __init__(self) -> None:
        """With a hundred others' keys, so that lists have pages."""
        super().__init__()
        self.fake = OpenAIAdmin()

    def table(self):
        """See above."""
        return OpenAIMinter(ADMIN, PROJECT, origin=self.origin)

    def fill(self):
        """See above."""
        for number in range(ACCOUNTS_MAX):
            self.fake.accounts[f"svc_acct_other{number}"] = f"other {number}"


class AtProgram(World):
    """A program of the operator's."""

    def __init__(self, folder: Path) -> None:
        """Its state is a file."""
        super().__init__()
        self.state = on_purpose(folder / "keys.json")
        self.script = folder / "minter"
        self.script.write_text(f"#!{sys.executable} -I\n" + Path(program.__file__).read_text())
        self.script.chmod(0o755)
        self.write(admin_key=ADMIN_KEY, keys={}, runs=[], faults=[], serial=0, keys_max=10)
        self.can_disable = True

    def revive(self, key_id):
        """See above."""
        keys = self.read()["keys"]
        del keys[key_id]["inactive"]
        self.write(keys=keys)

    def table(self):
        """See above."""
        return ExecMinter(str(self.script), (str(self.state),), ADMIN, 120.0, self.can_disable)

    def read(self) -> dict:
        """Its state."""
        return json.loads(self.state.read_text())

    def write(self, **changes) -> None:
        """Change its state."""
        known = self.read() if self.state.exists() else {}
        fresh = self.state.with_suffix(".new")
        fresh.write_text(json.dumps(known | changes))
        fresh.rename(self.state)

    def living(self):
        """See above."""
        return [one["value"] for one in self.read()["keys"].values() if not one.get("inactive")]

    def fill(self):
        """See above."""
        self.write(keys_max=len(self.read()["keys"]))

    def lose_answer(self):
        """It is killed, or breaks, before it says what it made."""
        self.write(faults=[{"on": "mint", "says": ""}])

    def fail(self, status, headers=None):
        """Its own statuses for ours; it has none for a login, and no seconds to wait."""
        del headers
        self.write(faults=[{"status": {401: 77, 403: 77, 429: 75, 503: 69}[status]}])


class AtGoogle(AtFake):
    """A project, whose operations take a while."""

    makes = "^POST .*/keys "

    def __init__(self) -> None:
        """With others' keys, on more than one page."""
        super().__init__()
        self.fake = google.GoogleAdmin()
        for number in range(10):
            self.fake.add(f"other-{number}", {"displayName": f"other {number}"})

    def table(self):
        """See above."""
        return GoogleMinter(ADMIN, google.PROJECT, (google.SERVICE,), origin=self.origin)

    def revive(self, key_id):
        """See above: undelete."""
        self.fake.keys[key_id].deleted = False

    def fill(self):
        """See above."""
        for number in range(google.KEYS_MAX):
            self.fake.add(f"more-{number}", {"displayName": "more"})


class AtOpenRouter(AtFake):
    """An account."""

    makes = "^POST .*/keys "

    def __init__(self) -> None:
        """Without keys."""
        super().__init__()
        self.fake = openrouter.OpenRouterAdmin()

    def table(self):
        """See above."""
        return OpenRouterMinter(ADMIN, "", 25, Reset.MONTHLY, self.origin)

    def revive(self, key_id):
        """See above."""
        self.fake.keys[key_id][1]["disabled"] = False

    def fill(self):
        """See above."""
        for number in range(openrouter.KEYS_MAX):
            self.fake.add({"name": f"other {number}"})


class AtAzure(AtFake):
    """An account with two keys, of which the first is in use."""

    makes = "^POST .*/regenerateKey "

    def __init__(self) -> None:
        """As a new account."""
        super().__init__()
        self.fake = azure.AzureAdmin()
        self.current = self.fake.keys["key1"]

    def table(self):
        """See above."""
        return AzureMinter(ADMIN, azure.SUBSCRIPTION, azure.GROUP, azure.ACCOUNT, self.origin)


class AtAnthropic(AtFake):
    """An organisation, in whose console somebody makes keys."""

    def __init__(self) -> None:
        """With others' keys, on more than one page."""
        super().__init__()
        self.fake = anthropic.AnthropicAdmin()
        for number in range(7):
            self.fake.add(f"other {number}", "wrkspc_other")

    def table(self):
        """See above."""
        return AnthropicMinter(ADMIN, origin=self.origin)


class AtIam(AtFake):
    """An IAM user of moto's, behind a proxy."""

    makes = "^POST /$"
    """Of no use alone: every action goes there."""
    action = ""

    def __init__(self, moto: str) -> None:
        """A user of its own."""
        super().__init__()
        self.fake = iam.IamAdmin(moto=moto)
        self.user = f"agents-{uuid.uuid4().hex[:12]}"
        self.admin_keys.value = f"{iam.ADMIN_ID}:{iam.ADMIN_SECRET}"
        self.users = iam_backends["123456789012"]["aws"]
        self.users.create_user("us-east-1", self.user)

    def lose_answer(self):
        """See above."""
        self.fake.faults.append(Fault(0, effect=True, on=f"Action={self.action}&"))


class AtAccessKeys(AtIam):
    """Access keys."""

    action = "CreateAccessKey"

    def table(self):
        """See above."""
        return AwsAccessKeyMinter(self.user, ADMIN, endpoint=self.origin)

    def living(self):
        """See above."""
        keys = self.users.get_user(self.user).access_keys
        return [f"{key.access_key_id}:{key.secret_access_key}" for key in keys if key.status == "Active"]

    def revive(self, key_id):
        """See above."""
        self.users.update_access_key(self.user, key_id, "Active")

    def fill(self):
        """See above."""
        while len(self.living()) < 2:
            self.users.create_access_key(self.user)


class AtBedrock(AtIam):
    """Bedrock's API keys."""

    action = "CreateServiceSpecificCredential"

    def table(self):
        """See above."""
        return BedrockMinter(self.user, ADMIN, age_days=90, endpoint=self.origin)

    def living(self):
        """See above."""
        return [one["ServiceCredentialSecret"] for one in self.fake.bedrock.values() if one["Status"] == "Active"]

    def revive(self, key_id):
        """See above."""
        self.fake.bedrock[key_id]["Status"] = "Active"

    def fill(self):
        """See above."""
        for number in range(2):
            self.fake.bedrock[f"ACCAOTHER{number}"] = {
                "UserName": self.user,
                "ServiceSpecificCredentialId": f"ACCAOTHER{number}",
                "ServiceCredentialAlias": f"BedrockAPIKey-o{number}-at-123456789012",
                "ServiceCredentialSecret": f"ABSKother{number}",
                "Status": "Active",
                "ServiceName": iam.BEDROCK,
                "CreateDate": "2026-11-25T19:00:00Z",
            }


class AtWebhook(AtFake):
    """A service of the operator's."""

    makes = "^POST /keys "

    def __init__(self) -> None:
        """Without keys. It looks at the clock of the machine."""
        super().__init__()
        self.fake = webhook.WebhookService()
        self.admin_keys.value = webhook.SIGNING_KEY
        self.can_disable = True
        self.clock = SystemClock()

    def table(self):
        """See above."""
        return WebhookMinter(f"{self.origin}/keys?tenant=a", ADMIN, can_disable=self.can_disable)

    def revive(self, key_id):
        """See above."""
        del self.fake.keys[key_id]["inactive"]

    def fill(self):
        """See above."""
        self.fake.keys_max = len(self.fake.keys)


AT_FAKES = {
    "openai": AtOpenAI,
    "google": AtGoogle,
    "openrouter": AtOpenRouter,
    "azure": AtAzure,
    "anthropic": AtAnthropic,
    "webhook": AtWebhook,
}
AT_AWS = {"aws-access-key": AtAccessKeys, "bedrock": AtBedrock}


@contextmanager
def world_of(kind: str, folder: Path, moto: str = ""):
    """A world of this kind."""
    if kind == "exec":
        yield AtProgram(folder)
        return
    world = AT_AWS[kind](moto) if kind in AT_AWS else AT_FAKES[kind]()
    with serving(world.fake) as world.origin:
        yield world
