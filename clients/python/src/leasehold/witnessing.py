"""Have witnesses cosign a checkpoint: C2SP tlog-witness, add-checkpoint. Owns the question, its bounds and the answer.

A witness remembers the size that it cosigned last and takes a proof from there alone. All of them must be asked about
one and the same checkpoint, so where the log has signed a newer one between two proofs, all are asked anew.
"""

import base64
import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from leasehold.checkpoint import unverified_size
from leasehold.errors import InvalidRequest
from leasehold.note import SignedNote
from leasehold.witnesses import Witness, WitnessPolicy

ATTEMPTS_MAX = 8
SILENCE_SECONDS_MAX = 10.0
ANSWER_BYTES_MAX = 16_384
SIZE_DIGITS_MAX = 19
ANSWER_SECONDS_MAX = 20.0
_OK, _CONFLICT, _UNPROVEN = 200, 409, 422

Proved = tuple[bytes, Sequence[bytes]]
"""A signed note, and the proof that its log begins with what was asked for."""


class WitnessFailedError(Exception):
    """A witness gave no cosignature; says why, and nothing that it may have put into its answer."""


@dataclass(slots=True)
class Witnessed:
    """What came of it.

    Args:
        note: the checkpoint, with every cosignature that holds.
        cosigners: names of the witnesses that gave one.
        failed: why, by name, of the others.
        contradicted: one of them saw another history of this log.
    """

    note: bytes
    cosigners: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    contradicted: bool = False


def have_witnessed(policy: WitnessPolicy, prove: Callable[[int], Proved], kept: int, seen: int) -> Witnessed:
    """Ask every witness of the policy that has a URL.

    Args:
        policy: who.
        prove: gives the newest checkpoint and the proof from a size.
        kept: size from which a proof is asked for besides, whoever needs it: `prove` may look at it.
        seen: size that the witnesses are thought to have seen last.

    Raises:
        InvalidRequest: the collector refuses a proof, or signs new checkpoints faster than witnesses can be asked.
    """
    asked = {name: witness for name, witness in policy.witnesses.items() if witness.url}
    sizes = dict.fromkeys(asked, seen)
    for _ in range(ATTEMPTS_MAX):
        proofs = {old: prove(old) for old in {kept, *sizes.values()}}
        note = proofs[kept][0]
        if all(one == note for one, _ in proofs.values()):
            found = _round(asked, sizes, proofs, note)
            if found is not None:
                return found
    raise InvalidRequest.of_field(
        "log", f"had a newer checkpoint each of {ATTEMPTS_MAX} times: no two witnesses saw one"
    )


def _round(
    asked: Mapping[str, Witness], sizes: dict[str, int], proofs: Mapping[int, Proved], note: bytes
) -> Witnessed | None:
    """Ask each once; None when one of them knows of another size, which is noted: all are asked anew."""
    found, again, size = Witnessed(note), False, unverified_size(note)[0]
    for name, witness in asked.items():
        try:
            status, body = _post(witness, _question(sizes[name], proofs[sizes[name]][1], note))
            known = _size(body) if status == _CONFLICT else 0
            if known > size or status == _UNPROVEN:
                found.contradicted = True
                seen = f"{known} events" if known else f"other events among the first {sizes[name]}"
                found.failed[name] = f"it has seen {seen}: this log of {size} was cut, forked or rewritten"
            elif status == _CONFLICT and known != sizes[name]:
                sizes[name], again = known, True
            elif status != _OK:
                found.failed[name] = f"it answered {status}"
            else:
                found.note = _with(found.note, body, witness)
                found.cosigners.append(name)
                sizes[name] = size
        except WitnessFailedError as failed:
            found.failed[name] = str(failed)
    return None if again else found


def _question(old: int, proof: Sequence[bytes], note: bytes) -> bytes:
    hashes = "".join(f"{base64.b64encode(one).decode()}\n" for one in proof)
    return f"old {old}\n{hashes}\n".encode() + note


def _size(body: bytes) -> int:
    digits = body.removesuffix(b"\n")
    if not digits.isdigit() or len(digits) > SIZE_DIGITS_MAX:
        raise WitnessFailedError("it knows another size, and does not say which")
    return int(digits)


def _with(note: bytes, lines: bytes, witness: Witness) -> bytes:
    """The note with the witness's own line of an answer, once that holds: others are nobody's business here."""
    text = note[: note.rindex(b"\n\n") + 2]
    try:
        answer = SignedNote.of_bytes(text + lines, "answer")
        if answer.cosigned_seconds(witness.key) is None:
            raise WitnessFailedError("its answer has no cosignature of its key")
    except InvalidRequest as refused:
        message = f"its {refused.violations[0].subject} {refused.violations[0].description}"
        raise WitnessFailedError(message) from None
    id_, raw = next(
        (id_, raw) for name, id_, raw in answer.signatures if (name, id_) == (witness.key.name, witness.key.id)
    )
    return note + f"\u2014 {witness.key.name} {base64.b64encode(id_ + raw).decode()}\n".encode()


def _post(witness: Witness, body: bytes) -> tuple[int, bytes]:
    """Status and body.

    Raises:
        WitnessFailedError: there is no answer, or one beyond any that a witness gives.
    """
    url = urlsplit(witness.url)
    wrong = _url_wrong(witness.url)
    if wrong:
        raise WitnessFailedError(wrong)
    connection: http.client.HTTPConnection
    if url.scheme == "https":
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(url.netloc, timeout=SILENCE_SECONDS_MAX, context=context)
    else:
        connection = http.client.HTTPConnection(url.netloc, timeout=SILENCE_SECONDS_MAX)
    limit = threading.Timer(ANSWER_SECONDS_MAX, _hang_up, [connection])
    limit.daemon = True
    limit.start()
    try:
        path = f"{url.path.rstrip('/')}/add-checkpoint"
        connection.request("POST", path, body, {"User-Agent": "leasehold", "Content-Type": "text/plain; charset=utf-8"})
        answer = connection.getresponse()
        data = answer.read(ANSWER_BYTES_MAX + 1)
    except (OSError, http.client.HTTPException) as error:
        message = f"it cannot be asked: {type(error).__name__}"
        raise WitnessFailedError(message) from None
    finally:
        limit.cancel()
        connection.close()
    if len(data) > ANSWER_BYTES_MAX:
        raise WitnessFailedError("its answer is longer than any that a witness gives")
    return answer.status, data


def _hang_up(connection: http.client.HTTPConnection) -> None:
    """End a wait that a silence of each byte would not: whoever reads sees the end."""
    if connection.sock is not None:
        with contextlib.suppress(OSError):
            socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)


def _url_wrong(text: str) -> str:
    try:
        url = urlsplit(text)
        host = url.hostname or ""
        _ = url.port
    except ValueError:
        return "its URL cannot be read"
    if url.scheme == "https" and host and not url.query and not url.fragment and "@" not in url.netloc:
        return ""
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if url.scheme == "http" and loopback:
        return ""
    return "its URL is neither https nor on this machine"
