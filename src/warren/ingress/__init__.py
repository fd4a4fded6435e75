"""Public ingress over HTTP: Caddy ends TLS and speaks HTTP, configured and watched from here."""
