"""A shop that asks a ledger by plain HTTP. Where `http_proxy` points is no business of its own."""

import sys
import urllib.error
import urllib.request

for url in sys.argv[1:]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            print(url, answer.status, answer.read().decode(), flush=True)
    except urllib.error.HTTPError as refusal:
        print(url, refusal.code, refusal.reason, flush=True)
