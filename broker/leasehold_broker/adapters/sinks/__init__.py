"""Places outside that get a copy of the log (port `EventSink`), or what humans are told of it (`AlertEndpoint`)."""

from leasehold_broker.adapters.sinks.alerts import PagerDutyEndpoint, SlackEndpoint, WebhookEndpoint
from leasehold_broker.adapters.sinks.encoding import Format
from leasehold_broker.adapters.sinks.file import FileSink
from leasehold_broker.adapters.sinks.http_post import HttpTarget
from leasehold_broker.adapters.sinks.otlp import OtlpSink
from leasehold_broker.adapters.sinks.own_thread import OwnThread
from leasehold_broker.adapters.sinks.syslog import SyslogSink, SyslogTarget, Transport
from leasehold_broker.adapters.sinks.webhook import WebhookSink

__all__ = [
    "FileSink",
    "Format",
    "HttpTarget",
    "OtlpSink",
    "OwnThread",
    "PagerDutyEndpoint",
    "SlackEndpoint",
    "SyslogSink",
    "SyslogTarget",
    "Transport",
    "WebhookEndpoint",
    "WebhookSink",
]
