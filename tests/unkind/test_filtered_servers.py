"""Packets that vanish and connections that are reset between a collector and its PostgreSQL, and its NATS: nftables.

The stage runs in a network namespace of its own. Needs root and nftables; skipped, with the reason, without them.
"""

import os
from itertools import product

import pytest
from tests.unkind import servers_house
from tests.unkind.own_network import filtered, own_network, why_not

WHY_NOT = why_not() or servers_house.why_not()
pytestmark = [pytest.mark.timeout(600), pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)]
DROP, RESET = "drop", "reject with tcp reset"
WIDE = os.environ.get("FAULTS") == "all"
"""The whole is `make unkind`."""
EACH = list(product(("PostgreSQL", "NATS"), ("dport", "sport"), (DROP, RESET)))
FAULTS = EACH if WIDE else [("PostgreSQL", "dport", RESET)]


@pytest.fixture(scope="module")
def house():
    """One sidecar, its centre, and both servers."""
    with own_network(), servers_house.served() as house:
        yield house


@pytest.mark.parametrize(("server", "direction", "what"), FAULTS)
def test_a2_a3_r1_a_centre_without_a_wire_to_its_server_loses_nothing_and_heals(house, server, direction, what):
    """Calls go on or are refused by name; each is in the log once; a revocation is refused, or is in force."""
    stage = house.stage
    port = stage.database.server.port if server == "PostgreSQL" else stage.bus.port
    name = f"{server}-{direction}-{what.split()[0]}"
    servers_house.ride_out(house, name, lambda: filtered(f"tcp {direction} {port} {what}"))
