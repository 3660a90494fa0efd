"""The fuzz targets by name, and their kept corpus. Owns nothing else."""

from collections.abc import Callable
from pathlib import Path

from tests.fuzz.bodies import form_gate, redaction
from tests.fuzz.gates import body_gate, key_set, token_gate
from tests.fuzz.protos import protos
from tests.fuzz.routes import plans, routing
from tests.fuzz.streams import header_blocks, http_codec, sse_meters

CORPUS = Path(__file__).parent.parent / "vectors" / "fuzz"
INPUT_BYTES_MAX = 1024
TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        *(token_gate, key_set, body_gate, sse_meters, routing, plans, protos, http_codec, header_blocks),
        *(form_gate, redaction),
    )
}


def corpus(name: str) -> list[bytes]:
    """The kept inputs of a target, in a fixed order."""
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]
