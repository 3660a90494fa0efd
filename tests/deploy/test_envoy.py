"""The files of deploy/envoy: Envoy itself takes them, and they hold what the sidecar relies on."""

import subprocess

import pytest
import yaml
from tests.fakes import envoy
from tests.fakes.certificates import Authority

FILES = ("gateway.yaml", "pod.yaml")
FILTERS = ("local_ratelimit", "router")
HCM = "envoy.filters.network.http_connection_manager"


@pytest.mark.skipif(envoy.installed() is None, reason="no Envoy here: make .venv/envoy.stamp")
@pytest.mark.parametrize("name", FILES)
def test_envoy_takes_it(tmp_path, name):
    """`envoy --mode validate` says OK, without a warning of a setting that is going away."""
    secrets = envoy.secrets_in(tmp_path, tmp_path)
    text = (envoy.DEPLOY / name).read_text().replace("/etc/leasehold-envoy/secrets", str(secrets))
    authority = Authority()
    authority.issue().files(tmp_path, "envoy")
    (tmp_path / "agents-ca.pem").write_bytes(authority.pem)
    config = tmp_path / name
    config.write_text(text)

    said = subprocess.run(
        envoy.command(config, "--mode", "validate"), capture_output=True, text=True, timeout=120, check=False
    )

    assert said.returncode == 0, said.stderr[-2000:]
    assert "deprecated" not in said.stderr.lower()


def managers(name):
    """The connection manager of each listener."""
    listeners = yaml.safe_load((envoy.DEPLOY / name).read_text())["static_resources"]["listeners"]
    return [
        one["typed_config"]
        for listener in listeners
        for chain in listener["filter_chains"]
        for one in chain["filters"]
        if one["name"] == HCM
    ]


@pytest.mark.parametrize(("name", "word", "count"), [("gateway.yaml", "SANITIZE_SET", 1), ("pod.yaml", "SANITIZE", 2)])
def test_no_caller_can_name_itself(name, word, count):
    """Every listener throws away what callers say of certificates, and of retries."""
    found = managers(name)
    assert [one["forward_client_cert_details"] for one in found] == [word] * count
    assert all(one["use_remote_address"] for one in found)


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_repeated_changed_or_told(name):
    """No retry, no filter that reads a body, no admin interface, and no request header or query in the access log."""
    whole = yaml.safe_load((envoy.DEPLOY / name).read_text())
    assert set(whole) <= {"node", "static_resources", "overload_manager"}
    for one in managers(name):
        assert {each["name"] for each in one["http_filters"]} <= {f"envoy.filters.http.{name}" for name in FILTERS}
        [logged] = [each["typed_config"]["log_format"]["json_format"] for each in one["access_log"]]
        assert {word for word in logged.values() if "REQ(" in word or "PATH" in word} == {
            "%REQ(:METHOD)%",
            "%PATH(NQ)%",
        }
        for route in one["route_config"]["virtual_hosts"][0]["routes"]:
            assert set(route["route"]) == {"cluster", "timeout"}
            assert set(route) <= {"match", "route", "typed_per_filter_config"}


@pytest.mark.parametrize("name", FILES)
def test_the_sidecar_is_reached_through_sockets_alone(name):
    """Over TCP the kernel's word on a uid is not taken: every upstream is a Unix socket."""
    clusters = yaml.safe_load((envoy.DEPLOY / name).read_text())["static_resources"]["clusters"]
    places = [
        end["endpoint"]["address"]
        for one in clusters
        for group in one["load_assignment"]["endpoints"]
        for end in group["lb_endpoints"]
    ]
    assert [set(place) for place in places] == [{"pipe"}, {"pipe"}]
