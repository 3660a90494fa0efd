"""How a provider is named on a command line. Owns the message about a name that is none."""

import click

from leasehold_broker.domain.scope import PROVIDER_RULE, is_provider


class ProviderType(click.ParamType[str]):
    """A vendor, or a host of the operator's own."""

    name = "provider"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name, checked."""
        if not is_provider(value):
            self.fail(f"{value!r}: {PROVIDER_RULE}", param, ctx)
        return value


PROVIDER = ProviderType()
