"""The collector's endpoints for alerts: what loads, and what is refused with a sentence that says what to change."""

import pytest
from tests.config.test_collector_config import GOOD, write

from leasehold_broker.config import ConfigError, load_collector
from leasehold_broker.config.alerts import PAGERDUTY_URL, AlertKind
from leasehold_broker.domain.alert_rules import Severity

ALERTS = '[[alerts]]\nname = "pager"\n'


def test_endpoints_load(tmp_path):
    """Kinds with their places; relative files are the configuration's; no secret is in the configuration."""
    for name in ("slack.url", "routing.key", "hook.key"):
        (tmp_path / name).touch(0o600)
    text = GOOD + ALERTS + 'kind = "pagerduty"\nkey_file = "routing.key"\nseverity_min = "critical"\n'
    text += '[[alerts]]\nname = "chat"\nkind = "slack"\nurl_file = "slack.url"\nwindow_seconds = 60\n'
    text += '[[alerts]]\nname = "hook"\nkind = "webhook"\nurl = "https://a.example"\nkey_file = "hook.key"\n'
    pager, chat, hook = load_collector(write(tmp_path, text)).alerts
    assert (pager.url, pager.key_file, pager.severity_min) == (
        PAGERDUTY_URL,
        tmp_path / "routing.key",
        Severity.CRITICAL,
    )
    assert (chat.kind, chat.url, chat.url_file, chat.window_seconds) == (
        AlertKind.SLACK,
        "",
        tmp_path / "slack.url",
        60,
    )
    assert hook.key_file == tmp_path / "hook.key"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('kind = "slack"', "needs url_file"),
        ('kind = "slack"\nurl = "https://hooks.slack.example/secret"', "a slack has no url"),
        ('kind = "pagerduty"', "needs key_file"),
        ('kind = "pagerduty"\nurl_file = "a"\nkey_file = "b"', "a pagerduty has no url_file"),
        ('kind = "webhook"', "either url or url_file"),
        ('kind = "webhook"\nurl = "https://a"\nurl_file = "b"', "either url or url_file"),
        ('kind = "webhook"\nurl = "http://a.example"', "use https"),
        ('kind = "webhook"\nurl = "https://a"\nwindow_seconds = 0', "window_seconds"),
        ('kind = "webhook"\nurl = "https://a"\ntimeout_seconds = 0.0', "timeout_seconds"),
        ('kind = "webhook"\nurl = "https://a"\nseverity_min = "panic"', "panic"),
        ('kind = "webhook"\nurl = "https://a"\nkey_file = "missing"', "alert key file"),
        ('kind = "webhook"\nurl = "https://a"\n' + ALERTS + 'kind = "webhook"\nurl = "https://a"', "is there twice"),
    ],
)
def test_a_wrong_endpoint_is_refused_by_name(tmp_path, lines, said):
    """Each refusal names the endpoint and the setting."""
    with pytest.raises(ConfigError, match=said):
        load_collector(write(tmp_path, GOOD + ALERTS + lines + "\n"))


def test_a_secret_that_others_can_read_is_refused(tmp_path):
    """As every file with a secret."""
    (tmp_path / "slack.url").touch(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_collector(write(tmp_path, GOOD + ALERTS + 'kind = "slack"\nurl_file = "slack.url"\n'))
