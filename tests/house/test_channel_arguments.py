"""gRPC takes any channel argument and ignores those that it does not know: each of ours must be one that it knows."""

import re
from pathlib import Path

from grpc._cython import cygrpc

ROOT = Path(__file__).parents[2]
ARGUMENT = re.compile(r'\(\s*"(grpc\.[a-z0-9_.]+)",')


def test_every_channel_argument_is_known_to_the_library():
    """A misspelt limit is no limit: two pings a minute once cut every link of a fleet every four minutes."""
    library = Path(cygrpc.__file__).read_bytes()
    found = {
        name
        for room in ("broker/leasehold_broker", "clients/python/src")
        for path in (ROOT / room).rglob("*.py")
        for name in ARGUMENT.findall(path.read_text(encoding="utf-8"))
    }
    assert len(found) > 20
    assert {name for name in found if name.encode() not in library} == set()
