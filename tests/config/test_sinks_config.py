"""The collector's sinks: what loads, and what is refused with a sentence that says what to change."""

import pytest
from tests.config.test_collector_config import GOOD, write

from leasehold_broker.config import ConfigError, load_collector
from leasehold_broker.config.sinks import SinkKind

SINK = '[[sinks]]\nname = "siem"\n'


def test_sinks_load(tmp_path):
    """Kinds with their places; relative files are the configuration's."""
    (tmp_path / "token").touch(0o600)
    text = GOOD + SINK + 'kind = "webhook"\nurl = "https://siem.example/in"\nbearer_file = "token"\nrequired = true\n'
    text += '[[sinks]]\nname = "lines"\nkind = "file"\npath = "audit.jsonl"\n'
    text += '[[sinks]]\nname = "sys"\nkind = "syslog"\naddress = "[::1]:514"\ntransport = "udp"\n'
    siem, lines, syslog = load_collector(write(tmp_path, text)).sinks
    assert (siem.kind, siem.required, siem.bearer_file) == (SinkKind.WEBHOOK, True, tmp_path / "token")
    assert lines.path == tmp_path / "audit.jsonl"
    assert (syslog.host, syslog.port) == ("::1", 514)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('kind = "webhook"', "needs url"),
        ('kind = "file"', "needs path"),
        ('kind = "syslog"', "needs address"),
        ('kind = "file"\npath = "a"\nurl = "https://a"', "a file has no url"),
        ('kind = "otlp"\nurl = "https://a"\nkey_file = "k"', "an? otlp has no key_file"),
        ('kind = "webhook"\nurl = "http://siem.example"', "use https"),
        ('kind = "webhook"\nurl = "ftp://siem.example"', "must be like https://"),
        ('kind = "webhook"\nurl = "https://[::1"', "must be like https://"),
        ('kind = "webhook"\nurl = "https://siem.example:99999"', "port above 65535"),
        ('kind = "webhook"\nurl = "https://user@siem.example"', "without a user"),
        ('kind = "syslog"\naddress = "127.0.0.1:514"\nrequired = true', "cannot be required"),
        ('kind = "syslog"\naddress = "10.0.0.1:514"\ntransport = "tcp"', 'use transport = "tls"'),
        ('kind = "syslog"\naddress = "siem"', "is not HOST:PORT"),
        ('kind = "syslog"\naddress = "siem:70000"', "is not HOST:PORT"),
        ('kind = "file"\npath = "a"\nlag_records_max = 0', "lag_records_max"),
        ('kind = "file"\npath = "a"\ntimeout_seconds = 0.0', "timeout_seconds"),
        ('kind = "carrier-pigeon"\npath = "a"', "carrier-pigeon"),
        ('kind = "file"\npath = "a"\nfolder = "b"', "folder"),
        ('kind = "webhook"\nurl = "https://a"\nbearer_file = "missing"', "bearer token file"),
        ('kind = "file"\npath = "a"\n[[sinks]]\nname = "siem"\nkind = "file"\npath = "b"', "is there twice"),
    ],
)
def test_a_wrong_sink_is_refused_by_name(tmp_path, lines, said):
    """Each refusal names the sink and the setting."""
    with pytest.raises(ConfigError, match=said):
        load_collector(write(tmp_path, GOOD + SINK + lines + "\n"))


def test_a_bearer_token_that_others_can_read_is_refused(tmp_path):
    """As every file with a secret."""
    (tmp_path / "token").touch(0o644)
    lines = 'kind = "webhook"\nurl = "https://siem.example"\nbearer_file = "token"\n'
    with pytest.raises(ConfigError, match="chmod 600"):
        load_collector(write(tmp_path, GOOD + SINK + lines))


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('origin = "a b"', "origin"),
        ('origin = "a+b"', "origin"),
        ("checkpoint_seconds = 0.0", "checkpoint_seconds"),
        ("checkpoint_seconds = 4000.0", "checkpoint_seconds"),
    ],
)
def test_a_wrong_audit_setting_is_refused_by_name(tmp_path, lines, said):
    """What a signed note cannot carry, and a pace that is none."""
    with pytest.raises(ConfigError, match=said):
        load_collector(write(tmp_path, GOOD + "[audit]\n" + lines + "\n"))
