"""An HTTP/1.1 server that takes its time: GET /SECONDS answers after so many seconds, POST with the length of the body.

usage: slow_server.py HOST:PORT NAME
"""

import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Slow(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body leave in two writes; without this the second waits for the peer's delayed acknowledgement.
    disable_nagle_algorithm = True

    def do_GET(self):
        time.sleep(float(self.path.strip("/") or 0))
        self.answer(self.server.name.encode())

    def do_POST(self):
        length = int(self.headers["content-length"])
        self.answer(str(len(self.rfile.read(length))).encode())

    def answer(self, body):
        self.send_response(200)
        self.send_header("content-type", "text/plain")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


class Server(ThreadingHTTPServer):
    # The default of 5 drops connections that begin together, and their callers try again a second later.
    request_queue_size = 1024


def main(address, name):
    host, port = address.rsplit(":", 1)
    server = Server((host, int(port)), Slow)
    server.name = name
    print("serving", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
