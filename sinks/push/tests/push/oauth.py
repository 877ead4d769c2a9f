"""Reads a request for a token as an OAuth server would: RFC 7523, with the claims of Google's service accounts."""

import sys
import time
import urllib.parse

import jwt

form, key, audience = sys.argv[1:]
fields = urllib.parse.parse_qs(open(form).read(), strict_parsing=True)
assert set(fields) == {"grant_type", "assertion"}, fields
assert fields["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"], fields
[assertion] = fields["assertion"]
assert jwt.get_unverified_header(assertion)["alg"] == "RS256"
claims = jwt.decode(assertion, open(key).read(), algorithms=["RS256"], audience=audience)
assert claims["iss"] == "push@forecasts-1.example", claims
assert claims["scope"] == "https://www.googleapis.com/auth/firebase.messaging", claims
assert claims["exp"] - claims["iat"] <= 3600 and abs(claims["iat"] - time.time()) < 60, claims
