"""The demo's agent: the official SDKs of the three vendors, the leasehold client, and no key.

It runs as a process of its own and knows two things: the socket of its sidecar and the file with its workload token.
It tells the story what it sees, one JSON line each: {"say": ...} for the reader, {"fact": ..., ...} for the story to
check.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
from google import genai

from leasehold import LeaseHandle, LeaseholdClient, LeaseholdError, Scope, Usage
from leasehold.http import STRIPPED_VARIABLES, anthropic_kwargs, child_environment, google_kwargs, openai_kwargs

CLAUDE, GPT, GEMINI, EMBEDDING = "claude-haiku-5-5", "gpt-6-luna", "gemini-3.5-flash-lite", "text-embedding-3-small"
FORBIDDEN = "claude-opus-5-5"
SMALL_BUDGET = "0.002"
CALLS_MAX = 40
CUT_AFTER_EVENTS = 12
ASK = "Say in 24 words why a lease is better than a key."
LONG = "Tell the story of a lease in 900 words."
VERY_LONG = "Tell the story of a lease in 6000 words."


def say(text: str) -> None:
    """To the reader."""
    sys.stdout.write(json.dumps({"say": text}) + "\n")
    sys.stdout.flush()


def fact(name: str, **values: Any) -> None:
    """To the story, which checks it."""
    sys.stdout.write(json.dumps({"fact": name, **values}) + "\n")
    sys.stdout.flush()


def usd(micro_usd: int) -> str:
    """Micro-USD as dollars."""
    return f"${micro_usd / 1_000_000:.6f}"


def own(lease: LeaseHandle) -> Usage:
    """How the lease's own cap on cost stands."""
    return next(usage for usage in lease.usage() if (usage.budget, usage.metric) == ("lease", "cost_micro_usd"))


def main() -> None:
    """Play one part."""
    with LeaseholdClient() as client:
        if sys.argv[1] == "researcher":
            researcher(client)
        else:
            reviewer(client)


def researcher(client: LeaseholdClient) -> None:
    """The main part: one lease for everything, then one for each lesson."""
    keys = sorted(STRIPPED_VARIABLES & os.environ.keys())
    scopes = [
        Scope("anthropic", models=(CLAUDE,)),
        Scope("openai", models=(GPT, EMBEDDING)),
        Scope("gemini", models=(GEMINI,)),
    ]
    fact("chapter", title="lease")
    with client.acquire(scopes=scopes, budget="0.05", ttl="5m", purpose="demo") as lease:
        reach = ", ".join(endpoint.provider for endpoint in lease.endpoints)
        say(f"{lease.name}: {reach}; cap {usd(own(lease).cap or 0)}; {lease.seconds_left:.0f} s")
        say(f"what the SDKs get as API key: {lease.token!r}, good at this sidecar for this user only")
        say(f"provider keys in this process's environment: {len(keys)}")
        fact("lease", lease=lease.name, keys=keys)
        fact("chapter", title="calls")
        calls(lease)
        fact("chapter", title="refused")
        refused(lease)
        fact("chapter", title="delegate")
        delegate(lease)
        fact("spent", lease=lease.name, settled=own(lease).settled)
    fact("chapter", title="budget")
    budget(client)
    fact("chapter", title="stream")
    stream_until_cut(client)


def calls(lease: LeaseHandle) -> None:
    """Plain and streaming, on all three SDKs."""
    before = own(lease).settled

    def told(what: str, text: str | None) -> None:
        nonlocal before
        now = own(lease).settled
        shown = " ".join((text or "").split())[:32]
        say(f"{what:<34} {usd(now - before)}  {shown}{'...' if shown else ''}")
        fact("call", what=what, cost=now - before)
        before = now

    with anthropic.Anthropic(**anthropic_kwargs(lease)) as claude:
        ask: Any = {"model": CLAUDE, "max_tokens": 300, "messages": [{"role": "user", "content": ASK}]}
        answer = claude.messages.create(**ask)
        told("anthropic messages", "".join(block.text for block in answer.content if block.type == "text"))
        with claude.messages.stream(**ask) as stream:
            told("anthropic messages, streamed", "".join(stream.text_stream))
    with openai.OpenAI(**openai_kwargs(lease)) as gpt:
        chat = gpt.chat.completions.create(model=GPT, messages=[{"role": "user", "content": ASK}])
        told("openai chat.completions", chat.choices[0].message.content)
        chunks = gpt.chat.completions.create(model=GPT, messages=[{"role": "user", "content": ASK}], stream=True)
        told(
            "openai chat.completions, streamed",
            "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices),
        )
        told("openai responses", gpt.responses.create(model=GPT, input=ASK, store=False).output_text)
        vectors = gpt.embeddings.create(model=EMBEDDING, input=[ASK]).data
        told("openai embeddings", f"{len(vectors[0].embedding)} dimensions")
    gemini = genai.Client(**google_kwargs(lease))
    told("gemini generateContent", gemini.models.generate_content(model=GEMINI, contents=ASK).text)
    pieces = gemini.models.generate_content_stream(model=GEMINI, contents=ASK)
    told("gemini generateContent, streamed", "".join(piece.text or "" for piece in pieces))
    gemini.close()


def refused(lease: LeaseHandle) -> None:
    """A model outside the scope."""
    with anthropic.Anthropic(**anthropic_kwargs(lease)) as claude:
        try:
            claude.messages.create(model=FORBIDDEN, max_tokens=10, messages=[{"role": "user", "content": ASK}])
        except anthropic.PermissionDeniedError as error:
            headers = error.response.headers
            say(f"asked for {FORBIDDEN}: anthropic.{type(error).__name__}, HTTP {error.status_code}")
            say(f"refused by: {headers['leasehold-refused-by']}; reason: {headers['leasehold-reason']}")
            fact("refused", by=headers["leasehold-refused-by"], reason=headers["leasehold-reason"])


def budget(client: LeaseholdClient) -> None:
    """Spend until the broker refuses, without ever stating an output limit."""
    ask: Any = {"model": GPT, "messages": [{"role": "user", "content": LONG}]}
    reason = ""
    with (
        client.acquire(provider="openai", models=[GPT], budget=SMALL_BUDGET, ttl="5m") as lease,
        openai.OpenAI(**openai_kwargs(lease), max_retries=0) as gpt,
    ):
        for number in range(1, CALLS_MAX):
            before = own(lease)
            try:
                answer = gpt.chat.completions.create(**ask)
            except openai.APIStatusError as error:
                reason = error.response.headers.get("leasehold-reason", "")
                who = reason or "the provider's own"
                say(f"call {number}: openai.{type(error).__name__}, HTTP {error.status_code}, {who}")
                if reason:
                    break
                # The provider finds what is left too little to answer at all. Ask for more than is left.
                ask["max_completion_tokens"] = 4096
                continue
            after = own(lease)
            cut = ", shortened to what is left" if answer.choices[0].finish_reason == "length" else ""
            spent = usd(after.settled - before.settled)
            say(f"call {number}: {spent} spent, {usd(after.remaining or 0)} left{cut}")
        left = own(lease)
        say(f"cap {usd(left.cap or 0)} = spent {usd(left.settled)} + left {usd(left.remaining or 0)}")
        amounts = {"cap": left.cap, "settled": left.settled, "held": left.held, "remaining": left.remaining}
        fact("budget", lease=lease.name, reason=reason, **amounts)


def delegate(lease: LeaseHandle) -> None:
    """A sub-agent in a process of its own, with a part of the budget; it cannot widen what it was given."""
    before = own(lease)
    with lease.delegate(provider="anthropic", models=[CLAUDE], budget="0.01", purpose="sub-agent") as child:
        carved = own(lease)
        say(f"{child.name}: anthropic only; {usd(own(child).cap or 0)} out of the parent's")
        environment, _ = child_environment(child, os.environ)
        for name in ("LEASEHOLD_SOCKET", "LEASEHOLD_TOKEN_FILE"):
            environment.pop(name, None)  # the sub-agent has the lease and no identity of its own
        script = Path(__file__).with_name("agent_small.py")
        spoken = subprocess.run(  # noqa: S603 - our own script, our own interpreter
            [sys.executable, str(script), ASK], env=environment, capture_output=True, text=True, timeout=60, check=True
        )
        say(f"sub-agent says: {spoken.stdout.strip()}")
        wider = ""
        try:
            lease.delegate(provider="anthropic", models=[FORBIDDEN], budget="0.01").release()
        except LeaseholdError as error:
            wider = error.reason
            say(f"delegating {FORBIDDEN}, which the parent itself may not use: {error.reason}")
        spent = own(child).settled
    after = own(lease)
    say(f"sub-agent done: {usd(spent)} spent, the rest of its budget is the parent's again")
    fact(
        "delegated",
        lease=child.name,
        carved=(before.remaining or 0) - (carved.remaining or 0),
        spent=spent,
        wider=wider,
        returned=(after.remaining or 0) == (before.remaining or 0) - spent,
    )


def reviewer(client: LeaseholdClient) -> None:
    """The agent at the other sidecar: it only streams."""
    stream_until_cut(client, provider="openai")


def stream_until_cut(client: LeaseholdClient, provider: str = "anthropic") -> None:
    """Stream until a responder ends it."""
    lease = client.acquire(provider=provider, budget="0.04", ttl="5m", purpose="long stream")
    events, refusal = 0, ""
    try:
        for _ in words(lease, provider):
            events += 1
            if events == CUT_AFTER_EVENTS:
                say(f"{lease.name}: {provider} is streaming; {events} events so far")
                fact("streaming", lease=lease.name)
    except (anthropic.APIError, openai.APIError) as error:
        refusal = f"{type(error).__module__.partition('.')[0]}.{type(error).__name__}: {message_of(error)}"
    cut_ms = time.time_ns() // 1_000_000
    state = client.get(lease.name)
    say(f"cut after {events} events: {refusal.partition(';')[0]}")
    fact("cut", lease=lease.name, events=events, refusal=refusal, wall_ms=cut_ms, state=state.state)
    lease.abandon()


def message_of(error: anthropic.APIError | openai.APIError) -> str:
    """The provider's, or leasehold's, own sentence, without the SDK's wrapping."""
    body: Any = error.body
    while isinstance(body, dict) and isinstance(body.get("error"), dict):
        body = body["error"]
    return str(body["message"]) if isinstance(body, dict) and "message" in body else str(error)


def words(lease: LeaseHandle, provider: str) -> Iterator[object]:
    """A long answer, event by event."""
    messages: Any = [{"role": "user", "content": VERY_LONG}]
    if provider == "anthropic":
        with (
            anthropic.Anthropic(**anthropic_kwargs(lease), max_retries=0) as claude,
            claude.messages.stream(model=CLAUDE, max_tokens=8000, messages=messages) as stream,
        ):
            yield from stream
    else:
        with openai.OpenAI(**openai_kwargs(lease), max_retries=0) as gpt:
            yield from gpt.chat.completions.create(
                model=GPT, messages=messages, stream=True, max_completion_tokens=8000
            )


if __name__ == "__main__":
    main()
