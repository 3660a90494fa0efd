"""Signing a person in at an OpenID provider, from a terminal. Owns the two flows and the session on this disk.

`code_flow` for machines with a browser (RFC 8252), `device_flow` for those without (RFC 8628). The collector verifies
the token that comes of it, as any operator's, on each call: nothing here decides what anybody may do. Needs nothing but
the standard library; that no signature is checked here is OpenID Connect Core, 3.1.3.7, item 6: the token comes over
TLS from the issuer itself.
"""
