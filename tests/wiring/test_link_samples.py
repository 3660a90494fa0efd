"""What a monitoring system can see of a sidecar's tie to its collector."""

import pytest

from leasehold_broker.adapters.collector_link.link import LinkCounters
from leasehold_broker.domain.time import Instant
from leasehold_broker.wiring.sidecar_centre import Linked, OwnCentre

NOW = Instant(1, 1)


class Heard:
    """A collector that was heard, or was silent for so long."""

    def __init__(self, lapsed: float | None) -> None:
        """With this answer."""
        self._lapsed = lapsed

    def authority_lapsed_seconds(self, _now: Instant) -> float | None:
        """As the port says."""
        return self._lapsed


@pytest.mark.parametrize(("lapsed", "value"), [(None, 0), (0.5, 1)])
def test_a_collector_that_was_silent_for_too_long_shows(lapsed, value):
    """While the sidecar refuses everything for it."""
    told = {each.name: each.value for each in Linked(Heard(lapsed), "collector", LinkCounters()).samples(NOW)}
    assert told["authority_lapsed"] == value


def test_a_sidecar_that_runs_alone_has_no_link():
    """There is nobody to be silent."""
    assert list(Linked(OwnCentre(), "alone").samples(NOW)) == []
