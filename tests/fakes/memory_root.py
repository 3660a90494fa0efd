"""A secret engine in memory that stands on a credential of its own. Implements `EngineRoot`; the test breaks it."""

from leasehold_broker.ports.provider_keys import ProviderKeyFault, ProviderKeyState


class MemoryRoot:
    """The engine and what it logs in to, which takes the newest credential alone."""

    def __init__(self) -> None:
        """All is well."""
        self.made = ["first-root"]
        self.issued: list[str] = []
        self.broken: ProviderKeyFault | None = None
        self.denied = False
        self.checks = 0

    def taken(self, credential: str) -> bool:
        """Whether this is the credential that is taken."""
        return credential == self.made[-1]

    async def check(self) -> None:
        """See the port."""
        self.checks += 1
        if self.broken is not None:
            raise self.broken
        self.issued.append(f"user-{self.checks}")
        self.issued.pop()

    async def rotate(self) -> None:
        """See the port."""
        if self.denied:
            raise ProviderKeyFault(ProviderKeyState.DENIED, "may not rotate-root")
        if self.broken is not None:
            raise self.broken
        self.made.append(f"root-planted-{len(self.made)}")
