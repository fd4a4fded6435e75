"""Our STUN server on sockets, as a program: ``python -m tests.support.stun_server [--any-size] ADDRESS… -- PORT…``.

Two addresses and two ports make it one for RFC 5780. It says ``ready`` and serves until it is ended.
"""

from __future__ import annotations

import selectors
import socket
import sys
import time
from ipaddress import ip_address

from warren.errors import MalformedPacket
from warren.model.tunnel import TransportAddress
from warren.proto.stun.message import decode_untrusted
from warren.proto.stun.server import BindingServer, Discovery


def main(arguments: list[str]) -> None:
    any_size = "--any-size" in arguments
    at = arguments.index("--")
    addresses = tuple(ip_address(text) for text in arguments[:at] if not text.startswith("--"))
    ports = tuple(int(text) for text in arguments[at + 1 :])
    server = BindingServer(discovery=[Discovery(addresses, ports)], any_size=any_size)
    sockets: dict[TransportAddress, socket.socket] = {}
    selector = selectors.DefaultSelector()
    for ip in addresses:
        for port in ports:
            one = socket.socket(socket.AF_INET if ip.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
            one.bind((str(ip), port))
            local = TransportAddress(ip, port)
            sockets[local] = one
            selector.register(one, selectors.EVENT_READ, local)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        for key, _ in selector.select():
            data, source = sockets[key.data].recvfrom(4096)
            try:
                message = decode_untrusted(data)
            except MalformedPacket:
                continue
            remote = TransportAddress(ip_address(source[0]), source[1])
            reply = server.answer(message, remote, key.data, time.monotonic())
            if reply is not None:
                sockets[reply.source].sendto(reply.data, (str(reply.remote.ip), reply.remote.port))


if __name__ == "__main__":
    main(sys.argv[1:])
