"""Public keys whose private half can be computed. Owns the test for ROCA; refuses to try any factoring.

Keys made by a widespread chip library (CVE-2017-15361) have primes of the form k*M + (65537**a mod M). Such a modulus
lies, for every small prime, in the group that 65537 generates; another one does so once in 2**27 keys.
"""

_PRIMES = tuple(prime for prime in range(3, 168) if all(prime % factor for factor in range(2, int(prime**0.5) + 1)))


def _powers(prime: int) -> frozenset[int]:
    """The group that 65537 generates modulo `prime`."""
    return frozenset(pow(65537, exponent, prime) for exponent in range(prime - 1))


_GROUPS = tuple((prime, _powers(prime)) for prime in _PRIMES)


def has_roca(modulus: int) -> bool:
    """True when an RSA modulus has the fingerprint of the weak generator."""
    return all(modulus % prime in group for prime, group in _GROUPS)
