"""Which of a webhook's v1a signatures (Standard Webhooks, Ed25519) are of which public key."""

import base64
import json
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

question = json.load(sys.stdin)
headers = question["headers"]
head = f"{headers['webhook-id']}.{headers['webhook-timestamp']}."
message = head.encode() + base64.b64decode(question["body"])
signatures = [
    base64.b64decode(value.removeprefix("v1a,"))
    for value in headers["webhook-signature"].split(" ")
    if value.startswith("v1a,")
]


def verifies(text, signature):
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(text.removeprefix("whpk_")))
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True


of_keys = [
    [verifies(text, signature) for signature in signatures] for text in question["public_keys"]
]
json.dump({"of_keys": of_keys}, sys.stdout)
