"""A ledger as it was before there was a mesh: plain HTTP on loopback, and no idea of certificates."""

import http.server
import json
import sys


class Ledger(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        entry = self.path.rsplit("/", 1)[-1]
        # It may look at who asks, and need not.
        caller = self.headers.get("x-sallyport-peer", "somebody")
        body = json.dumps({"entry": entry, "cents": 1200, "for": caller}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Ledger).serve_forever()
