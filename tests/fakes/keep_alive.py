"""What the fakes that speak HTTP/1.1 have in common. Owns that a kept connection answers at once."""


class KeepAlive:
    """For a BaseHTTPRequestHandler, before it: keeps connections, says nothing.

    The library writes an answer's head and body one after the other: with Nagle's algorithm the body waits for the
    client's acknowledgement of the head, which comes 40 ms later, request by request.
    """

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""
