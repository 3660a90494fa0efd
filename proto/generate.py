"""Generate the Python code of the protos. Run by `make proto`; `--check` fails when the committed code is stale."""

import argparse
import filecmp
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
PACKAGE = Path("leasehold/v1")
TARGET = ROOT.parent / "clients/python/src"


def generate(out: Path) -> None:
    """Write all generated modules and stubs below `out`.

    Raises:
        SystemExit: protoc refused.
    """
    well_known = files("grpc_tools").joinpath("_proto")
    protos = sorted(str(path.relative_to(ROOT)) for path in (ROOT / PACKAGE).glob("*.proto"))
    services = [proto for proto in protos if proto.endswith("_service.proto")]
    include = [f"-I{ROOT}", f"-I{well_known}"]
    for arguments in (
        [f"--python_out={out}", f"--mypy_out=quiet:{out}", *protos],
        [f"--grpc_python_out={out}", f"--mypy_grpc_out=quiet:{out}", *services],
    ):
        code = protoc.main(["protoc", *include, *arguments])
        if code:
            raise SystemExit(code)
    (out / PACKAGE / "__init__.py").write_text('"""Generated from proto/leasehold/v1; do not edit."""\n')


def main() -> None:
    """Generate in place, or compare with what is committed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when the committed code is stale")
    check = parser.parse_args().check
    if not check:
        generate(TARGET)
        return
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        fresh = sorted(path.name for path in (Path(scratch) / PACKAGE).iterdir())
        committed = sorted(path.name for path in (TARGET / PACKAGE).iterdir() if path.is_file())
        _, differing, missing = filecmp.cmpfiles(Path(scratch) / PACKAGE, TARGET / PACKAGE, fresh, shallow=False)
    stale = sorted({*differing, *missing, *set(committed).symmetric_difference(fresh)})
    if stale:
        sys.exit(f"generated code is stale: {', '.join(stale)}; run `make proto` and commit the result")


if __name__ == "__main__":
    main()
