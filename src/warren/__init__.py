"""Warren joins machines into private, end-to-end encrypted peer-to-peer networks."""

__version__ = "0.1.0.dev0"
