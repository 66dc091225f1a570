"""A service account's token as Kubernetes signs it: a JWT (RFC 7519) with RS256, by PyCA cryptography.

Question: {"audience": …}. Answer: {"token": …, "public_key": PEM}.
"""

import base64
import json
import sys
import time

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa


def part(value):
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=")


question = json.load(sys.stdin)
key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
now = int(time.time())
claims = {
    "iss": "https://kubernetes.default.svc.cluster.local",
    "sub": "system:serviceaccount:countersign:control-plane",
    "aud": [question["audience"]],
    "iat": now,
    "nbf": now,
    "exp": now + 3600,
}
signed = part({"alg": "RS256", "typ": "JWT"}) + b"." + part(claims)
signature = key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
public = key.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)
answer = {
    "token": (signed + b"." + part(signature)).decode(),
    "public_key": public.decode(),
}
json.dump(answer, sys.stdout)
