"""Streams and datagrams of layer 4: carried between this host and the overlay, by a process of its own."""
