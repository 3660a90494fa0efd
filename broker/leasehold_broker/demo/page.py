"""How the story looks on a terminal. Owns headings, steps and tables; knows nothing of what is told."""

import re
import textwrap
import time
from collections.abc import Sequence

import click

WIDTH = 100
_DIGEST = re.compile(r"\b[0-9a-f]{64}\b")


class Page:
    """Prints the story, in colour where the terminal has it."""

    def __init__(self, *, color: bool | None = None) -> None:
        """Take the choice: True, False, or None for what the terminal can."""
        self._color = color
        self._started = time.monotonic()
        self._chapter = 0

    @property
    def seconds(self) -> float:
        """Since the story began."""
        return time.monotonic() - self._started

    def title(self, text: str) -> None:
        """The first line."""
        self._echo(click.style(text, bold=True))

    def chapter(self, title: str, why: str) -> None:
        """A heading, and why it matters."""
        self._chapter += 1
        self._echo("")
        head = f"{self._chapter}. {title} "
        rule = "-" * max(3, WIDTH - len(head) - 7)
        self._echo(click.style(head, bold=True, fg="cyan") + click.style(f"{rule} {self.seconds:4.1f} s", dim=True))
        self._echo(click.style(f"   {why}", dim=True))

    def line(self, text: str, who: str = "") -> None:
        """One step."""
        name = click.style(f"{who:<10} ", fg="yellow") if who else ""
        width = WIDTH - 3 - (11 if who else 0)
        for number, part in enumerate(textwrap.wrap(text, width, break_on_hyphens=False, drop_whitespace=True) or [""]):
            self._echo(f"   {name if number == 0 else ' ' * (13 if who else 2)}{part}")

    def command(self, text: str) -> None:
        """A command, as an operator types it."""
        self._echo("   " + click.style(f"$ {text}", fg="green"))

    def output(self, text: str) -> None:
        """What a command printed."""
        for line in text.rstrip().splitlines():
            shown = _DIGEST.sub(lambda found: f"{found[0][:12]}...", line)
            indent = " " * (5 + len(shown) - len(shown.lstrip()))
            self._echo(
                textwrap.fill(
                    shown.strip(), WIDTH, initial_indent=indent, subsequent_indent=f"{indent}  ", break_on_hyphens=False
                )
                if len(shown) > WIDTH - 5
                else f"     {shown}"
            )

    def held(self, text: str) -> None:
        """A claim that was checked and held."""
        self._echo("   " + click.style("ok ", fg="green", bold=True) + text)

    def failed(self, text: str) -> None:
        """What went wrong."""
        self._echo("   " + click.style("FAILED ", fg="red", bold=True) + text)

    def table(self, rows: Sequence[Sequence[str]], *, left: int = 1) -> None:
        """Aligned columns, the first `left` of them to the left; the first row is the heading."""
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for number, row in enumerate(rows):
            cells = [
                cell.ljust(width) if column < left else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            text = "  ".join(cells).rstrip()
            self._echo("     " + (click.style(text, bold=True) if number == 0 else text))

    def _echo(self, text: str) -> None:
        click.echo(text, color=self._color)


def usd(micro_usd: int) -> str:
    """Micro-USD as dollars, to the micro-dollar."""
    return f"${micro_usd / 1_000_000:.6f}"
