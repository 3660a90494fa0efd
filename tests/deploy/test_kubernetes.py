"""The manifests: their configurations load with the real loaders, and no pod may more than its part needs."""

import os
from pathlib import Path

import pytest
import yaml
from tests.fakes.certificates import Authority

from leasehold_broker.adapters.private_files import NotPrivateError, read_private
from leasehold_broker.config import ConfigError, load_collector, load_sidecar
from leasehold_broker.config.read import SECRET, refuse_open_file

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
FILES = ("collector", "agent")
PLACES = (
    "/etc/leasehold-tls",
    "/etc/leasehold-keys",
    "/etc/leasehold-policy",
    "/var/lib/leasehold/keys",
    "/var/run/secrets/leasehold",
)


def documents(name: str) -> list[dict]:
    """The resources of one file."""
    return list(yaml.safe_load_all((FOLDER / f"{name}.yaml").read_text()))


def pod(name: str) -> dict:
    """The pod that the file's set makes."""
    [found] = [one for one in documents(name) if one["kind"] == "StatefulSet"]
    return found["spec"]["template"]["spec"]


def containers(name: str) -> list[dict]:
    """All of them."""
    return [*pod(name).get("initContainers", []), *pod(name)["containers"]]


def written(folder: Path, name: str, text: str) -> Path:
    """The configuration below `folder`, with what it names, as volumes would hold it."""
    leaf = Authority().issue()
    for place in PLACES:
        (folder / place[1:]).mkdir(parents=True)
        text = text.replace(f'"{place}/', f'"{folder}{place}/')
    tls = folder / "etc/leasehold-tls"
    for file, data in (("tls.crt", leaf.pem), ("tls.key", leaf.key), ("clients-ca.crt", leaf.pem)):
        (tls / file).write_bytes(data)
        (tls / file).chmod(0o600)
    (tls / "collector-ca.crt").write_bytes(leaf.pem)
    for file in (
        "etc/leasehold-keys/master.key",
        "etc/leasehold-policy/policy.toml",
        "var/lib/leasehold/keys/keys.json",
        "var/run/secrets/leasehold/ca.crt",
        "var/run/secrets/leasehold/api",
        "var/run/secrets/leasehold/collector",
    ):
        (folder / file).write_bytes(leaf.pem)
        (folder / file).chmod(0o600)
    path = folder / name
    path.write_text(text)
    path.chmod(0o440)
    return path


def test_the_configurations_in_the_manifests_load(tmp_path):
    """Both ConfigMaps are what the real loaders take; the sidecar is one that the collector lists, at its address."""
    [central] = [one["data"]["collector.toml"] for one in documents("collector") if one["kind"] == "ConfigMap"]
    [beside] = [one["data"]["sidecar.toml"] for one in documents("agent") if one["kind"] == "ConfigMap"]
    collector = load_collector(written(tmp_path / "c", "collector.toml", central))
    sidecar = load_sidecar(written(tmp_path / "s", "sidecar.toml", beside))

    assert sidecar.name in {rule.sidecar for rule in collector.sidecars}
    assert sidecar.collector.target == f"leasehold-collector.leasehold.svc:{collector.grpc.port}"


@pytest.mark.parametrize("name", FILES)
def test_no_container_may_more_than_it_needs(name):
    """Not root, no new privileges, no capability, a read-only root file system, no token that nobody asked for."""
    assert pod(name)["automountServiceAccountToken"] is False
    assert not pod(name).get("shareProcessNamespace", False)
    assert pod(name)["securityContext"]["runAsNonRoot"] is True
    for container in containers(name):
        may = container["securityContext"]
        assert may["allowPrivilegeEscalation"] is False
        assert may["readOnlyRootFilesystem"] is True
        assert may["capabilities"] == {"drop": ["ALL"]}
        assert "@sha256:" in container["image"], "by digest"


def test_the_agent_shares_neither_user_nor_volume_with_the_sidecar_but_the_door():
    """What keeps an agent from the keys: another uid, and nothing mounted but the socket's folder, read-only."""
    sidecar, agent = containers("agent")
    assert sidecar["securityContext"]["runAsUser"] != agent["securityContext"]["runAsUser"]
    mounted = {mount["name"]: mount for mount in agent["volumeMounts"]}
    assert set(mounted) & {mount["name"] for mount in sidecar["volumeMounts"]} == {"door"}
    assert all(mount["readOnly"] for mount in mounted.values())


def test_every_token_is_for_one_place():
    """The agent's token is no good at the collector, and the sidecar's none at a sidecar's door."""
    audiences = {
        (volume["name"], source["serviceAccountToken"].get("audience", "api server"))
        for volume in pod("agent")["volumes"]
        for source in volume.get("projected", {}).get("sources", [])
        if "serviceAccountToken" in source
    }
    assert audiences == {("identity", "leasehold-collector"), ("identity", "api server"), ("agent-token", "leasehold")}


@pytest.mark.parametrize("name", FILES)
def test_each_pod_has_a_policy_for_both_directions(name):
    """What is not named is closed."""
    [policy] = [one["spec"] for one in documents(name) if one["kind"] == "NetworkPolicy"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    labels = next(one for one in documents(name) if one["kind"] == "StatefulSet")["spec"]["template"]["metadata"][
        "labels"
    ]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a file of root's")
@pytest.mark.parametrize(("mode", "taken"), [(0o440, True), (0o400, True), (0o444, False), (0o460, False)])
def test_a_secret_of_roots_is_taken_from_the_groups_hand_only(tmp_path, monkeypatch, mode, taken):
    """As Kubernetes mounts one for a pod that is not root: readable by its group, by nobody else, writable by none."""
    path = tmp_path / "master.key"
    path.write_bytes(b"secret")
    path.chmod(mode)
    monkeypatch.setattr(os, "geteuid", lambda: 65532)
    if taken:
        assert read_private(path, 100) == b"secret"
        refuse_open_file(path, SECRET, "private key")
        return
    with pytest.raises(NotPrivateError):
        read_private(path, 100)
    with pytest.raises(ConfigError, match="is open to others"):
        refuse_open_file(path, SECRET, "private key")
