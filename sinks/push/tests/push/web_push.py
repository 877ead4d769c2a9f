"""Reads a Web Push request as a browser and its push service would, and prints the payload."""

import base64
import sys
import time

import http_ece
import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from py_vapid import Vapid02


def decode(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


path, private, auth, authorization, origin, public = sys.argv[1:]
body = open(path, "rb").read()

# RFC 8188: salt, record size, length of the key, key; and one record only (RFC 8291, section 4).
assert int.from_bytes(body[16:20], "big") >= len(body) - 86, "more than one record"
assert body[20] == 65

key = ec.derive_private_key(int.from_bytes(decode(private), "big"), ec.SECP256R1())
payload = http_ece.decrypt(body, private_key=key, auth_secret=decode(auth), version="aes128gcm")

# RFC 8292, with two libraries.
assert Vapid02.verify(auth=authorization), "py_vapid refuses the token"
scheme, parameters = authorization.split(" ", 1)
assert scheme == "vapid", scheme
parameters = dict(part.strip().split("=", 1) for part in parameters.split(","))
assert parameters["k"] == public
point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), decode(public))
claims = jwt.decode(parameters["t"], point, algorithms=["ES256"], audience=origin)
assert claims["sub"] == "mailto:ops@example.com", claims
assert time.time() < claims["exp"] <= time.time() + 24 * 3600, claims

sys.stdout.buffer.write(payload)
