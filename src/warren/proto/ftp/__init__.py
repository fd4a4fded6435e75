"""FTP's control connection, as far as a helper has to understand it: what is said about data connections.

A helper stands between client and server and carries both kinds of connections (as the translator of RFC 6384 does).
"""
