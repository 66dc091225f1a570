"""Verifies a webhook with the reference library of Standard Webhooks, as a receiver does."""

import base64
import json
import sys

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

question = json.load(sys.stdin)
body = base64.b64decode(question["body"])
try:
    Webhook(question["secret"]).verify(body, question["headers"])
    answer = {"verified": True}
except WebhookVerificationError as error:
    answer = {"verified": False, "error": str(error)}
json.dump(answer, sys.stdout)
