"""The part of connectivity that runs on a real host: relays, bridges, port mapping."""
