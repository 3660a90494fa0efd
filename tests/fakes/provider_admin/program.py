"""A program that keeps keys in a file: what an operator writes for a provider of their own. Run by the exec minter.

Its first argument is the file. It is told its faults in that file: what it does before it makes, and how it ends.
"""

import json
import os
import sys
from pathlib import Path


def main() -> int:
    """One action."""
    state_file, action, key, *rest = sys.argv[1:]
    told = json.loads(sys.stdin.read())
    state = json.loads(Path(state_file).read_text())
    state["runs"].append({"arguments": sys.argv[1:], "environment": dict(os.environ), "folder": str(Path.cwd())})
    due = state["faults"] and state["faults"][0].get("on", action) == action
    fault = state["faults"].pop(0) if due else {}
    said = {} if fault.get("status") else act(state, action, key, rest, told)
    # In one step: it may be killed at any moment.
    fresh = Path(f"{state_file}.{os.getpid()}")
    fresh.write_text(json.dumps(state))
    fresh.rename(state_file)
    sys.stderr.write(f"{told}")
    if "says" in fault:
        sys.stdout.write(fault["says"])
        return 0
    if "status" in fault:
        return fault["status"]
    json.dump(said, sys.stdout)
    return 0


def act(state: dict, action: str, key: str, rest: list[str], told: dict) -> dict:
    """Mint, sweep, current, disable or end."""
    if told.get("admin_key") != state["admin_key"]:
        raise SystemExit(77)
    keys = state["keys"]
    if action == "mint":
        rotation = rest[0]
        for number in [number for number, one in keys.items() if one["rotation"] == rotation]:
            del keys[number]
        if len(keys) >= state["keys_max"]:
            raise SystemExit(73)
        state["serial"] += 1
        number = f"id-{state['serial']}"
        keys[number] = {"value": f"own-key-{state['serial']:04}-c4n4ry-9d8e7f6a5b4c", "rotation": rotation, "key": key}
        return {"id": number, "value": keys[number]["value"]}
    if action == "sweep":
        for number in [number for number, one in keys.items() if one["rotation"] == rest[0] and number != rest[1]]:
            del keys[number]
        return {}
    if action == "current":
        return {"id": next((number for number, one in keys.items() if one["value"] == told["value"]), "")}
    if action == "disable":
        if rest[0] in keys:
            keys[rest[0]]["inactive"] = True
        return {}
    keys.pop(rest[0], None)
    return {}


if __name__ == "__main__":
    sys.exit(main())
