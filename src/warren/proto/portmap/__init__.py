"""Asking gateways for a way in: PCP, NAT-PMP and UPnP-IGD, and the machine that keeps what they give."""
