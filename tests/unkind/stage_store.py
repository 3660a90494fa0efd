"""Where a stage's collector has its log. Owns taking the one file's place, so that no test runs on it unnoticed."""

ONE_FILE = "[store]\ndisk_reserve_mib = 8\n"


def kept_in(store: str, config: str) -> str:
    """A stage's collector.toml with this [store] in place of its own.

    Raises:
        ValueError: there is no such place.
    """
    if config.count(ONE_FILE) != 1:
        message = f"a stage's collector no longer says {ONE_FILE!r}; correct ONE_FILE"
        raise ValueError(message)
    return config.replace(ONE_FILE, store)
