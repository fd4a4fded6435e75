"""The names of this node's networks, as the host asks for them: one resolver, and the host told to use it."""
