"""What Kubernetes does for a key service: it makes a service account's token and reviews such tokens (the call
`TokenReview` of authentication.k8s.io/v1), over TLS on the loopback interface.

usage: kubernetes.py FOLDER CERTIFICATE KEY

FOLDER/token holds the token of a pod of the service account `control-plane` in the namespace `countersign`, a JWT
(RFC 7519) with RS256, and FOLDER/port the port once it listens.
"""

import base64
import http.server
import json
import os
import pathlib
import ssl
import sys
import time

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

FOLDER = pathlib.Path(sys.argv[1])
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
ACCOUNT = {"name": "control-plane", "uid": "7f1d3c52-6b0c-4d0e-9a1f-1f0b5c1d2e3f"}
USER = f"system:serviceaccount:countersign:{ACCOUNT['name']}"
PATH = "/apis/authentication.k8s.io/v1/tokenreviews"


def part(value):
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=")


def unpart(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def make_token():
    now = int(time.time())
    claims = {
        "iss": "https://kubernetes.default.svc.cluster.local",
        "sub": USER,
        "aud": ["vault"],
        "iat": now,
        "nbf": now,
        "exp": now + 3600,
        "kubernetes.io": {"namespace": "countersign", "serviceaccount": ACCOUNT},
    }
    signed = part({"alg": "RS256", "typ": "JWT"}) + b"." + part(claims)
    return signed + b"." + part(KEY.sign(signed, padding.PKCS1v15(), hashes.SHA256()))


def status_of(token):
    try:
        head, claims, signature = token.split(".")
        signed = f"{head}.{claims}".encode()
        KEY.public_key().verify(
            unpart(signature), signed, padding.PKCS1v15(), hashes.SHA256()
        )
        audiences = json.loads(unpart(claims))["aud"]
    except (ValueError, KeyError, InvalidSignature):
        return {"authenticated": False, "error": "the token is not one of this cluster"}
    user = {"username": USER, "uid": ACCOUNT["uid"], "groups": ["system:serviceaccounts"]}
    return {"authenticated": True, "user": user, "audiences": audiences}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        review = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path != PATH:
            self.send_error(404)
            return
        review |= {"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1"}
        review["status"] = status_of(review["spec"]["token"])
        answer = json.dumps(review).encode()
        self.send_response(201)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


def write_whole(path, data):
    """In one step, for readers that look while it is written."""
    beside = path.with_name(path.name + ".new")
    beside.write_bytes(data)
    beside.chmod(0o600)
    os.replace(beside, path)


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2], sys.argv[3])
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True)
write_whole(FOLDER / "token", make_token())
write_whole(FOLDER / "port", str(server.server_port).encode())
server.serve_forever()
