"""The agent: what runs on a machine for all its networks, each kept by a runner, and for its streams."""
