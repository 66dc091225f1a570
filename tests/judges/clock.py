"""What time it is, and what time a text says: openssl's form or RFC 3339; seconds since 1970."""

import datetime
import json
import ssl
import sys
import time

question = json.load(sys.stdin)


def seconds(text):
    if text.endswith("GMT"):
        return ssl.cert_time_to_seconds(text)
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


times = {name: seconds(text) for name, text in question.items()}
json.dump({"seconds": int(time.time()), "times": times}, sys.stdout)
