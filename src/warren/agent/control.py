"""The control socket: what ``warren`` on this machine may ask of the agent (``org.warren.Agent``)."""
