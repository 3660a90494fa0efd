"""What `make sbom` writes is CycloneDX by its own schema, and lists every pin."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from tests.house.test_advisories import PINS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def sbom(tmp_path_factory):
    """That of what a broker runs on, made as the Makefile does it."""
    made = tmp_path_factory.mktemp("sbom") / "runtime.json"
    recipe = (ROOT / "Makefile").read_text().partition("\nsbom:")[2].partition("\n\n")[0]
    options = ("--pyproject", "pyproject.toml", "--output-reproducible", "--of", "JSON")
    assert all(option in recipe for option in (*options, "--validate"))
    assert "wildcard requirements/*.txt" in recipe
    command = [sys.executable, "-W", "ignore", "-m", "cyclonedx_py", "requirements", *options]
    subprocess.run([*command, "-o", str(made), "requirements/runtime.txt"], cwd=ROOT, check=True, timeout=120)
    return json.loads(made.read_text())


def test_it_holds_by_the_schema(sbom):
    """CycloneDX 1.6, looked at strictly; and the look would see what is wrong."""
    from cyclonedx.validation.json import JsonStrictValidator  # noqa: PLC0415 - builds 38 grammars: two seconds

    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(json.dumps(sbom)) is None
    assert validator.validate_str(json.dumps(sbom | {"components": [], "colour": "blue"})) is not None


def test_it_lists_every_pin_with_its_hashes(sbom):
    """Name, version, package URL and hashes of each pin of the set; under our own name and version."""
    listed = {(one["name"], one["version"]) for one in sbom["components"]}
    assert listed == set(PINS["runtime.txt"])
    assert all(one["purl"].startswith(f"pkg:pypi/{one['name']}@{one['version']}") for one in sbom["components"])
    hashes = [reference["hashes"] for one in sbom["components"] for reference in one["externalReferences"]]
    assert len(hashes) >= len(listed)
    assert all(found and all(one["alg"] == "SHA-256" for one in found) for found in hashes)
    assert sbom["metadata"]["component"]["name"] == "leasehold-broker"
