"""Judges an export of the audit log with nothing of ours: hashes by Python, signatures by `cryptography`.

Asked with the events and checkpoints as the API gives them; answers with how many events hang together, how
many signatures fit, and what is wrong.
"""

import base64
import hashlib
import json
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

question = json.load(sys.stdin)
key = Ed25519PublicKey.from_public_bytes(base64.b64decode(question["public_key"]))
wrong = []
hashes = {0: bytes(32)}
for number, event in enumerate(question["events"], start=1):
    line = event["line"].encode()
    expected = hashlib.sha256(hashes[number - 1] + line).digest()
    hashes[number] = expected
    record = json.loads(line)
    if base64.b64decode(event["hash"]) != expected:
        wrong.append(f"hash of {number}")
    if record["sequence"] != number or int(event["sequence"]) != number:
        wrong.append(f"number of {number}")
    if record["principal"] != event.get("principal", ""):
        wrong.append(f"principal of {number}")

signatures = 0
for checkpoint in question["checkpoints"]:
    number = int(checkpoint["sequence"])
    micros = question["sign_micros"][str(number)]
    digest = base64.b64decode(checkpoint["hash"])
    if hashes.get(number) != digest:
        wrong.append(f"checkpoint over {number}")
        continue
    message = f"countersign-audit-checkpoint-v1\n{number}\n{digest.hex()}\n{micros}\n".encode()
    try:
        key.verify(base64.b64decode(checkpoint["signature"]), message)
        signatures += 1
    except InvalidSignature:
        wrong.append(f"signature over {number}")

print(json.dumps({"events": len(question["events"]), "signatures": signatures, "wrong": wrong}))
