"""The life of a session at its issuer: renewal (RFC 6749, section 6) and its end (RFC 7009)."""

from leasehold.errors import LeaseholdError
from leasehold.signin.asking import Answer, ask, failed
from leasehold.signin.issuer import Client, Issuer, discover
from leasehold.signin.tokens import Tokens, tokens_of


def renewal(client: Client, tokens: Tokens) -> Answer:
    """What the issuer answers to a refresh token; it may be good for this once only.

    Raises:
        Unavailable: it does not answer: nothing has ended.
    """
    form = [("grant_type", "refresh_token"), ("refresh_token", tokens.refresh), ("client_id", client.client_id)]
    if client.resource:
        form.append(("resource", client.resource))
    return ask(discover(client.issuer).token_endpoint, form, client.credentials)


def renewed(answer: Answer, client: Client, before: Tokens, now: int) -> Tokens:
    """The tokens of that answer.

    Raises:
        IdentityRejected: the issuer has ended the session, or renewed another one.
    """
    if answer.status != 200:
        message = f"the issuer has ended the session: {answer.error()}"
        raise failed(message)
    return tokens_of(answer, client, now, nonce=None, before=before)


def end(issuer: Issuer, client: Client, tokens: Tokens) -> str:
    """Have the issuer end what renews a session; gives why not, "" when done or when there is nothing to end."""
    if not tokens.refresh:
        return ""
    if not issuer.revocation_endpoint:
        return "it has no revocation endpoint"
    form = [("token", tokens.refresh), ("token_type_hint", "refresh_token"), ("client_id", client.client_id)]
    try:
        answer = ask(issuer.revocation_endpoint, form, client.credentials)
    except LeaseholdError as error:
        return error.message
    return "" if answer.status == 200 else answer.error()
