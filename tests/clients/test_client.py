"""The blocking client against a server on the real wire."""

import contextlib
import dataclasses
import gc
import logging
import os
import pickle
import re
import traceback
import uuid
import warnings
from collections.abc import Iterator

import grpc
import pytest
from tests.clients.conftest import JWT

from leasehold import (
    BudgetExhausted,
    IdentityRejected,
    InvalidRequest,
    LeaseEnded,
    LeaseholdClient,
    LeaseholdError,
    NotFound,
    PermissionDenied,
    Scope,
    Unavailable,
    Violation,
)
from leasehold.errors import ADVICE, FAMILY_OF_REASON
from leasehold.v1 import types_pb2 as types

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


def test_a_lease_is_acquired_used_and_released(client, leases):
    """What is asked for goes out exactly, and leaving the block releases."""
    with client.acquire(
        provider="openai", models=["gpt-5*"], budget="2.50", ttl="30m", requests=7, purpose="demo", labels={"run": "1"}
    ) as lease:
        request = leases.requests("AcquireLease")[0]

        assert lease.token.reveal() == "lhs_secret-1"
        assert lease.endpoint().base_url == "http://127.0.0.1:9/openai/v1"
        assert [(scope.provider, list(scope.models)) for scope in request.scopes] == [("openai", ["gpt-5*"])]
        assert {(1, 2_500_000), (4, 7)} == {(limit.metric, limit.amount) for limit in request.limits}
        assert request.ttl.seconds == 1800
        assert uuid.UUID(request.request_id).version == 4
        leases.charge(lease.name, 12_345)
        assert lease.remaining() == 2_487_655
        assert lease.info.own("cost_micro_usd").settled == 12_345

    assert [lease.name] == [request.name for request in leases.requests("ReleaseLease")]
    assert lease.info.state == "released"


def test_every_call_carries_the_marker_and_the_token(client, leases):
    """Metadata holds the static key and the workload token on each call."""
    list(client.leases())

    _, _, metadata = leases.calls[0]
    assert ("1", f"Bearer {JWT}") == (metadata["leasehold"], metadata["authorization"])


def test_the_token_file_is_read_at_each_use(client, leases, token_file):
    """A rotated file is used by the next call, without a new client."""
    list(client.leases())
    token_file.write_text("bmV3.bmV3.bmV3")
    list(client.leases())

    assert [metadata["authorization"] for _, _, metadata in leases.calls] == ["Bearer " + JWT, "Bearer bmV3.bmV3.bmV3"]


def test_a_token_that_was_rotated_during_the_call_is_sent_once_more(client, leases, token_file, monkeypatch):
    """A refusal that raced the rotation of the file is no error."""
    fresh = "bmV3.bmV3.bmV3"
    leases.accepted_tokens = {fresh}
    original = leases._enter

    def rotate_then_enter(method, request, context):
        token_file.write_text(fresh)
        original(method, request, context)

    monkeypatch.setattr(leases, "_enter", rotate_then_enter)

    assert list(client.leases()) == []
    assert len(leases.calls) == 2


def test_a_refused_token_is_not_sent_again(client, leases):
    """The same token is refused once and not repeated."""
    leases.accepted_tokens = set()

    with pytest.raises(IdentityRejected) as caught:
        list(client.leases())

    assert (
        caught.value.reason,
        caught.value.request_id,
        len(leases.calls),
    ) == ("IDENTITY_REJECTED", "req-from-server", 1)


def test_unavailable_is_tried_again_with_the_same_request_id(client, leases):
    """Retries cannot acquire twice: the request id stays."""
    leases.fail_next("AcquireLease", UNAVAILABLE, "STARTING", retry_after=0.05)
    leases.fail_next("AcquireLease", UNAVAILABLE)

    with client.acquire(provider="anthropic"):
        ids = {request.request_id for request in leases.requests("AcquireLease")}

    assert (len(leases.requests("AcquireLease")), len(ids)) == (3, 1)


def test_an_answer_that_was_lost_gives_the_same_lease(client, leases):
    """A lease that was granted but not answered is found again by the retry."""
    leases.answers_to_lose = 1

    with client.acquire(provider="anthropic") as lease:
        assert {lease.name} == leases.leases.keys()
        assert len(leases.requests("AcquireLease")) == 2


@pytest.mark.parametrize("code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.ABORTED])
def test_nothing_else_is_tried_again(client, leases, code):
    """Only UNAVAILABLE is safe to repeat without asking."""
    leases.fail_next("AcquireLease", code)

    with pytest.raises(LeaseholdError):
        client.acquire(provider="anthropic")

    assert len(leases.requests("AcquireLease")) == 1


def test_a_wait_longer_than_the_deadline_is_the_callers(client, leases):
    """RetryInfo beyond the deadline is handed out instead of slept through."""
    leases.fail_next("AcquireLease", UNAVAILABLE, "CENTRE_UNREACHABLE", retry_after=60)

    with pytest.raises(Unavailable) as caught:
        client.acquire(provider="anthropic")

    assert (caught.value.retry_after, caught.value.reason) == (60.0, "CENTRE_UNREACHABLE")
    assert "60 s" in caught.value.next_step


def test_rich_details_are_read(client, leases):
    """Reason, budget, wait and request id come out of the details."""
    leases.fail_next(
        "AcquireLease",
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "BUDGET_EXHAUSTED",
        "nothing is left today",
        retry_after=1.5,
        budget="subject/day",
    )

    with pytest.raises(BudgetExhausted) as caught:
        client.acquire(provider="anthropic")

    error = pickle.loads(pickle.dumps(caught.value))
    assert (Violation("subject/day", "used up"),) == error.violations
    assert (error.retry_after, error.request_id) == (1.5, "req-from-server")
    assert "nothing is left today. [BUDGET_EXHAUSTED] Next: " in str(error)


def test_a_field_of_the_server_is_named(client, leases):
    """A BadRequest names its field."""
    leases.fail_next("AcquireLease", grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID", field="ttl")

    with pytest.raises(InvalidRequest) as caught:
        client.acquire(provider="anthropic")

    assert caught.value.violations[0].subject == "ttl"


def test_every_reason_has_a_family():
    """Each reason of the contract maps to an exception that says what to do next."""
    reasons = {
        name.removeprefix("REASON_") for name in types.DESCRIPTOR.enum_types_by_name["Reason"].values_by_name
    } - {"UNSPECIFIED"}

    assert set() == reasons - FAMILY_OF_REASON.keys()
    assert all(ADVICE.get(reason, family.advice) for reason, family in FAMILY_OF_REASON.items())


@contextlib.contextmanager
def patient_for(client: LeaseholdClient, seconds: float) -> Iterator[None]:
    """Calls that nobody answers are given up so soon; those that are answered have all the time of a busy machine."""
    before = client.link.settings
    client.link.settings = dataclasses.replace(before, timeout_seconds=seconds)
    yield
    client.link.settings = before


def test_a_channel_is_replaced_after_a_restart(leases, running, token_file):
    """A server that went away and came back on the same path is found again."""
    with LeaseholdClient(running.target, token_file, timeout_seconds=60) as client:
        list(client.leases())
        before = client.link._channel
        running.stop()
        with patient_for(client, 1.0), pytest.raises(Unavailable) as caught:
            list(client.leases())
        running.start()
        list(client.leases())

        assert caught.value.reason == "SIDECAR_UNREACHABLE"
        assert before is not client.link._channel


def test_a_channel_that_hangs_is_replaced(leases, running, token_file):
    """Two calls without any answer make a new channel: the old one may be half-open."""
    with LeaseholdClient(running.target, token_file, timeout_seconds=60) as client:
        leases.silent.add("GetLease")
        list(client.leases())
        before = client.link._channel
        for _ in range(2):
            with patient_for(client, 0.2), pytest.raises(Unavailable) as caught:
                client.get("leases/1")
        leases.silent.clear()

        with pytest.raises(NotFound):
            client.get("leases/1")
        assert caught.value.reason == "DEADLINE_EXCEEDED"
        assert before is not client.link._channel


def test_the_target_comes_from_the_environment(monkeypatch):
    """LEASEHOLD_SOCKET, then LEASEHOLD_ADDRESS, then the well-known path."""
    with LeaseholdClient(token=JWT) as client:
        assert client.link.settings.target == "unix:///run/leasehold/agent.sock"
    monkeypatch.setenv("LEASEHOLD_ADDRESS", "broker.internal:7443")
    with LeaseholdClient(token=JWT) as client:
        assert client.link.settings.tls is not None
    monkeypatch.setenv("LEASEHOLD_SOCKET", "/tmp/x.sock")
    with LeaseholdClient(token=JWT) as client:
        assert client.link.settings.target == "unix:///tmp/x.sock"


@pytest.mark.parametrize(
    ("token", "text"),
    [("not-a-jwt", "given as text"), (lambda: "a b", "from a callable"), ("/nowhere/token", "file /nowhere/token")],
)
def test_a_bad_token_is_refused_before_sending(running, leases, token, text):
    """A token that is no JWT never reaches the wire, nor the message."""
    with LeaseholdClient(running.target, token) as client, pytest.raises(IdentityRejected, match=text) as caught:
        list(client.leases())

    assert leases.calls == []
    assert "a b" not in str(caught.value)
    assert "not-a-jwt" not in str(caught.value)


def test_secrets_are_never_shown(client, leases, caplog):
    """Neither token appears in a repr, a log line or a traceback."""
    caplog.set_level(logging.DEBUG)
    lease = client.acquire(provider="anthropic")
    leases.fail_next("GetLease", grpc.StatusCode.INTERNAL)
    with pytest.raises(LeaseholdError) as caught:
        lease.refresh()
    with pytest.raises(TypeError):
        pickle.dumps(lease.token)
    lease.release()

    shown = "".join(traceback.format_exception(caught.value)) + caplog.text
    shown += f"{lease!r}{lease.token!r}{lease.token!s}{lease.token:>40}{lease.info!r}{client.link._identity!r}"
    shown += repr(vars(lease)) + repr(vars(lease._state)) + repr(vars(client.link))
    assert "lhs_secret" not in shown
    assert JWT not in shown


def test_a_delegated_lease_dies_with_its_parent(client, leases):
    """A child is carved from its parent, and the parent's release ends both."""
    with client.acquire(provider="anthropic", budget="1") as parent:
        child = parent.delegate(budget="0.25", binding_uid=1000)

        assert (parent.name, 1000) == (child.info.parent, leases.requests("DelegateLease")[0].binding.uid)
    with pytest.raises(LeaseEnded, match="ended"):
        child.renew()
    child.close()


def test_a_validated_lease_has_no_token(client, leases):
    """validate_only asks what would be granted and holds nothing."""
    with client.acquire(provider="anthropic", validate_only=True) as lease, pytest.raises(InvalidRequest):
        lease.token.reveal()

    assert leases.requests("ReleaseLease") == []


def test_a_denial_says_what_to_do(client):
    """A policy denial is its own exception and advises against retrying."""
    with pytest.raises(PermissionDenied, match="do not retry"):
        client.acquire(provider="mistral")


def test_requests_that_cannot_be_right_are_not_sent(client, leases):
    """Nothing to reach, a name instead of a list, or two ways of saying it are refused locally."""
    for wrong in (
        {},
        {"provider": "openai", "models": "gpt-5"},
        {"models": ["x"]},
        {"provider": "openai", "scopes": [Scope("anthropic")]},
        {"provider": "openai", "budget": 2.5},
        {"provider": "openai", "requests": 0},
    ):
        with pytest.raises(InvalidRequest):
            client.acquire(**wrong)

    assert leases.calls == []


def test_leases_are_listed_over_pages(client):
    """All pages are read."""
    held = [client.acquire(provider="anthropic") for _ in range(5)]

    assert [lease.name for lease in held] == [info.name for info in client.leases()]
    for lease in held:
        lease.release()
    assert len(list(client.leases(include_ended=True))) == 5


def test_watch_ends_with_the_lease(client, leases):
    """A watch gives each change and stops after the last; the handle knows that it is lost."""
    lost = []
    lease = client.acquire(provider="anthropic", budget="1", on_lost=lambda _, error: lost.append(error.reason))
    states = []
    for info in lease.watch():
        states.append((info.state, info.own("cost_micro_usd").settled))
        if len(states) == 1:
            leases.charge(lease.name, 5)
        elif len(states) == 2:
            leases.revoke(lease.name)

    assert states == [("active", 0), ("active", 5), ("revoked", 5)]
    assert (lease.lost.is_set(), lost) == (True, ["LEASE_REVOKED"])


def test_a_watch_survives_a_broken_stream(client, leases):
    """A stream that breaks is opened again."""
    with client.acquire(provider="anthropic") as lease:
        leases.fail_next("WatchLease", UNAVAILABLE)
        first = next(lease.watch())

    assert first.state == "active"
    assert len(leases.requests("WatchLease")) == 2


def test_a_forgotten_lease_warns_and_stops_renewing(client, leases):
    """A handle that nobody released says so when it is collected."""
    lease = client.acquire(provider="anthropic")
    stop = lease._stop
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del lease
        gc.collect()

    assert [ResourceWarning] == [each.category for each in caught]
    assert re.search("leases/1 active.* never released", str(caught[0].message))
    assert stop.is_set()


def test_release_is_quiet_when_the_lease_has_gone(client, leases):
    """Releasing what the broker no longer knows is no error (renewal may race a shutdown)."""
    with client.acquire(provider="anthropic") as lease:
        leases.leases.clear()

    assert [lease.name] == [request.name for request in leases.requests("ReleaseLease")]


def test_a_failing_release_does_not_hide_the_blocks_own_error(client, leases, caplog):
    """What the block raised comes out, and the log says that the lease ends by itself."""
    leases.fail_next("ReleaseLease", grpc.StatusCode.INTERNAL)

    with pytest.raises(KeyError), client.acquire(provider="anthropic"):
        raise KeyError

    assert "ends by itself" in caplog.text


def test_a_forked_child_leaves_the_lease_to_its_parent(client, leases):
    """Leaving the block in a child process releases nothing."""
    with client.acquire(provider="anthropic") as lease:
        lease._state._pid = os.getpid() + 1
        with lease:
            pass

        assert leases.requests("ReleaseLease") == []
        lease._state._pid = os.getpid()
