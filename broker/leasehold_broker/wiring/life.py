"""A name for one life of a store: never used before, and later lives sort after earlier ones."""

import secrets
import time


def new_life() -> str:
    """Unix nanoseconds and chance."""
    return f"{time.time_ns():020d}-{secrets.token_hex(8)}"
