"""Fuzz with coverage guidance: `python -m tests.fuzz [TARGET ...]`. Needs atheris; `make fuzz` installs it.

Each target runs in a process of its own, because libFuzzer ends its process. Prints executions and time of each;
exits with 1 when one found something, whose input is then in the work folder.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NAMES = (
    "token_gate",
    "key_set",
    "body_gate",
    "sse_meters",
    "routing",
    "plans",
    "protos",
    "http_codec",
    "header_blocks",
    "form_gate",
    "redaction",
)
RUNS = 1_000_000
SECONDS_MAX = 7200


def fuzz_here(name: str, arguments: list[str]) -> None:
    """Fuzz one target in this process; does not return."""
    import atheris  # noqa: PLC0415 - only this command needs it, and only here

    atheris.enabled_hooks.add("str")
    with atheris.instrument_imports(include=["leasehold_broker"]):
        from tests.fuzz.targets import TARGETS  # noqa: PLC0415 - instrumented while it is imported
    atheris.Setup([sys.argv[0], *arguments], TARGETS[name])
    atheris.Fuzz()


def fuzz(name: str, runs: int, seed: int, work: Path) -> bool:
    """Fuzz one target in its own process; True when it found nothing."""
    from tests.fuzz.targets import CORPUS, INPUT_BYTES_MAX  # noqa: PLC0415 - the child must import it instrumented

    found = work / name
    found.mkdir(parents=True, exist_ok=True)
    command = [
        *(sys.executable, "-m", "tests.fuzz", "--here", name, str(found), str(CORPUS / name)),
        *(f"-runs={runs}", f"-seed={seed}", f"-max_len={INPUT_BYTES_MAX}", f"-artifact_prefix={work / name}-"),
        *("-timeout=120", "-rss_limit_mb=2048", "-print_final_stats=1", "-verbosity=0"),
    ]
    before = time.monotonic()
    with Path(work / f"{name}.log").open("wb") as log:
        code = subprocess.run(command, stdout=log, stderr=log, check=False, timeout=SECONDS_MAX).returncode
    seconds = time.monotonic() - before
    text = Path(work / f"{name}.log").read_text(errors="replace")
    match = re.search(r"stat::number_of_executed_units: *(\d+)", text)
    executions = int(match[1]) if match else 0
    verdict = "0 findings" if code == 0 and executions >= runs else f"FINDING (exit {code}), see {work / name}*"
    rate = executions / seconds
    sys.stdout.write(f"{name:12} {executions:>9} executions {seconds:7.1f} s {rate:>7.0f}/s  {verdict}\n")
    sys.stdout.flush()
    return code == 0 and executions >= runs


def main() -> int:
    """Read the command line, fuzz, tell."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(NAMES)}; all when none is named")
    parser.add_argument("--runs", type=int, default=RUNS, help=f"executions of each target ({RUNS})")
    parser.add_argument("--seed", type=int, default=0, help="0: a new one each time")
    parser.add_argument("--work", type=Path, help="folder for new inputs and findings (a new temporary one)")
    chosen = parser.parse_args()
    unknown = set(chosen.targets) - set(NAMES)
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    work = chosen.work or Path(tempfile.mkdtemp(prefix="leasehold-fuzz-"))
    seed = chosen.seed or int.from_bytes(os.urandom(3)) + 1
    sys.stdout.write(f"seed {seed}, work folder {work}\n")
    sys.stdout.flush()
    clean = [fuzz(name, chosen.runs, seed, work) for name in chosen.targets or NAMES]
    return 0 if all(clean) else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--here"]:
        fuzz_here(sys.argv[2], sys.argv[3:])
    sys.exit(main())
