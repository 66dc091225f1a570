"""What pkilint says about certificates, revocation lists, and each certificate and its signer."""

import contextlib
import io
import json
import sys

from pkilint.bin import lint_crl, lint_pkix_cert, lint_pkix_signer_signee_cert_chain


def findings(linter, *arguments):
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        linter.main(["lint", "-f", "JSON", *arguments])
    found = set()
    for result in json.loads(output.getvalue())["results"]:
        for finding in result["finding_descriptions"]:
            found.add(f"{finding['severity']} {finding['code']}")
    return sorted(found)


question = json.load(sys.stdin)
json.dump(
    {
        "certificates": {
            name: findings(lint_pkix_cert, path)
            for name, path in question["certificates"].items()
        },
        "lists": {
            name: findings(lint_crl, "-t", "CRL", "-p", "PKIX", path)
            for name, path in question["lists"].items()
        },
        "pairs": {
            name: findings(lint_pkix_signer_signee_cert_chain, signer, signee)
            for name, (signer, signee) in question["pairs"].items()
        },
    },
    sys.stdout,
)
