"""Calls of AWS services with boto3, AWS's own client library, one after the other.

Question: {"endpoint": URL, "calls": [["service.operation", {arguments}], …]}. Answer: what each call
returns, without the parts that are about HTTP.
"""

import json
import sys

import boto3

question = json.load(sys.stdin)
answers = []
for action, arguments in question["calls"]:
    service, operation = action.split(".")
    client = boto3.client(
        service,
        endpoint_url=question["endpoint"],
        region_name="eu-central-1",
        aws_access_key_id="someone",
        aws_secret_access_key="something",
    )
    answer = getattr(client, operation)(**arguments)
    answer.pop("ResponseMetadata", None)
    answers.append(answer)
json.dump(answers, sys.stdout, default=str)
