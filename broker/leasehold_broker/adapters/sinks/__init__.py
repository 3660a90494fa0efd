"""Places outside that get a copy of the log. One kind a file; each implements the port `EventSink`."""

from leasehold_broker.adapters.sinks.encoding import Format
from leasehold_broker.adapters.sinks.file import FileSink
from leasehold_broker.adapters.sinks.http_post import HttpTarget
from leasehold_broker.adapters.sinks.otlp import OtlpSink
from leasehold_broker.adapters.sinks.syslog import SyslogSink, SyslogTarget, Transport
from leasehold_broker.adapters.sinks.webhook import WebhookSink

__all__ = ["FileSink", "Format", "HttpTarget", "OtlpSink", "SyslogSink", "SyslogTarget", "Transport", "WebhookSink"]
