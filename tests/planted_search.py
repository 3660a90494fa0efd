"""After the whole suite, no planted key is in anything that a test left or said. Owns the search, as hooks of pytest.

Looked through: the temporary folders of all tests (databases with their write-ahead logs, logs, spools, cores), each
`tempfile.TemporaryDirectory` as it is removed, and what was captured of every test that passed or failed: output of
ours and of our processes, and logs at debug level. A hit fails the run. Left out is what a test names (`on_purpose`).
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes.planted import MARKER, ON_PURPOSE, STAND_IN
from tests.fakes.secret_scan import Scanner

SCANNER = Scanner({"a planted key": MARKER.encode()})
CHUNK_BYTES = 8 << 20
OVERLAP_BYTES = 256
HITS_SHOWN_MAX = 50

_remove = tempfile.TemporaryDirectory.cleanup


def _files(folder: Path) -> Iterator[Path]:
    try:
        if not os.access(folder, os.R_OK | os.X_OK):
            folder.chmod(0o700)  # a test has closed it
        entries = list(folder.iterdir())
    except FileNotFoundError:  # other processes end late, and clean up
        return
    for path in entries:
        if path.is_symlink() or path.name.endswith(ON_PURPOSE) or path.with_name(path.name + ON_PURPOSE).exists():
            continue
        if path.is_dir():
            yield from _files(path)
        elif path.is_file():
            yield path


def hits(where: str, content: bytes) -> list[str]:
    """The keys in `content`: planted ones in any coding, those of the demo's stand-in as they are."""
    found = SCANNER.hits(where, content)
    return [*found, f"a key of the stand-in in {where}"] if STAND_IN.search(content) else found


def _contents(path: Path) -> Iterator[bytes]:
    """A file in pieces that overlap."""
    if not os.access(path, os.R_OK):
        path.chmod(0o600)
    end = b""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield end + chunk
            end = chunk[-OVERLAP_BYTES:]


def hits_below(folder: Path) -> list[str]:
    """Files in which there is a key, in any coding, and names that have one."""
    found = []
    for path in _files(folder):
        found += hits(f"the name of {path}", str(path.relative_to(folder)).encode())
        with contextlib.suppress(FileNotFoundError):
            found += [hit for content in _contents(path) for hit in hits(str(path), content)]
    return sorted(set(found))


def _removed(folder: tempfile.TemporaryDirectory[str]) -> None:
    root = Path(folder.name)
    mark = root.with_name(root.name + ON_PURPOSE)
    found = hits_below(root) if root.is_dir() and not mark.exists() else []
    mark.unlink(missing_ok=True)
    _remove(folder)
    if found:
        pytest.fail(f"left behind before {root} was removed: {', '.join(found[:HITS_SHOWN_MAX])}")


class PlantedSearch:
    """The hooks; the hits are kept where the workers are led."""

    def __init__(self) -> None:
        """Begin without hits."""
        self.hits: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Look at what a test and its processes said."""
        for title, text in report.sections:
            self.hits += hits(f"{title} of {report.nodeid}", text.encode(errors="replace"))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Look at what all tests left, once all of them ended; fail the run for what was found."""
        folders = session.config._tmp_path_factory.getbasetemp()
        self.hits += hits_below(folders) if folders.is_dir() else [f"nothing was searched: {folders} is gone"]
        if self.hits:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what was found."""
        if self.hits:
            terminalreporter.section("planted keys found", red=True)
            for hit in self.hits[:HITS_SHOWN_MAX]:
                terminalreporter.write_line(hit)


def pytest_configure(config: pytest.Config) -> None:
    """Look into temporary folders before they go, and into everything at the end."""
    tempfile.TemporaryDirectory.cleanup = _removed
    if not hasattr(config, "workerinput"):  # who leads the workers hears all their reports
        config.pluginmanager.register(PlantedSearch(), "planted-search")
