"""A provider stand-in: one loopback server that speaks as Anthropic, OpenAI and Gemini do, with keys and counts.

It owns the wire formats of the three vendors as their official SDKs read them, refuses every key but its own, and keeps
a book of what it served. It knows nothing of the broker, so that it can contradict it.

Run by itself: `python -m leasehold_broker.demo.stand_in --keys-file FILE [--port 0] [--chunk-ms 5] [--journal FILE]`.
The keys file is a JSON object, provider to key, readable by its owner only. The first line on standard output is
{"origin": ...}.
"""

import asyncio
import functools
import json
import signal
import stat
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import click
from aiohttp import web

from leasehold_broker.demo.desk import Desk, Problem, Reset, Served, Voice, fingerprint
from leasehold_broker.demo.stand_in_anthropic import AnthropicVoice
from leasehold_broker.demo.stand_in_gemini import GeminiVoice
from leasehold_broker.demo.stand_in_openai import OpenAIVoice
from leasehold_broker.demo.stand_in_responses import Responses

VENDORS = (AnthropicVoice.name, GeminiVoice.name, OpenAIVoice.name)
BODY_BYTES_MAX = 32 * 1024 * 1024

Handler = Callable[[web.Request, Served], Awaitable[web.StreamResponse]]


class StandIn:
    """The server, for use within a process: `start`, `origin`, `served`, `stop`."""

    def __init__(self, keys: Mapping[str, str], *, chunk_ms: int = 0, journal: Path | None = None) -> None:
        """Prepare.

        Args:
            keys: provider to the one key that it takes.
            chunk_ms: pause before each chunk of a stream.
            journal: JSON-lines file for the book, beside `served`.
        """
        self._desk = Desk(keys, chunk_ms, journal)
        self._runner: web.AppRunner | None = None
        self.origin = ""

    @property
    def served(self) -> list[Served]:
        """The book: every request that ended, in that order."""
        return self._desk.served

    async def start(self, port: int = 0) -> None:
        """Listen on loopback; port 0 takes a free one."""
        self._runner = web.AppRunner(self._application(), handle_signals=False, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.origin = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Close, open streams included."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def _application(self) -> web.Application:
        application = web.Application(client_max_size=BODY_BYTES_MAX)
        anthropic, openai, gemini = AnthropicVoice(self._desk), OpenAIVoice(self._desk), GeminiVoice(self._desk)
        responses = Responses(self._desk)
        table: list[tuple[Voice, str, str, str, Handler]] = [
            (anthropic, "POST", "/v1/messages", "messages", anthropic.messages),
            (anthropic, "POST", "/v1/messages/count_tokens", "count_tokens", anthropic.count_tokens),
            (openai, "POST", "/v1/chat/completions", "chat.completions", openai.chat),
            (openai, "POST", "/v1/responses", "responses", responses.create),
            (openai, "POST", "/v1/embeddings", "embeddings", openai.embeddings),
        ]
        for version in ("v1", "v1beta"):
            base = f"/{version}/models/{{model:[^/:]+}}"
            table += [
                (gemini, "POST", f"{base}:generateContent", "generate_content", gemini.generate),
                (gemini, "POST", f"{base}:streamGenerateContent", "stream_generate_content", gemini.stream),
                (gemini, "POST", f"{base}:countTokens", "count_tokens", gemini.count_tokens),
                (gemini, "POST", f"{base}:embedContent", "embed_content", gemini.embed),
                (gemini, "POST", f"{base}:batchEmbedContents", "batch_embed_contents", gemini.embed_batch),
            ]
        for voice, method, path, operation, handler in table:
            application.router.add_route(method, path, functools.partial(self._serve, voice, operation, handler))
        # GET /v1/models is a path of all three vendors: the credential's place tells them apart.
        for path in ("/v1/models", "/v1/models/{model}", "/v1beta/models", "/v1beta/models/{model}"):
            one = path.endswith("}")

            async def models(request: web.Request, *, one: bool = one) -> web.StreamResponse:
                voice = _listed_by(request, anthropic, openai, gemini)
                operation = "models.get" if one else "models.list"
                return await self._serve(voice, operation, voice.model if one else voice.models, request)

            application.router.add_get(path, models)
        return application

    async def _serve(self, voice: Voice, operation: str, handler: Handler, request: web.Request) -> web.StreamResponse:
        credential = voice.credential(request)
        served = Served(voice.name, operation, fingerprint(credential))
        try:
            self._desk.check_key(voice.name, credential)
            return await handler(request, served)
        except Problem as problem:
            served.status = problem.status
            self._desk.write_down(served, "refused")
            headers = {"retry-after": "1"} if problem.status == 429 else {}
            return web.json_response(
                voice.problem(problem.status, problem.message), status=problem.status, headers=headers
            )
        except Reset:
            self._desk.write_down(served, "reset")
            if request.transport is not None:
                request.transport.abort()
            return web.Response()  # goes nowhere
        except (ConnectionResetError, asyncio.CancelledError):
            self._desk.write_down(served, "client_gone")
            raise


def _listed_by(
    request: web.Request, anthropic: AnthropicVoice, openai: OpenAIVoice, gemini: GeminiVoice
) -> AnthropicVoice | OpenAIVoice | GeminiVoice:
    if "anthropic-version" in request.headers:
        return anthropic
    return gemini if gemini.credential(request) else openai


def read_keys(path: Path) -> dict[str, str]:
    """The keys file.

    Raises:
        click.ClickException: open to others, or not provider to key.
    """
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        message = f"{path} is open to others; run: chmod 600 {path}"
        raise click.ClickException(message)
    try:
        keys = json.loads(path.read_bytes())
    except ValueError:
        keys = None
    if not isinstance(keys, dict) or not keys or not set(keys) <= set(VENDORS):
        message = f"{path} must be a JSON object with keys for {', '.join(VENDORS)}"
        raise click.ClickException(message)
    return {str(provider): str(key) for provider, key in keys.items()}


async def _run(stand_in: StandIn, port: int) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    await stand_in.start(port)
    click.echo(json.dumps({"origin": stand_in.origin}))
    try:
        await stopped.wait()
    finally:
        await stand_in.stop()


@click.command()
@click.option("--keys-file", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--port", default=0, show_default=True, type=click.IntRange(0, 65535))
@click.option("--chunk-ms", default=5, show_default=True, type=click.IntRange(0, 10_000))
@click.option("--journal", type=click.Path(dir_okay=False, path_type=Path))
def main(keys_file: Path, port: int, chunk_ms: int, journal: Path | None) -> None:
    """Serve until stopped."""
    asyncio.run(_run(StandIn(read_keys(keys_file), chunk_ms=chunk_ms, journal=journal), port))


if __name__ == "__main__":
    main()
