"""A provider with a minter, each behind the same handles: the parameters of the contract of `ProviderKeys`."""

import json
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.fakes.provider_admin import program
from tests.fakes.provider_admin.openai import ACCOUNTS_MAX, PROJECT, OpenAIAdmin
from tests.fakes.provider_admin.server import ADMIN_KEY, AdminFake, Fault, serving

from leasehold_broker.config.minters import ExecMinter, OpenAIMinter
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

    async def secret(self, name, models=()):
        """The admin key, or why not."""
        del models
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
        self.made: list[Minters] = []

    def table(self):
        """The table of the configuration."""
        raise NotImplementedError

    def minter(self):
        """A minter that knows nothing of earlier ones: what a restart after a crash has."""
        minters = Minters({KEY: self.table()}, self.admin_keys)
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

    makes = "^POST .*/service_accounts$"

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
        self.state = folder / "keys.json"
        self.script = folder / "minter"
        self.script.write_text(f"#!{sys.executable} -I\n" + Path(program.__file__).read_text())
        self.script.chmod(0o755)
        self.write(admin_key=ADMIN_KEY, keys={}, runs=[], faults=[], serial=0, keys_max=10)

    def table(self):
        """See above."""
        return ExecMinter(str(self.script), (str(self.state),), ADMIN, 120.0)

    def read(self) -> dict:
        """Its state."""
        return json.loads(self.state.read_text())

    def write(self, **changes) -> None:
        """Change its state."""
        known = self.read() if self.state.exists() else {}
        self.state.write_text(json.dumps(known | changes))

    def living(self):
        """See above."""
        return [one["value"] for one in self.read()["keys"].values()]

    def fill(self):
        """See above."""
        self.write(keys_max=len(self.read()["keys"]))

    def lose_answer(self):
        """It is killed, or breaks, before it says what it made."""
        self.write(faults=[{"says": ""}])

    def fail(self, status, headers=None):
        """Its own statuses for ours; it has none for a login, and no seconds to wait."""
        del headers
        self.write(faults=[{"status": {401: 77, 403: 77, 429: 75, 503: 69}[status]}])


@contextmanager
def world_of(kind: str, folder: Path):
    """A world of this kind."""
    with ExitStack() as stack:
        if kind == "exec":
            yield AtProgram(folder)
            return
        world = {"openai": AtOpenAI}[kind]()
        world.origin = stack.enter_context(serving(world.fake))
        yield world
