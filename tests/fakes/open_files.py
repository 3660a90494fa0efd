"""What this process has open, as the kernel says."""

from pathlib import Path


def open_files_below(directory: Path) -> list[str]:
    """Files below this directory that a descriptor of this process is on."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            file = descriptor.readlink()
        except FileNotFoundError:  # closed meanwhile, as the one that lists this directory
            continue
        if file.is_relative_to(directory):
            found.append(str(file))
    return found
