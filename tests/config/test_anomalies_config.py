"""The collector's anomalies: defaults, and what is refused with a sentence that says what to change."""

import pytest
from tests.config.test_collector_config import GOOD, write

from leasehold_broker.config import ConfigError, load_collector
from leasehold_broker.domain.responses import Response


def test_by_default_only_honeytokens_are_answered(tmp_path):
    """Statistics are off; a honeytoken blocks its subject, until lifted, at most five an hour."""
    at = load_collector(write(tmp_path, GOOD)).anomalies
    assert at.rules is None
    assert {kind for kind, response in at.responses.by_kind.items() if response is not Response.TELL} == {"honeytoken"}
    assert (at.responses.block_seconds, at.responses.revocations_per_hour_max) == (0, 5)


def test_thresholds_and_responses_load(tmp_path):
    """As they stand in the file."""
    text = GOOD + "[anomalies]\nenabled = true\nspend_multiple = 3\n"
    text += '[anomalies.respond]\nspend_rate = "revoke-lease"\nblock_seconds = 60\n'
    at = load_collector(write(tmp_path, text)).anomalies
    assert at.rules.spend_multiple == 3
    assert at.responses.by_kind["spend_rate"] is Response.REVOKE_LEASE
    assert at.responses.block_seconds == 60


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("[anomalies]\nspend_multiple = 0", "spend_multiple must be at least 1"),
        ("[anomalies]\nmagic = true", "magic"),
        ('[anomalies.respond]\nspend_rate = "delete-everything"', "delete-everything"),
        ("[anomalies.respond]\nblock_seconds = -1", "block_seconds"),
        ("[anomalies.respond]\nrevocations_per_hour_max = 100000", "revocations_per_hour_max"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(tmp_path, lines, said):
    """Each refusal names the setting."""
    with pytest.raises(ConfigError, match=said):
        load_collector(write(tmp_path, GOOD + lines + "\n"))
