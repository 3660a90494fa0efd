"""Ports for servers that must be told theirs before they start, and keep it while they are down."""

import contextlib
import random
import socket
from pathlib import Path

LOWEST = 10_000
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """A port on loopback that nobody listens on, and that is nobody else's while this process lives.

    It lies below those that the kernel hands out by itself: no connection, and no server that takes any port, comes
    before the server it is meant for. Other processes that ask here are kept away by a name that we hold.
    """
    lowest_handed_out = int(_RANGE.read_text().split()[0])
    # Where the kernel hands out all of them, one is as good as another.
    end = lowest_handed_out if lowest_handed_out > 2 * LOWEST else 1 << 16
    chance = random.SystemRandom()
    for _ in range(1000):
        port = chance.randrange(LOWEST, end)
        name = socket.socket(socket.AF_UNIX)
        with contextlib.closing(name), socket.socket() as probe, contextlib.suppress(OSError):
            name.bind(f"\0leasehold-tests-port-{port}")
            probe.bind(("127.0.0.1", port))
            name.detach()  # held until this process ends
            return port
    message = f"no port is free between {LOWEST} and {end}"
    raise RuntimeError(message)
