"""One network of this node: what it wants of the host, and what keeps it so."""
