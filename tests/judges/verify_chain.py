"""Whether Python's `cryptography` verifies chains, and what it reads in revocation lists."""

import json
import sys

from cryptography import x509
from cryptography.x509 import verification


def certificate(path):
    with open(path, "rb") as file:
        return x509.load_pem_x509_certificate(file.read())


def verified(chain):
    builder = verification.PolicyBuilder().store(
        verification.Store([certificate(chain["anchor"])])
    )
    if chain["server_name"]:
        verifier = builder.build_server_verifier(x509.DNSName(chain["server_name"]))
    else:
        verifier = builder.build_client_verifier()
    try:
        verifier.verify(
            certificate(chain["leaf"]), [certificate(path) for path in chain["between"]]
        )
    except verification.VerificationError as error:
        return str(error)
    return "verified"


def read(path, signer):
    with open(path, "rb") as file:
        crl = x509.load_pem_x509_crl(file.read())
    number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    return {
        "signed": crl.is_signature_valid(certificate(signer).public_key()),
        "number": number,
        "serials": [f"{entry.serial_number:x}" for entry in crl],
    }


question = json.load(sys.stdin)
json.dump(
    {
        "chains": {name: verified(chain) for name, chain in question["chains"].items()},
        "lists": {name: read(*paths) for name, paths in question["lists"].items()},
    },
    sys.stdout,
)
