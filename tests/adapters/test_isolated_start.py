"""A process that will hold secrets starts apart: from the environment, the user's site directory and .pth code."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from leasehold_broker.adapters.isolated_start import (
    NotIsolatedError,
    check_import_path,
    environment_of,
)

KEY = "sk-" + "ant-api03-planted1planted2planted3"


def started(environment, *arguments):
    """`leasehold-broker` with these arguments, in exactly this environment."""
    command = [sys.executable, "-c", "from leasehold_broker.cli import main; main()", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False, cwd="/")


def test_our_own_environment_passes():
    """What the hash-pinned sets install may start a broker."""
    check_import_path([], [sysconfig.get_path("purelib")])


@pytest.mark.parametrize(
    "line",
    [
        "import os; os.system('id')",
        "import\tos",
        "import sys; exec('import os')",
        "\ufeffimport os",
        "# a comment\rimport os",
        "import os; var = 'SETUPTOOLS_USE_DISTUTILS'; import thief",
    ],
)
def test_an_unknown_line_of_code_is_refused_and_named(tmp_path, line):
    """The message has file, line number and what to do."""
    (tmp_path / "helpful.pth").write_text(f"/some/folder\n{line}\n", newline="")
    with pytest.raises(NotIsolatedError, match=r"helpful\.pth line \d runs code .* remove the file"):
        check_import_path([], [str(tmp_path)])


def test_paths_and_comments_are_no_code(tmp_path):
    """Editable installs, and a module whose name begins like the statement."""
    (tmp_path / "editable.pth").write_text("# import os\n/some/folder\nimportlib_folder\n")
    check_import_path([], [str(tmp_path)])


def test_an_import_path_that_everyone_may_write_to_is_refused(tmp_path):
    """Anybody could put a module there."""
    tmp_path.chmod(0o777)
    with pytest.raises(NotIsolatedError, match="chmod o-w"):
        check_import_path([str(tmp_path)], [])


@pytest.mark.parametrize(
    ("name", "value"), [("OPENAI_API_KEY", "anything"), ("LEASEHOLD_NOTE", KEY), ("HOME", f"/x/{KEY}")]
)
def test_a_provider_key_in_the_environment_is_refused_without_showing_it(name, value):
    """By its name, or by its shape in a variable that would be kept."""
    with pytest.raises(NotIsolatedError, match=f"{name} is set") as refused:
        environment_of({name: value}, frozenset({"OPENAI_API_KEY"}))
    assert value not in str(refused.value)


def test_only_known_variables_are_kept():
    """Neither Python's, the linker's, gRPC's traces, TLS key logs nor proxies."""
    hostile = {
        "PYTHONPATH": "/x",
        "LD_PRELOAD": "/x.so",
        "GRPC_TRACE": "http",
        "SSLKEYLOGFILE": "/x",
        "COVERAGE_PROCESS_START": "/x",
        "HTTPS_PROXY": "http://x",
        "MY_SECRET": KEY,
    }
    got = environment_of({**hostile, "PATH": "/bin", "LEASEHOLD_SOCKET": "unix:/x"}, frozenset())
    assert got.kept == {"PATH": "/bin", "LEASEHOLD_SOCKET": "unix:/x"}
    assert got.suspicious == ("MY_SECRET",)


def test_the_command_drops_what_surrounds_it(tmp_path):
    """A module on PYTHONPATH or in the user's site directory is not imported; a dropped key is told by name only."""
    marker = tmp_path / "ran"
    home = tmp_path / "home"
    user_site = home / ".local/lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    user_site.mkdir(parents=True)
    (tmp_path / "msgspec.py").write_text(f"open({str(marker)!r}, 'w')")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONPATH": str(tmp_path),
        "PYTHONSTARTUP": "/x",
        "MY_SECRET": KEY,
    }
    # Nothing named msgspec is imported before the process is isolated; afterwards the real one is on the path.
    done = started(environment, "sidecar", "--config", str(tmp_path / "none.toml"), "--check")
    assert done.returncode == 2, done.stderr
    assert "No such file" in done.stderr
    assert "MY_SECRET looks like a provider key and is dropped" in done.stderr
    assert KEY not in done.stderr
    assert not marker.exists()


@pytest.mark.parametrize("command", ["keys", "sidecar", "collector"])
def test_each_command_with_secrets_refuses_a_key_in_its_environment(command):
    """With the exit code of a refused start."""
    done = started({"PATH": os.environ["PATH"], "ANTHROPIC_API_KEY": KEY}, command, "--help")
    assert (done.returncode, done.stdout) == (2, "")
    assert "refused to start: ANTHROPIC_API_KEY is set" in done.stderr
    assert KEY not in done.stderr


def test_a_pth_file_stops_a_real_start(tmp_path):
    """An environment with a thief's .pth file starts no sidecar."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True, timeout=120)
    packages = next(venv.glob("lib/python3*/site-packages"))
    ours = [sysconfig.get_path("purelib"), *(path for path in sys.path if path.endswith(("/broker", "/src")))]
    (packages / "ours.pth").write_text("\n".join(ours) + "\n")
    command = [str(venv / "bin/python"), "-c", "from leasehold_broker.cli import main; main()", "keys", "--help"]
    good = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd="/")
    (packages / "zz_init.pth").write_text("import os; os.environ.get('X')\n")
    bad = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd="/")
    assert (good.returncode, bad.returncode) == (0, 2), good.stderr + bad.stderr
    assert f"{packages}/zz_init.pth line 1" in bad.stderr


def test_sitecustomize_from_a_package_stops_a_real_start(tmp_path):
    """A module that Python imports by itself is code in a start, like a .pth line."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True, timeout=120)
    packages = next(Path(venv).glob("lib/python3*/site-packages"))
    ours = [sysconfig.get_path("purelib"), *(path for path in sys.path if path.endswith(("/broker", "/src")))]
    (packages / "ours.pth").write_text("\n".join(ours) + "\n")
    (packages / "sitecustomize.py").write_text("X = 1\n")
    command = [str(venv / "bin/python"), "-c", "from leasehold_broker.cli import main; main()", "keys", "--help"]
    bad = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd="/")
    assert bad.returncode == 2
    assert "sitecustomize.py runs whenever Python starts" in bad.stderr
