"""What happens when processes die: a sidecar killed in the middle of a stream, a collector that falls silent."""

import time

import anthropic
import openai
import pytest
from tests.e2e.conftest import AUTHORITY_SECONDS, eventually

from leasehold.audit import verify
from leasehold.http import anthropic_kwargs, openai_kwargs

pytestmark = [pytest.mark.timeout(180)]
CLAUDE, GPT = "claude-haiku-5-5", "gpt-6-luna"


def asked(text):
    """One user message."""
    return [{"role": "user", "content": text}]


def read_until_broken(stream):
    """Read a stream to its bad end."""
    for _ in stream:
        pass


def test_a_sidecar_killed_in_a_stream_charges_the_hold(fragile_house):
    """After kill -9 the lease is as it was, the open call is charged at its worst case, and the audit chain holds."""
    house = fragile_house
    with house.client() as client:
        lease = client.acquire(provider="openai", budget="0.01", ttl="5m", renew=False)
        with openai.OpenAI(**openai_kwargs(lease), max_retries=0) as gpt:
            finished = gpt.chat.completions.create(model=GPT, messages=asked("Speak in 30 words."))
            before = lease.usage()[0].settled
            stream = gpt.chat.completions.create(
                model=GPT, messages=asked("Speak in 900 words."), stream=True, max_completion_tokens=2000
            )
            next(iter(stream))
            held = lease.usage()[0].held
            house.wait_for(house.stage.crash("sidecar-a"))
            with pytest.raises(openai.APIConnectionError):
                read_until_broken(stream)
        house.wait_for(house.stage.start("sidecar-a"))

        after = next(usage for usage in lease.usage() if usage.budget == "lease")
        lease.abandon()

    assert finished.usage.completion_tokens == 36
    assert held >= 1000
    assert (before + held, 0) == (after.settled, after.held)
    with house.operator() as operator:
        [charged] = eventually(
            lambda: [
                event
                for record in operator.events(type="call.settled", lease=lease.name)
                if (event := record.event())["details"].get("estimated")
            ]
        )
        verdict = verify(((str(record.position), record) for record in operator.events()), operator.heads())
    assert charged["details"]["charged"]["cost_micro_usd"] == held
    assert verdict.holds


def test_the_token_works_again_after_a_restart(fragile_house):
    """A lease outlives its sidecar's restart: state, binding and budget are where they were."""
    house = fragile_house
    with house.client() as client, client.acquire(provider="anthropic", budget="0.01", ttl="5m") as lease:
        with anthropic.Anthropic(**anthropic_kwargs(lease)) as claude:
            claude.messages.create(model=CLAUDE, max_tokens=50, messages=asked("Hello"))
        spent = lease.usage()[0].settled
        house.wait_for(house.stage.stop("sidecar-a"))
        house.wait_for(house.stage.start("sidecar-a"))

        assert lease.usage()[0].settled == spent > 0


def test_a_silent_collector_stops_calls_and_its_return_lets_them_go_on(fragile_house):
    """Without the collector a sidecar refuses within its limit, says why, and recovers by itself."""
    house = fragile_house
    with house.client("sidecar-b") as client:
        lease = client.acquire(provider="anthropic", budget="0.01", ttl="5m", renew=False)
        with anthropic.Anthropic(**anthropic_kwargs(lease), max_retries=0) as claude:

            def refused():
                try:
                    claude.messages.create(model=CLAUDE, max_tokens=50, messages=asked("Hello"))
                except anthropic.InternalServerError as error:
                    return error.status_code, error.response.headers.get("leasehold-reason")
                return None

            assert eventually(lambda: refused() is None)
            house.wait_for(house.stage.crash("collector"))
            silent_until = time.monotonic() + AUTHORITY_SECONDS
            reason = eventually(refused)
            while time.monotonic() < silent_until:
                time.sleep(0.05)
            past_the_limit = refused()
            house.wait_for(house.stage.start("collector"))
            recovered = eventually(lambda: refused() is None)
        lease.abandon()

    assert reason == past_the_limit == (503, "CENTRE_UNREACHABLE")
    assert recovered
