"""Files that decide something and change under a running sidecar, said loudly: a log line, an event, a number."""

import structlog

from leasehold_broker.flows.books import Books
from leasehold_broker.flows.version_changes import COMPLAINTS_MAX, VersionChanges

REFUSED = "new version of a file refused, the one before stays in force"
log = structlog.get_logger("leasehold.files")


class FileNews:
    """The hooks of one such source."""

    def __init__(self, what: str, changes: VersionChanges, books: Books) -> None:
        """Tell these of each change; `what` names the source: "policy", "prices"."""
        self.what = what
        self.is_refused = False
        """True while the newest files are not in force because something is wrong with them."""
        self._changes = changes
        self._books = books

    def loaded(self, version: str) -> None:
        """A version came into force."""
        self.is_refused = False
        log.info("file loaded", file=self.what, version=version)
        self._changes.loaded(version)

    def rejected(self, complaints: tuple[str, ...]) -> None:
        """A version was refused; the one before stays in force."""
        self.is_refused = True
        log.error(REFUSED, file=self.what, complaints=complaints[:COMPLAINTS_MAX])
        self._changes.rejected(complaints, self._books)
