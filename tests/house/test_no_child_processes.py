"""A process with secrets starts no other: there is nothing to inherit memory, descriptors, arguments or environment.

But for the minter that an operator names: its own tests show that it inherits nothing.
"""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2] / "broker" / "leasehold_broker"
STARTERS = {"fork", "forkpty", "posix_spawn", "posix_spawnp", "system", "popen", "startfile"}
MODULES = {"subprocess", "multiprocessing", "pty", "concurrent.futures.process"}
MAY_EXEC = {
    "adapters/isolated_start.py": "starts itself anew, isolated, before it knows a secret",
    "adapters/minters/program.py": "runs the minter that the configuration names",
}


def names_of(node):
    """What a node calls or imports, as text."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    if isinstance(node, ast.Attribute):
        return [node.attr]
    return []


def offenders():
    """Files outside the demo that could start a process, with what."""
    found = {}
    for path in ROOT.rglob("*.py"):
        name = str(path.relative_to(ROOT))
        if name.startswith("demo/"):
            continue
        used = {one for node in ast.walk(ast.parse(path.read_text())) for one in names_of(node)}
        bad = {
            one for one in used if one in STARTERS | MODULES or one.startswith(("exec", "spawn", "create_subprocess"))
        }
        bad -= {"execute", "executemany", "executescript", "spawn"}
        if bad and name not in MAY_EXEC:
            found[name] = bad
    return found


def test_the_broker_starts_no_process():
    """Outside the demo, no module imports or calls what starts one; `isolated_start` replaces itself."""
    assert offenders() == {}


def test_no_secret_has_an_option():
    """No command takes the value of a key, token or passphrase as an argument: arguments are public."""
    found = []
    for path in (ROOT / "cli").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            is_option = isinstance(node, ast.Call) and ast.unparse(node.func) in {"click.option", "click.argument"}
            if is_option:
                flags = [ast.literal_eval(each) for each in node.args if isinstance(each, ast.Constant)]
                names = {flag.strip("-").lower() for flag in flags}
                kind = ast.unparse(node)
                if names & {"value", "secret", "token", "api-key", "master-key"}:
                    found.append(kind)
                if "passphrase" in names and "is_flag=True" not in kind:
                    found.append(kind)
    assert found == []
