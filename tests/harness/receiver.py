"""A webhook receiver behind a proxy: keeps every request and answers 204.

usage: receiver.py FOLDER

The port is in FOLDER/port once it listens. Request 1 is in FOLDER/1.body, byte for byte, and
FOLDER/1.json (method, path, headers as a list of pairs, in the order they came); the .json is there
only when the .body is whole. FOLDER/answer, when it exists, holds the status to answer instead, and
FOLDER/delay how many seconds to wait before that.
"""

import http.server
import itertools
import json
import os
import pathlib
import sys
import time

FOLDER = pathlib.Path(sys.argv[1])
NUMBERS = itertools.count(1)  # next() on it is atomic under the interpreter's lock


def write_whole(path, data):
    """In one step, for readers that look while it is written."""
    beside = path.with_name(path.name + ".new")
    beside.write_bytes(data)
    os.replace(beside, path)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections open

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        number = next(NUMBERS)
        facts = {
            "method": self.command,
            "path": self.path,
            "headers": [[name, value] for name, value in self.headers.items()],
        }
        write_whole(FOLDER / f"{number}.body", body)
        write_whole(FOLDER / f"{number}.json", json.dumps(facts).encode())
        time.sleep(self.delay())
        status = self.status()
        self.send_response(status)
        if status != 204:  # which has no length (RFC 9110 section 8.6)
            self.send_header("content-length", "0")
        self.end_headers()

    do_GET = do_PUT = do_POST

    def delay(self):
        try:
            return float((FOLDER / "delay").read_text())
        except FileNotFoundError:
            return 0

    def status(self):
        try:
            return int((FOLDER / "answer").read_text())
        except FileNotFoundError:
            return 204


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
write_whole(FOLDER / "port", str(server.server_port).encode())
server.serve_forever()
