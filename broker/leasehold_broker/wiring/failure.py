"""The one way a running process gives up."""


class ProcessFailedError(Exception):
    """The process must not go on: its disk failed, or its socket was taken over. A supervisor restarts it."""
