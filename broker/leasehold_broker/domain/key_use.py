"""Which versions of a key a sidecar uses: what a rotation waits for before it ends the old one."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KeyUse:
    """One key at one sidecar.

    Args:
        key: its name.
        serving_version: what the next call would use; 0: none can be had now.
        oldest_version: the oldest that a call in flight, or a lease that was handed the key, still uses; 0: none does.
    """

    key: str
    serving_version: int
    oldest_version: int

    def older_than(self, version: int) -> bool:
        """True while a version below this one is used, or would be."""
        return 0 < self.serving_version < version or 0 < self.oldest_version < version
