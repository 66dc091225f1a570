"""Verifies receipts as JSON Web Signatures with PyJWT, and the certificates that they carry with PyCA
cryptography: nothing of Countersign's is used.

Question: {"receipts": [compact, …], "authority": PEM}. Answer: [{"header": …, "content": …} or {"error": …}, …].
"""

import base64
import json
import sys

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

question = json.load(sys.stdin)
authority = x509.load_pem_x509_certificate(question["authority"].encode())
answers = []
for receipt in question["receipts"]:
    try:
        header = jwt.get_unverified_header(receipt)
        leaf = x509.load_der_x509_certificate(base64.b64decode(header["x5c"][0]))
        leaf.verify_directly_issued_by(authority)
        decoded = jwt.PyJWS().decode_complete(receipt, leaf.public_key(), algorithms=["ES256"])
        answers.append({"header": header, "content": json.loads(decoded["payload"])})
    except Exception as error:  # whatever it is, it is the answer
        answers.append({"error": f"{type(error).__name__}: {error}"})
json.dump(answers, sys.stdout)
