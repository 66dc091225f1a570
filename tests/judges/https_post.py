"""POSTs over TLS with Python's own client (OpenSSL), with or without a client certificate."""

import base64
import http.client
import json
import ssl
import sys
import urllib.parse

question = json.load(sys.stdin)
context = ssl.create_default_context(cadata=question["ca_pem"])
if question["client"]:
    context.load_cert_chain(*question["client"])
url = urllib.parse.urlsplit(question["url"])
path = url.path + (f"?{url.query}" if url.query else "")
connection = http.client.HTTPSConnection(url.hostname, url.port, context=context, timeout=30)
try:
    connection.request("POST", path, base64.b64decode(question["body"]), question["headers"])
    response = connection.getresponse()
    answer = {"status": response.status, "body": response.read().decode("utf-8", "replace")}
except OSError as error:  # an alert, a reset
    answer = {"error": str(error)}
json.dump(answer, sys.stdout)
