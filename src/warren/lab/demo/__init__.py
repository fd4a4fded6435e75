"""The demonstrations: networks of lab hosts, the real program, real packets, figures measured on the spot.

Each yields what it showed step by step, with the figures behind it, so that the page for people and ``--json`` tell the
same; what it makes is gone when its iterator ends or is closed.
"""
