"""Refuses connections beyond this machine, and notes them: on the path of all that tests start.

Python runs it in every process before anything else, so in DVC, stages, their workers and
notebooks alike. Libraries that open sockets in C of their own are not seen.
"""

import ipaddress
import os
import sys
from pathlib import Path

LOCAL = {None, "", "localhost"}


def _beyond(host):
    if host in LOCAL:
        return False
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True  # a name, which a server elsewhere would resolve


def _watch(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None  # else a socket of this machine
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if _beyond(host):
        with Path(os.environ["SEERNET_TEST_CONNECTIONS"]).open("a", encoding="utf-8") as file:
            file.write(f"{event} {host}: {' '.join(sys.argv)}\n")
        raise ConnectionRefusedError(f"a test reached for {host}")


sys.addaudithook(_watch)
