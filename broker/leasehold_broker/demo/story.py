"""The story: a capped lease from its grant to its audit, on real processes. Owns the order and the checks of claims.

Whatever it says, it has checked; a claim that does not hold ends the story with a non-zero exit code.
"""

import asyncio
import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leasehold_broker.demo import files
from leasehold_broker.demo.page import Page
from leasehold_broker.demo.processes import DemoFailedError, Finished
from leasehold_broker.demo.reckoning import reckon
from leasehold_broker.demo.stage import SIDECARS, Stage, broker, client

STORY_SECONDS_MAX = 180.0
RESEARCHERS = "agents/research/*"
PARTS = {"researcher": (SIDECARS[0], "agents/research/lead"), "reviewer": (SIDECARS[1], "agents/research/reviewer")}
CHAPTERS = {
    "lease": (
        "An agent acquires a lease",
        "Verified by its workload JWT; it gets a token that is scoped, capped, bound to its user, and no key.",
    ),
    "calls": (
        "The official SDKs, plain and streaming",
        "Nothing but base URL and lease token differs from a direct call. Cost of each as the broker charged it.",
    ),
    "refused": (
        "A model outside the lease's scope",
        "Refused before anything goes upstream, in the provider's own error shape, saying who refused.",
    ),
    "delegate": (
        "A sub-agent with a part of the budget",
        "A delegated lease only narrows; its cap is carved out of the parent's and the rest comes back.",
    ),
    "budget": (
        "The budget, to the micro-dollar",
        "No request states an output limit: the broker sets the largest that the rest pays for, then refuses.",
    ),
    "stream": (
        "Revoked in the middle of a stream",
        "Two agents stream at two sidecars; one command at the collector ends both.",
    ),
}


class Story:
    """One telling."""

    def __init__(self, root: Path, page: Page, real_keys: Mapping[str, str]) -> None:
        """Play below `root`; providers in `real_keys` are called for real."""
        self._page = page
        self._stage = Stage(root, real_keys)
        self._facts: dict[tuple[str, str], dict[str, Any]] = {}
        self._streaming = {part: asyncio.Event() for part in PARTS}
        self._at_stream = asyncio.Event()

    async def tell(self) -> None:
        """All chapters.

        Raises:
            DemoFailedError: a claim did not hold, or a process failed; the logs' last words have been printed.
        """
        try:
            async with asyncio.timeout(STORY_SECONDS_MAX):
                self._open()
                async with self._stage:
                    await self._chapters()
        except TimeoutError:
            message = f"the story took longer than {STORY_SECONDS_MAX:g} s"
            raise DemoFailedError(message) from None
        except BaseExceptionGroup as group:
            failure = _first(group)
            if failure is None:
                raise
            raise failure from None

    def last_words(self) -> str:
        """The ends of the logs."""
        return self._stage.processes.tails()

    async def _chapters(self) -> None:
        try:
            await self._stage_is_set()
            await self._agents()
            await self._exec()
            for name in SIDECARS:
                await self._stage.stop(name)
            await reckon(self._stage, self._page, self.check)
            self._no_key_anywhere()
        except BaseException:
            # Before the stage is taken down and the processes forgotten.
            words = self.last_words()
            if words:
                self._page.failed("last words of the processes:")
                self._page.output(words)
            raise

    def check(self, holds: object, claim: str, *, shown: bool = True) -> None:
        """Hold a claim.

        Raises:
            DemoFailedError: it does not hold.
        """
        if not holds:
            message = f"this should hold, and does not: {claim}"
            raise DemoFailedError(message)
        if shown:
            self._page.held(claim)

    def _open(self) -> None:
        self._page.title("leasehold: agents call paid APIs under leases and never hold a key")
        self._page.chapter(
            "The stage", "One collector, two sidecars, a key store, a policy and an OIDC issuer; all real, all local."
        )

    async def _stage_is_set(self) -> None:
        stage, page = self._stage, self._page
        for name, seconds in sorted(stage.started_seconds.items()):
            page.line(f"serving after {seconds:.1f} s", name)
        for provider in files.MODELS:
            if provider in stage.real:
                page.line("the real provider, with the key from your environment; caps of a few cents", provider)
            else:
                page.line("a stand-in that speaks the wire format, checks the key and keeps a book", provider)
        page.command("leasehold-broker keys list")
        arguments = ["list", "--store", str(stage.layout.keys), "--master-key-file", str(stage.layout.master_key)]
        page.output((await self._command(broker("keys", *arguments))).out)

    async def _agents(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._act("researcher"))
            await self._at_stream.wait()
            group.create_task(self._act("reviewer"))
            for streaming in self._streaming.values():
                await streaming.wait()
            await self._revoke()
        self._check_facts()
        await self._check_cuts()

    async def _act(self, part: str) -> None:
        sidecar, subject = PARTS[part]
        environment = {
            "LEASEHOLD_SOCKET": self._stage.sidecar_target(sidecar),
            "LEASEHOLD_TOKEN_FILE": str(self._stage.workload(part, subject, team="research")),
        }
        arguments = [sys.executable, "-m", "leasehold_broker.demo.agent", part]
        running = await self._stage.processes.start(part, arguments, environment=environment, read_output=True)
        if running.process.stdout is None:
            raise DemoFailedError("an agent has no output")
        async for line in running.process.stdout:
            self._hear(part, json.loads(line))
        code = await running.process.wait()
        if code != 0:
            message = f"the {part} ended with code {code}"
            raise DemoFailedError(message)

    def _hear(self, part: str, message: dict[str, Any]) -> None:
        if "say" in message:
            self._page.line(message["say"], part)
            return
        name = message.pop("fact")
        if name == "chapter":
            self._page.chapter(*CHAPTERS[message["title"]])
            if message["title"] == "stream":
                self._at_stream.set()
            return
        self._facts[part, name] = message
        if name == "streaming":
            self._streaming[part].set()
        self._check_fact(name, message)

    def _check_fact(self, name: str, values: dict[str, Any]) -> None:
        if name == "lease":
            self.check(not values["keys"], "the agent's process holds no provider key")
        elif name == "refused":
            refusal = (values["by"], values["reason"])
            self.check(refusal == ("leasehold", "MODEL_NOT_ALLOWED"), "the refusal names leasehold and the reason")
        elif name == "delegated":
            self.check(values["carved"] == 10_000, "the parent's budget shrank by exactly the child's cap")
            self.check(values["wider"] == "MODEL_NOT_ALLOWED", "a child cannot be wider than its parent")
            self.check(values["returned"], "exactly what the child did not spend came back")
        elif name == "budget":
            self.check(values["reason"] == "BUDGET_EXHAUSTED", "the last call was refused, the ones before were not")
            balance = values["settled"] + values["remaining"] == values["cap"] and values["held"] == 0
            self.check(balance, f"spent + left = cap, to the micro-dollar: {values['settled']} of {values['cap']}")

    def _check_facts(self) -> None:
        for fact in (("researcher", fact) for fact in ("lease", "refused", "delegated", "budget", "spent", "cut")):
            self.check(fact in self._facts, f"the {fact[0]} came to {fact[1]}", shown=False)

    async def _revoke(self) -> None:
        note = "demo: suspected prompt injection"
        arguments = ["revoke", "--subject", RESEARCHERS, "--note", note]
        self._page.command(f"leasehold {shlex.join(arguments)}")
        finished = await self._command(client(*arguments))
        self._page.output(finished.out)

    async def _check_cuts(self) -> None:
        finished = await self._command(client("audit", "query", "--type", "revocation.issued", "--json"))
        issued_ms = int(json.loads(finished.out.splitlines()[-1])["event"]["wall_ms"])
        for part in PARTS:
            cut = self._facts.get((part, "cut"), {})
            self.check("LEASE_REVOKED" in cut.get("refusal", ""), f"the {part}'s SDK was told why", shown=False)
            self.check(cut.get("state") == "revoked", f"the {part}'s lease is revoked", shown=False)
            after = cut["wall_ms"] - issued_ms
            self._page.held(f"{part}: cut {after} ms after the revocation was committed; its SDK was told who and why")

    async def _exec(self) -> None:
        self._page.chapter(
            "leasehold exec: any program, unchanged",
            "For agents whose code you do not touch: ten lines, no import of us.",
        )
        script = Path(__file__).with_name("agent_small.py")
        arguments = ["exec", "--provider", "anthropic", "--budget", "0.05"]
        self._page.command(f"leasehold {shlex.join(arguments)} -- python agent_small.py")
        environment = {
            "LEASEHOLD_SOCKET": self._stage.sidecar_target(SIDECARS[0]),
            "LEASEHOLD_TOKEN_FILE": str(self._stage.workload("nightly", "jobs/nightly", team="platform")),
            "ANTHROPIC_API_KEY": "left-over-in-the-shell",
        }
        finished = await self._command(client(*arguments, "--", sys.executable, str(script)), environment)
        self._page.output(finished.out + finished.err)
        self.check("leasehold: spent 0." in finished.err, "it says what was spent", shown=False)
        self.check("ANTHROPIC_API_KEY" in finished.err, "a key that lay in the environment was taken out of it")

    async def _command(self, arguments: list[str], environment: Mapping[str, str] | None = None) -> Finished:
        finished = await self._stage.processes.run(arguments, environment=environment)
        if finished.code != 0:
            message = f"{shlex.join(arguments[-4:])} ended with code {finished.code}: {finished.err.strip()}"
            raise DemoFailedError(message)
        return finished

    def _no_key_anywhere(self) -> None:
        secrets = [key.encode() for key in (*self._stage.stand_in_keys.values(), *self._stage.real.values())]
        found = [
            path
            for path in self._stage.layout.root.rglob("*")
            if path.is_file() and any(secret in path.read_bytes() for secret in secrets)
        ]
        self.check(not found, "no file of the demo holds a key in the clear: not the logs, the state or the audit log")


def _first(group: BaseExceptionGroup[BaseException]) -> DemoFailedError | None:
    for error in group.exceptions:
        found = _first(error) if isinstance(error, BaseExceptionGroup) else error
        if isinstance(found, DemoFailedError):
            return found
    return None
