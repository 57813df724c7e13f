"""slow.py PORT PID: a thousand clients read 100 MB over TLS, four kilobytes a second each. Prints what
memory the process PID takes before and while they do, and the difference as `= N MiB`."""

import socket
import ssl
import sys
import time

CLIENTS = 1000
SECONDS = 8


def memory(pid):
    """What is the process's own, in MiB: pages of files do not count."""
    with open(f"/proc/{pid}/status") as status:
        for line in status:
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) / 1024
    raise SystemExit("no RssAnon")


def connect(context, port):
    plain = socket.create_connection(("127.0.0.1", port), timeout=30)
    client = context.wrap_socket(plain)
    client.sendall(b"GET /images/100M HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return client


def main():
    port, pid = int(sys.argv[1]), sys.argv[2]
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    before = memory(pid)
    clients = [connect(context, port) for _ in range(CLIENTS)]
    seen = []
    for _ in range(SECONDS):
        start = time.monotonic()
        for client in clients:
            if not client.recv(4096):
                raise SystemExit("a client was cut off")
        seen.append(memory(pid))
        time.sleep(max(0, 1 - (time.monotonic() - start)))
    print(f"before {before:.1f} MiB, with {CLIENTS} clients", *(f"{value:.1f}" for value in seen), "MiB")
    print(f"= {max(seen) - before:.2f} MiB")


main()
