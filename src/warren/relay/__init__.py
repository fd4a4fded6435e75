"""The relay: a TURN server (``proto/turn``) with sockets, as a process of its own."""
