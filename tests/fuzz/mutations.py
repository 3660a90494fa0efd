"""Seeded mutations of inputs, for the short run that needs no fuzzer. Owns no knowledge of any target."""

import random

WORDS = (
    b"\0",
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b'"',
    b"\\u0000",
    b"\\ud800",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"null",
    b"NaN",
    b"1e999",
    b"-0",
    b"9" * 25,
    b"\xef\xbb\xbf",
    b"\xff",
    b"..",
    b"/",
    b"%2e",
    b"?",
    b"&",
    b"=",
    b"key=",
    b"data: ",
    b"event: ",
    b"[DONE]",
    b"chunked",
    b"content-length: 1\r\n",
    b"transfer-encoding: chunked\r\n",
    b"0\r\n\r\n",
    b"\x80\x01",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
)


def mutated(chance: random.Random, inputs: list[bytes], bytes_max: int) -> bytes:
    """One of the inputs, changed in one to four places.

    Args:
        chance: seeded, so that a run can be repeated.
        inputs: at least one.
        bytes_max: the result is cut to this.
    """
    data = bytearray(chance.choice(inputs))
    for _ in range(chance.randint(1, 4)):
        start = chance.randint(0, len(data))
        end = min(len(data), start + chance.choice((0, 0, 1, 1, 2, 8, 64)))
        other = chance.choice(inputs)
        from_byte = chance.randint(0, len(other))
        data[start:end] = chance.choice(
            (
                b"",
                chance.randbytes(chance.randint(1, 4)),
                chance.choice(WORDS),
                other[from_byte : from_byte + chance.randint(1, 64)],
                data[start:end] * 2,
            )
        )
    return bytes(data[:bytes_max])
