"""Credentials of several parts: their names in variables, and what is none."""

from types import SimpleNamespace

import pytest

from leasehold import InvalidRequest, Scope
from leasehold._state import LeaseToken
from leasehold.credentials import credential_environment, credential_parts, postgres_kwargs

USER = '{"username": "v-orders-1", "password": "p w", "port": 5432, "tags": ["a"]}'


def lease(token, provider="own-orders-db"):
    """A lease with this token."""
    return SimpleNamespace(
        token=LeaseToken(token), info=SimpleNamespace(name="leases/1", scopes=(Scope(provider, models=()),))
    )


def test_parts_are_texts_under_the_providers_name():
    """Each in a variable of its own; psql's are set only where they are asked for."""
    ours = {"LEASEHOLD_OWN_ORDERS_DB_USERNAME": "v-orders-1", "LEASEHOLD_OWN_ORDERS_DB_PASSWORD": "p w"}
    assert credential_environment(lease(USER)) == ours
    libpq = {"PGUSER": "v-orders-1", "PGPASSWORD": "p w"}
    assert credential_environment(lease(USER), postgres=True) == ours | libpq
    assert postgres_kwargs(lease(USER)) == {"user": "v-orders-1", "password": "p w"}


def test_an_odd_name_makes_a_name_that_a_shell_knows():
    """Whatever a plugin calls its parts."""
    found = credential_environment(lease('{"access key-id": "a"}', "own-x"))
    assert found == {"LEASEHOLD_OWN_X_ACCESS_KEY_ID": "a"}


@pytest.mark.parametrize("token", ["lhs_secret-1", "{", "{}", '{"access_key": "a"}', "{" * 100_000, '{"username": 1}'])
def test_what_is_no_database_user_is_said(token):
    """A lease token, a key, another engine's answer: no variables of psql, and the reason without the secret."""
    with pytest.raises(InvalidRequest) as caught:
        credential_environment(lease(token), postgres=True)
    assert "leases/1 holds no database user" in str(caught.value)
    assert token not in str(caught.value) or token == "{"
    assert "username" not in credential_parts(lease(token))
