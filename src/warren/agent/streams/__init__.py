"""Forwards, services, connectors and the gateway of this node: what they follow from, and what keeps them so."""
