"""The image: what its file says, held by a linter and by what the manifests expect; `make image-check` runs its steps.

No image is built here: a builder would have to fetch the base. The steps are run below a folder, with this interpreter.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILE = ROOT / "deploy" / "Dockerfile"
PLACE = "/opt/leasehold"
BINARIES = Path(sys.executable).parent
DEPLOYED = sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml"))


def instructions() -> list[tuple[str, str]]:
    """All of them, in order: the word, and the rest of the line."""
    lines = [line for line in FILE.read_text().splitlines() if line and not line.startswith("#")]
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in lines]


def given(word: str) -> list[str]:
    """What follows this word, wherever it stands."""
    return [rest for first, rest in instructions() if first == word]


def checker(name: str) -> str:
    """The command of a checker; skips where it is not installed."""
    if not (BINARIES / name).exists():
        pytest.skip(f"{name} is not here: pip install -r requirements/servers.txt")
    return str(BINARIES / name)


def test_the_linter_has_nothing_to_say():
    """Every rule of hadolint, none left out."""
    done = subprocess.run([checker("hadolint"), str(FILE)], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


def test_it_runs_as_the_user_of_the_manifests_and_holds_what_was_built_alone():
    """The number that each pod has, never root; code comes from the build stage, owned by root, and nowhere else."""
    assert given("USER") == ["65532:65532"]
    pods = [one["spec"]["template"]["spec"] for file in DEPLOYED for one in yaml.safe_load_all(file.read_text())
            if one["kind"] == "StatefulSet"]  # fmt: skip
    ours = [each for pod in pods for each in pod.get("initContainers", []) + pod["containers"]
            if "leasehold-broker" in each["image"]]  # fmt: skip
    users = {(each.get("securityContext") or {}).get("runAsUser") for each in ours}
    users |= {(pod.get("securityContext") or {}).get("runAsUser") for pod in pods}
    assert users - {None} == {65532}
    last = max(number for number, (word, _) in enumerate(instructions()) if word == "FROM")
    after = [(word, rest) for word, rest in instructions()[last:] if word in {"COPY", "ADD", "RUN"}]
    assert after == [("COPY", f"--from=build {PLACE} {PLACE}")]
    assert given("ENTRYPOINT") == ['["leasehold-broker"]']


def test_what_it_copies_is_there_and_what_it_installs_is_pinned():
    """No file of the build is missing, and pip takes nothing without its hash."""
    for one in given("COPY"):
        if not one.startswith("--from"):
            *sources, _ = one.split()
            assert all(list(ROOT.glob(source)) for source in sources), one
    installs = [step for rest in given("RUN") for step in rest.split(" && ") if "pip install" in step]
    assert len(installs) == 2
    assert "--require-hashes" in installs[0]
    assert "--only-binary=:all:" in installs[0]
    assert "--no-deps --no-build-isolation" in installs[1]


@pytest.mark.skipif(os.environ.get("IMAGE") != "check", reason="make image-check")
@pytest.mark.timeout(1800)
def test_its_steps_give_a_broker_that_runs_and_no_tool_to_install_more(tmp_path):
    """As written, below a folder: the command answers by itself, isolated; neither pip nor the build tools are left."""
    source, place = tmp_path / "src", tmp_path / "opt"
    source.mkdir()
    for word, rest in instructions():
        if word == "COPY" and not rest.startswith("--from"):
            *sources, target = rest.split()
            for found in (path for each in sources for path in ROOT.glob(each)):
                into = source / target if found.is_dir() else source / target / found.name
                into.parent.mkdir(parents=True, exist_ok=True)
                (shutil.copytree if found.is_dir() else shutil.copy)(found, into)
        if word == "RUN":
            step = rest.replace(PLACE, str(place)).replace("${REQUIREMENTS}", "runtime")
            step = re.sub(r"^python ", f"{sys.base_prefix}/bin/python3 ", step)
            subprocess.run(["sh", "-euc", step], cwd=source, check=True, timeout=1500)
    asked = [str(place / "bin" / "leasehold-broker"), "collector", "--help"]
    told = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=120, cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    assert "--config" in told.stdout
    packages = place / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    assert not [name for name in ("pip", "hatchling", "editables") if (packages / name).exists()]
    assert not list(packages.glob("*.pth"))
    size = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
    print(f"{size / 1e6:.0f} MB above the base image")  # noqa: T201 - shown with -rP


def test_the_manifests_satisfy_the_schemas_of_kubernetes():
    """Of the version that deploy/README.md names, and no field that the schema does not know."""
    [version] = re.findall(r"schemas of Kubernetes (\d+\.\d+)", (ROOT / "deploy" / "README.md").read_text())
    command = [checker("kubernetes-validate"), "-k", version, "--strict", *map(str, DEPLOYED)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    told = sum(len(list(yaml.safe_load_all(file.read_text()))) for file in DEPLOYED)
    assert (done.stdout + done.stderr).count(" passed for resource ") == told


def test_the_schemas_notice_a_field_that_is_not_there(tmp_path):
    """The check above can fail: a misspelt security context does not pass."""
    wrong = tmp_path / "agent.yaml"
    text = (ROOT / "deploy" / "kubernetes" / "agent.yaml").read_text()
    wrong.write_text(text.replace("readOnlyRootFilesystem", "readOnlyRootFileSystem", 1))
    command = [checker("kubernetes-validate"), "-k", "1.37", "--strict", str(wrong)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode != 0
    assert "readOnlyRootFileSystem" in done.stdout + done.stderr
