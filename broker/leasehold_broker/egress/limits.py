"""Every bound of the egress, in one place, with its unit. Owns the defaults; refuses to read configuration."""

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class EgressLimits:
    """What one egress allows. Nothing in this room waits, buffers or counts without one of these.

    Args:
        connections_max: open connections; one more is closed before a byte of it is read.
        connections_per_peer_max: of these, by one uid or certificate: a neighbour without any lease must not hold all.
        requests_per_caller_max: in work at once of one caller behind a trusted proxy, whose connections all share.
        request_line_bytes_max: method, target and version.
        head_bytes_max: request line and all header lines.
        headers_max: header lines of one request.
        head_seconds: from the first byte of a head to its end.
        body_bytes_max: one decoded body. SDKs send images as base64.
        body_chunks_max: chunks of one chunked body; tiny chunks cost time, not memory.
        body_seconds: from the end of the head to the end of the body.
        body_grace_seconds, body_bytes_per_second_min: after the grace, the body's average must be at least this.
        bodies_bytes_max: bodies of all connections together, by their declared length.
        bodies_bytes_per_peer_max: of these, by one uid or certificate: slow bodies of one must not shut out the others.
        surplus_bytes_max: bytes that may follow a request before its answer; they are never parsed.
        idle_seconds: a kept-alive connection without a request.
        linger_seconds: reading on after a refusal, so that the caller can read it before we close.
        stall_seconds: the caller takes no byte of an answer.
        write_buffer_bytes_max: answer bytes waiting for a slow caller before the upstream is paused.
        drain_seconds: calls in flight may finish in this time after the drain began; then they are cut.
        tick_seconds: how often deadlines are looked at; each may be overrun by this.
    """

    connections_max: int = 1024
    connections_per_peer_max: int = 512
    requests_per_caller_max: int = 128
    request_line_bytes_max: int = 8 * KIB
    head_bytes_max: int = 32 * KIB
    headers_max: int = 100
    head_seconds: float = 10.0
    body_bytes_max: int = 8 * MIB
    body_chunks_max: int = 16384
    body_seconds: float = 120.0
    body_grace_seconds: float = 5.0
    body_bytes_per_second_min: int = KIB
    bodies_bytes_max: int = 256 * MIB
    bodies_bytes_per_peer_max: int = 128 * MIB
    surplus_bytes_max: int = 64 * KIB
    idle_seconds: float = 75.0
    linger_seconds: float = 2.0
    stall_seconds: float = 60.0
    write_buffer_bytes_max: int = 64 * KIB
    drain_seconds: float = 20.0
    tick_seconds: float = 0.25

    def __post_init__(self) -> None:
        """Hold every bound above zero.

        Raises:
            ValueError: a bound is zero or negative; names it.
        """
        for name in self.__slots__:
            if getattr(self, name) <= 0:
                message = f"{name} must be above zero, got {getattr(self, name)}"
                raise ValueError(message)
