"""PKCS #1 v1.5 signatures whose padding is wrong: real private-key operations over encodings that nobody may accept.

Re-states the `ModifiedPadding` cases of Wycheproof: every part of the DigestInfo is encoded wrongly in each of many
ways, and so is the block around it. What a verifier reads after the public-key operation is the bytes made here.
"""

import hashlib
from collections.abc import Iterator

from cryptography.hazmat.primitives.asymmetric import rsa

_OIDS = {"sha256": "608648016503040201", "sha384": "608648016503040202", "sha512": "608648016503040203"}
_SHA1 = "2b0e03021a"
_MD5 = "2a864886f70d0205"


def _tlv(tag: int, value: bytes) -> bytes:
    return bytes([tag]) + _length(len(value)) + value


def _length(size: int) -> bytes:
    if size < 128:
        return bytes([size])
    text = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes([0x80 | len(text)]) + text


def _mutations(tag: int, value: bytes) -> Iterator[tuple[str, bytes]]:
    """One element, encoded wrongly in every way, by Wycheproof's names."""
    size, good = len(value), _tlv(tag, value)
    lengths = {
        "longFormEncodingOfLength": b"\x81" + bytes([size]),
        "lengthContainsLeading0": b"\x82\x00" + bytes([size]),
        "lengthTooLarge": bytes([size + 1]),
        "lengthTooSmall": bytes([max(size - 1, 0)]) if size else b"\x01",
        "uint32OverflowInLength": b"\x85\x01\x00\x00\x00" + bytes([size]),
        "uint64OverflowInLength": b"\x89\x01" + bytes(7) + bytes([size]),
        "lengthIs2to31sub1": b"\x84\x7f\xff\xff\xff",
        "lengthIs2to31": b"\x84\x80\x00\x00\x00",
        "lengthIs2to32sub1": b"\x84\xff\xff\xff\xff",
        "lengthIs2to40sub1": b"\x85" + b"\xff" * 5,
        "lengthIs2to64sub1": b"\x88" + b"\xff" * 8,
        "incorrectLength": b"\xff",
        "indefiniteLengthWithoutTermination": b"\x80",
        "truncatedLength": b"\x84",
    }
    for name, length in lengths.items():
        yield name, bytes([tag]) + length + value
    yield "removing", b""
    yield "lonelyTag", bytes([tag])
    yield "droppingValue", _tlv(tag, b"")
    yield "appending0s", _tlv(tag, value + b"\0\0")
    yield "prepending0s", _tlv(tag, b"\0\0" + value)
    yield "appendingUnused0s", good + b"\0\0"
    yield "appendingNullValue", _tlv(tag, value + b"\5\0")
    yield "prependingGarbage", _tlv(tag, b"\x49\x81\x77" + value)
    yield "prependingGarbageOutside", b"\x25\0" + good
    yield "appendingGarbage", _tlv(tag, value) + b"\x49\x81\x77"
    yield "includingUndefinedTags", b"\xaa\0\xbb\0\xcd\0" + good
    yield "includingUndefinedTagsInside", _tlv(tag, b"\xaa\2\xb1\0" + value)
    yield "compositionWithIndefiniteLength", bytes([0x20 | tag, 0x80]) + good + b"\0\0"
    yield "compositionWithWrongTag", bytes([0x20 | tag, 0x80]) + _tlv(0x31, value) + b"\0\0"
    if tag != 5:
        yield "replacingWithNull", b"\5\0"
    for wrong in (0x2E, 0x2F, 0x32, 0xFF, 0x31 if tag == 0x30 else 0x30):
        yield f"changingTag{wrong:02x}", _tlv(wrong, value)
    if value:
        yield "modifyFirstByte", _tlv(tag, bytes([value[0] ^ 2]) + value[1:])
        yield "modifyLastByte", _tlv(tag, value[:-1] + bytes([value[-1] ^ 0x80]))
        yield "truncateFirstByte", _tlv(tag, value[1:])
        yield "truncateLastByte", _tlv(tag, value[:-1])
        yield "doubled", good + good


def _digest_infos(digest: bytes, oid: bytes) -> Iterator[tuple[str, bytes]]:
    names, null, octets = _tlv(6, oid), _tlv(5, b""), _tlv(4, digest)
    inner = names + null
    for name, bad in _mutations(0x30, _tlv(0x30, inner) + octets):
        yield f"sequence:{name}", bad
    for name, bad in _mutations(0x30, inner):
        yield f"algorithm:{name}", _tlv(0x30, bad + octets)
    for name, bad in _mutations(6, oid):
        yield f"oid:{name}", _tlv(0x30, _tlv(0x30, bad + null) + octets)
    for name, bad in _mutations(5, b""):
        yield f"null:{name}", _tlv(0x30, _tlv(0x30, names + bad) + octets)
    for name, bad in _mutations(4, digest):
        yield f"digest:{name}", _tlv(0x30, _tlv(0x30, inner) + bad)
    for name, text in {"sha1": _SHA1, "md5": _MD5, **_OIDS}.items():
        if bytes.fromhex(text) != oid:
            yield f"oidOf:{name}", _tlv(0x30, _tlv(0x30, _tlv(6, bytes.fromhex(text)) + null) + octets)
    yield "digestAlone", digest
    yield "octetsAlone", octets


def _blocks(good: bytes, size: int) -> Iterator[tuple[str, bytes]]:
    fill = size - len(good) - 3
    yield "blockType0", b"\0\0" + bytes(fill) + b"\0" + good
    yield "blockType2", b"\0\2" + b"\xff" * fill + b"\0" + good
    yield "blockType1WithZeros", b"\0\1" + bytes(fill) + b"\0" + good
    yield "firstByte1", b"\1\1" + b"\xff" * fill + b"\0" + good
    yield "noZero", b"\0\1" + b"\xff" * (fill + 1) + good
    yield "fillFe", b"\0\1" + b"\xfe" * fill + b"\0" + good
    yield "fillEndsFe", b"\0\1" + b"\xff" * (fill - 1) + b"\xfe\0" + good
    yield "fillBeginsFe", b"\0\1\xfe" + b"\xff" * (fill - 1) + b"\0" + good
    yield "twoZeros", b"\0\1" + b"\xff" * (fill - 1) + b"\0\0" + good
    for kept in (0, 1, 7, 8):  # the short padding that low exponents forge
        yield f"shortFill{kept}", b"\0\1" + b"\xff" * kept + b"\0" + good + bytes(fill - kept)
        yield f"shortFillGarbage{kept}", b"\0\1" + b"\xff" * kept + b"\0" + good + b"\x55" * (fill - kept)
    yield "notPadded", bytes(size - len(good)) + good
    yield "atTheFront", (good + bytes(size))[:size]


def _private(numbers: rsa.RSAPrivateNumbers, block: bytes) -> int:
    """The private-key operation (RFC 8017, section 5.1.2)."""
    value = int.from_bytes(block)
    first, second = pow(value, numbers.dmp1, numbers.p), pow(value, numbers.dmq1, numbers.q)
    return second + numbers.q * ((first - second) * numbers.iqmp % numbers.p)


def bad_signatures(key: rsa.RSAPrivateKey, name: str, message: bytes) -> Iterator[tuple[str, bytes]]:
    """Names and signatures over `message`; each is made with the private key and each is wrong.

    Args:
        key: the private key.
        name: "sha256", "sha384" or "sha512".
        message: the signed bytes.
    """
    numbers, size = key.private_numbers(), key.key_size // 8
    modulus = numbers.public_numbers.n
    digest, oid = hashlib.new(name, message).digest(), bytes.fromhex(_OIDS[name])
    good = _tlv(0x30, _tlv(0x30, _tlv(6, oid) + _tlv(5, b"")) + _tlv(4, digest))
    encodings = [(case, info, True) for case, info in _digest_infos(digest, oid) if info != good]
    encodings += [(case, block, False) for case, block in _blocks(good, size)]
    for case, text, wrap in encodings:
        block = b"\0\1" + b"\xff" * (size - len(text) - 3) + b"\0" + text if wrap else text
        yield case, _private(numbers, block).to_bytes(size)
    block = b"\0\1" + b"\xff" * (size - len(good) - 3) + b"\0" + good
    signature = _private(numbers, block)
    right = signature.to_bytes(size)
    yield "plusModulus", (signature + modulus).to_bytes(size + 1)
    yield "leadingZero", b"\0" + right
    yield "trailingZero", right + b"\0"
    yield "truncated", right[:-1]
    yield "empty", b""
    yield "zero", bytes(size)
    yield "one", (1).to_bytes(size)
    yield "modulusMinusOne", (modulus - 1).to_bytes(size)
    yield "negated", (modulus - signature).to_bytes(size)
    yield "blockItself", block
