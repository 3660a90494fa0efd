"""A network of one's own for a stage: a namespace with nothing but loopback, and a packet filter on it.

What a thread starts from within it, threads and processes, is within it too; nothing of the machine's own network is
touched. Owns the namespace and the rules; needs root, and nftables' `nft`.
"""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.unkind.real_house import run

CLONE_NEWNET = 0x40000000
TABLE = "inet leasehold"
_LIBC = ctypes.CDLL(None, use_errno=True)


def why_not() -> str:
    """Why there can be none here; "" when there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("nft") is None:
        return "nftables is not installed (nft)"
    probe = ("unshare", "--net", "nft", "add", "table", *TABLE.split())
    if subprocess.run(probe, check=False, capture_output=True, timeout=60).returncode != 0:
        return "a namespace with a packet filter cannot be made here (unshare --net nft add table)"
    return ""


@contextmanager
def own_network() -> Iterator[None]:
    """This thread, and whatever it starts, in a network of its own."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        _checked(_LIBC.unshare(CLONE_NEWNET))
        try:
            run("ip", "link", "set", "lo", "up")
            run("nft", f"add table {TABLE}; add chain {TABLE} wire {{ type filter hook input priority 0; }}")
            yield
        finally:
            _checked(_LIBC.setns(before, CLONE_NEWNET))
    finally:
        os.close(before)


@contextmanager
def filtered(*rules: str) -> Iterator[None]:
    """With these rules on every packet that arrives, such as "tcp dport 7443 drop"; without them at the end."""
    run("nft", "; ".join(f"add rule {TABLE} wire {rule}" for rule in rules))
    try:
        yield
    finally:
        run("nft", f"flush chain {TABLE} wire")


def port_of(origin: str) -> int:
    """Of "http://127.0.0.1:4711"."""
    return int(origin.rpartition(":")[2])


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
