"""What an operator does to a running sidecar: a new policy, a broken one, a key that is disabled, a stop."""

import signal
from contextlib import contextmanager

import openai
import pytest
from tests.e2e.conftest import eventually

from leasehold.errors import PermissionDenied
from leasehold.http import openai_kwargs
from leasehold_broker.demo.processes import serving
from leasehold_broker.demo.stage import broker
from leasehold_broker.wiring.sidecar_files import REFUSED

pytestmark = [pytest.mark.timeout(240)]
GPT = "gpt-6-luna"
LONG = {"model": GPT, "messages": [{"role": "user", "content": "Speak in 900 words."}], "max_completion_tokens": 2000}


@contextmanager
def frozen(process):
    """A process that does nothing for a while."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def events(alone, kind):
    """The events of a type, as the audit log has them."""
    with alone.operator() as operator:
        return [record.event() for record in operator.events(type=kind)]


def write(alone, text):
    """Put a policy in place at once, as a deployment does, and say so."""
    fresh = alone.policy.with_suffix(".new")
    fresh.touch(mode=0o600)
    fresh.write_text(text)
    fresh.replace(alone.policy)
    alone.signal(signal.SIGHUP)


def test_a_new_policy_comes_into_force_under_an_open_call(house, alone):
    """SIGHUP: what the new version takes away is refused from then on, and the stream that was open goes on."""
    with alone.client() as client:
        lease = client.acquire(provider="openai", budget="0.02", ttl="5m", renew=False)
        with openai.OpenAI(**openai_kwargs(lease), max_retries=0) as gpt:
            stream = iter(gpt.chat.completions.create(**LONG, stream=True))
            next(stream)
            with frozen(house.stage.serving("stand-in").process):
                write(alone, alone.policy.read_text().replace('"agents/research/*"', '"agents/other/*"'))
                assert eventually(lambda: len(events(alone, "policy.loaded")) == 2)
                with pytest.raises(PermissionDenied, match="POLICY_DENIED"):
                    client.acquire(provider="openai", budget="0.01", ttl="5m")
            chunks = sum(1 for _ in stream)
        [settled] = eventually(lambda: events(alone, "call.settled"))
        spent = client.get(lease.name).own("cost_micro_usd")
        lease.abandon()

    assert chunks > 100
    assert settled["details"]["end"] == "finished"
    assert (spent.held, spent.settled) == (0, settled["details"]["charged"]["cost_micro_usd"])


def test_a_bad_new_policy_is_refused_loudly_and_the_old_one_stays(alone):
    """It is in the log as an error, in the audit log, and in the metrics until it is mended; leases go on as before."""
    good = alone.policy.read_text()
    assert alone.metrics()['leasehold_newest_file_refused{file="policy"}'] == 0
    write(alone, good.replace("version = 1", "version = 9", 1))

    assert eventually(lambda: alone.metrics()['leasehold_newest_file_refused{file="policy"}'] == 1)
    [said] = alone.logged(REFUSED, "policy")
    assert said["level"] == "error"
    assert said["complaints"] == [f"{alone.policy}: version: must be 1, was 9"]
    [event] = eventually(lambda: events(alone, "policy.rejected"))
    assert event["details"]["complaints"] == said["complaints"]
    with alone.client() as client, client.acquire(provider="openai", budget="0.01", ttl="5m") as lease:
        assert lease.remaining() == 10_000

    write(alone, good)
    assert eventually(lambda: alone.metrics()['leasehold_newest_file_refused{file="policy"}'] == 0)


def test_sighup_alone_reads_the_policy_again(alone):
    """The signal does it, whether or not the file changed."""
    alone.signal(signal.SIGHUP)

    assert eventually(lambda: len(events(alone, "policy.loaded")) == 2)


def test_a_disabled_key_stops_its_calls_and_comes_back(house, alone):
    """`keys disable` and `enable` reach a running sidecar; a refused call costs nothing."""
    layout = house.stage.layout
    store = ["--store", str(layout.keys), "--master-key-file", str(layout.master_key)]

    def keys(command):
        finished = house.wait_for(house.stage.processes.run(broker("keys", command, "openai-demo", *store)))
        assert finished.code == 0, finished.err

    with (
        alone.client() as client,
        client.acquire(provider="openai", budget="0.01", ttl="5m") as lease,
        openai.OpenAI(**openai_kwargs(lease), max_retries=0) as gpt,
    ):

        def refused():
            try:
                gpt.chat.completions.create(model=GPT, messages=[{"role": "user", "content": "Hi"}])
            except openai.APIStatusError as error:
                return error.response.headers.get("leasehold-reason")
            return None

        assert refused() is None
        keys("disable")
        try:
            reason = eventually(refused)
            spent = lease.usage()[0].settled
            again = refused()
            spent_after = lease.usage()[0].settled
        finally:
            keys("enable")
        assert eventually(lambda: refused() is None)

    assert reason == again == "KEY_DISABLED"
    assert spent == spent_after


def test_metrics_count_what_happened(alone):
    """The numbers are those of the leases and calls that were just made, refusals by reason included."""
    with alone.client() as client, client.acquire(provider="openai", budget="0.01", ttl="5m") as lease:
        with openai.OpenAI(**openai_kwargs(lease), max_retries=0) as gpt:
            gpt.chat.completions.create(model=GPT, messages=[{"role": "user", "content": "Hi"}])
        with pytest.raises(PermissionDenied):
            client.acquire(provider="openai", budget="5", ttl="5m")
        shown = alone.metrics()
        spent = lease.usage()[0].settled

    assert {
        "leasehold_live_leases": 1,
        "leasehold_open_calls": 0,
        "leasehold_leases_issued_total": 1,
        "leasehold_calls_admitted_total": 1,
        "leasehold_calls_settled_total": 1,
        "leasehold_charged_micro_usd_total": spent,
        'leasehold_refusals_total{reason="SCOPE_EXCEEDED"}': 1,
    }.items() <= shown.items()


def test_a_stop_lets_a_call_finish_and_takes_no_new_one(house, alone):
    """SIGTERM: health says so, the open stream comes to its end, a new call is refused, the process leaves with 0."""
    with alone.client() as client:
        lease = client.acquire(provider="openai", budget="0.02", ttl="5m", renew=False)
        with openai.OpenAI(**openai_kwargs(lease), max_retries=0) as gpt:
            ask = {"model": GPT, "messages": [{"role": "user", "content": "Speak in 20 words."}]}
            stream = iter(gpt.chat.completions.create(**ask, stream=True))
            next(stream)
            with frozen(house.stage.serving("stand-in").process):
                alone.signal(signal.SIGTERM)
                assert eventually(lambda: alone.logged()[-1]["event"] == "stopping")
                assert not house.wait_for(serving(house.stage.layout.socket(alone.name)))
                with pytest.raises((openai.APIConnectionError, openai.InternalServerError)):
                    gpt.chat.completions.create(**ask)
            chunks = sum(1 for _ in stream)
        lease.abandon()
    code = alone.stop()

    assert (code, chunks > 1) == (0, True)
    assert [line["event"] for line in alone.logged()][-2:] == ["stopping", "stopped"]


def test_a_lease_ends_in_time_while_its_sidecar_drains(house, alone):
    """A drain may take minutes: a lease that expires meanwhile has its call cut then, not when the drain is over."""
    with alone.client() as client:
        lease = client.acquire(provider="openai", budget="0.02", ttl="5s", renew=False)
        with openai.OpenAI(**openai_kwargs(lease), max_retries=0) as gpt:
            stream = iter(gpt.chat.completions.create(**LONG, stream=True))
            next(stream)
            with frozen(house.stage.serving("stand-in").process):
                alone.signal(signal.SIGTERM)
                with pytest.raises(openai.APIError, match="LEASE_EXPIRED"):
                    for _ in stream:
                        pass
        lease.abandon()

    assert alone.stop() == 0
