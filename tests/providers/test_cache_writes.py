"""The dearer rates of prompt caching are held only for requests that can cause them."""

import pytest

from leasehold_broker.domain.amounts import NO_CAPS
from leasehold_broker.domain.call import worst_case
from leasehold_broker.domain.price import ModelPrice, Rates
from leasehold_broker.providers.anthropic import Anthropic

PRICE = ModelPrice("m", Rates(1_000_000, 5_000_000, 100_000, 1_250_000, 2_000_000), (), 0, 0, "v1")
HEADERS = {"content-type": "application/json", "anthropic-version": "2023-06-01"}


def plan(body):
    """The plan of a Messages request."""
    provider = Anthropic()
    return provider.plan(provider.route("POST", "/v1/messages", ""), HEADERS, body, 100)


def request(**block):
    """A request of one text block with these further members."""
    content = [{"type": "text", "text": "hello", **block}]
    return {"model": "claude-x", "max_tokens": 1, "messages": [{"role": "user", "content": content}]}


def test_without_cache_control_the_plain_input_rate_is_held():
    """A request that switches no caching on holds its input once, not at the rate of a one-hour cache write."""
    asked = plan(request())
    held = worst_case(asked, PRICE, 0, NO_CAPS).amounts

    assert held.cost_micro_usd == asked.input_tokens_bound + 5


@pytest.mark.parametrize("where", ["block", "top"])
def test_with_cache_control_the_dearest_write_is_held(where):
    """Wherever caching is switched on, the dearest cache write is held: the bound stays sound (B12)."""
    control = {"type": "ephemeral", "ttl": "1h"}
    body = request(cache_control=control) if where == "block" else request() | {"cache_control": control}
    asked = plan(body)

    assert worst_case(asked, PRICE, 0, NO_CAPS).amounts.cost_micro_usd == 2 * asked.input_tokens_bound + 5
