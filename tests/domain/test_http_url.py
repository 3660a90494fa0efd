"""URLs that decide where secrets go: taken only where every reader reads the same."""

import ipaddress
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leasehold_broker.domain.http_url import http_url_wrong, in_the_clear, origin_wrong

PORTS = {"http": ":80", "https": ":443"}
CASES = [json.loads(line) for line in Path("tests/vectors/urls/http_urls.jsonl").read_text("utf-8").splitlines()]


def as_browsers_write(url: str) -> str:
    """A URL that we take, in the one form that the URL standard gives it."""
    scheme, host, port, path, query = re.fullmatch(r"(https?)://(.*?)(:[0-9]+)?(/[^?]*)?([?].*)?", url).groups("")
    if host.startswith("["):
        host = f"[{ipaddress.IPv6Address(host[1:-1]).compressed}]"
    return f"{scheme}://{host.lower()}{'' if port == PORTS[scheme] else port}{path or '/'}{query}"


def test_what_is_taken_is_what_browsers_take() -> None:
    """No URL is taken that the standard refuses or would send elsewhere.

    Except for what is behind "xn--": the standard looks at the characters that it stands for, we at the letters.
    """
    taken = [(url, href) for url, href in CASES if http_url_wrong(url) is None and "xn--" not in url.lower()]
    assert len(taken) > 100
    assert [(url, href) for url, href in taken if as_browsers_write(url) != href] == []
    assert all(http_url_wrong(url) is None for url, _ in CASES if origin_wrong(url) is None)


@pytest.mark.parametrize(
    "url",
    [
        "https://api.example.com",
        "https://api.example.com/",
        "https://api.example.com:8443/v1/logs?since=1&to=a%20b",
        "http://127.0.0.1:9",
        "http://[::1]:4318/v1/logs",
        "https://xn--bcher-kva.example",
        "https://siem",
        "https://my_service.internal.",
        "https://hooks.example/services/T0/B0/x-y_z~1",
        "https://v1.2-3.example",
    ],
)
def test_good_urls(url: str) -> None:
    """What operators write is taken."""
    assert http_url_wrong(url) is None


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://[::1", "must be like"),
        ("https://[1.2.3.4]", "has a host"),
        ("https://[fe80::1%25eth0]", "must be like"),
        ("https://a b", "must be like"),
        ("https://a\n.example", "must be like"),
        ("https://a/\tb", "must be like"),
        ("https://user@a", "must be like"),
        ("https://:@a", "must be like"),
        ("https://a#b", "must be like"),
        ("https://a\\@b", "must be like"),
        ("https:a", "must be like"),
        ("HTTPS://a", "must be like"),
        ("ftp://a", "must be like"),
        ("https://", "must be like"),
        ("https://a:", "must be like"),
        ("https://a:0", "must be like"),
        ("https://a:99999", "65535"),
        ("https://a/%zz", "must be like"),
        ("https://a/b/../c", "in its path"),
        ("https://a/%2E%2e", "in its path"),
        ("https://a..b", "has a host"),
        ("https://-a", "has a host"),
        ("https://0x7f.1", "has a host"),
        ("https://127.1", "has a host"),
        ("https://0177.0.0.1", "has a host"),
        ("https://2130706433", "has a host"),
        ("https://1.2.3.4.5", "has a host"),
        ("https://b\u00fccher.example", "must be like"),
    ],
)
def test_bad_urls(url: str, said: str) -> None:
    """Every refusal says what is wrong with the URL."""
    assert said in (http_url_wrong(url) or "")


@pytest.mark.parametrize("url", ["https://a/b", "https://a/", "https://a?b", "https://a:99999", "https://[::1"])
def test_an_origin_is_a_server_and_nothing_more(url: str) -> None:
    """Neither a path nor a query."""
    assert origin_wrong(url) is not None


def test_in_the_clear() -> None:
    """Plain http is private on a loopback address alone: a name could be anywhere; what is no URL is never private."""
    assert [in_the_clear(url) for url in ("https://a", "http://127.0.0.9:1/x", "http://[::1]")] == [False] * 3
    assert all(map(in_the_clear, ("http://a", "http://localhost", "http://10.0.0.1", "http://[::ffff:10.0.0.1]", "x")))


@given(st.text(alphabet="htps:/[]@%.#?\\ 0x1a-_\t", max_size=24) | st.text(max_size=12))
def test_any_text_is_answered(text: str) -> None:
    """Whatever is written, the answer is words or None."""
    for url in (text, f"https://{text}", f"http://{text}/"):
        assert {type(http_url_wrong(url)), type(origin_wrong(url))} <= {str, type(None)}
        in_the_clear(url)
