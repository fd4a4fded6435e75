"""The coordinator's certificate: its own from the first start, or the operator's, and what vouches for it.

Nodes and administrators do not trust a certificate for who issued it: they pinned the coordinator's Ed25519 identity
key, and :func:`warren.proto.control.messages.certificate_statement` ties the certificate to that. So a self-made one
is as good as any, and one that an ACME client renews is taken over while connections live on.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from warren import log
from warren.errors import OperationFailed, UsageError
from warren.files import write_atomically
from warren.identity.certificates import self_made
from warren.identity.signing import SigningKey
from warren.proto.control.messages import certificate_statement

_log = log.get("coordinator")

CERTIFICATE_FILE: Final = "tls-certificate.pem"
KEY_FILE: Final = "tls-key.pem"


def make_certificate(directory: Path) -> tuple[Path, Path]:
    """The self-made certificate and its key in ``directory``, made now unless both are there and whole (ECDSA P-256,
    mode 0600). Another one is as good: it is the identity key by which a coordinator is known.

    Raises OperationFailed when they cannot be written.
    """
    certificate_file, key_file = directory / CERTIFICATE_FILE, directory / KEY_FILE
    if certificate_file.exists() and key_file.exists():
        try:
            _read(certificate_file, key_file)
        except UsageError as error:
            _log.warning("%s; both are made anew", str(error).partition(";")[0])
        else:
            return certificate_file, key_file
    certificate, key = self_made("warren coordinator")
    write_atomically(key_file, key)
    write_atomically(certificate_file, certificate)
    return certificate_file, key_file


@dataclass(frozen=True, slots=True)
class Served:
    """A certificate as it is served; a connection keeps the one that it began with."""

    context: ssl.SSLContext
    certificate_sha256: bytes
    """Of the leaf's DER."""
    statement: bytes
    names: frozenset[str]
    """The DNS names that it is for, lower case."""


class Certificates:
    """The certificate and key of two files, as they are now; single owner."""

    def __init__(self, certificate_file: Path, key_file: Path, identity: SigningKey) -> None:
        """Raises UsageError when the files are no certificate and key that belong together."""
        self._files = (certificate_file, key_file)
        self._identity = identity
        self._seen = self._signature()
        self.current = self._load()

    def reload(self) -> bool:
        """Take over what the files hold now; True when that is another certificate. Raises UsageError, and keeps
        serving the old one, when they cannot be used.
        """
        self._seen = self._signature()
        served = self._load()
        changed = served.certificate_sha256 != self.current.certificate_sha256
        self.current = served
        return changed

    def have_changed(self) -> bool:
        """Whether either file is another one than when they were last looked at (also behind a symbolic link)."""
        return self._signature() != self._seen

    def _load(self) -> Served:
        leaf, context = _read(*self._files)
        digest = leaf.fingerprint(hashes.SHA256())
        return Served(context, digest, certificate_statement(self._identity, digest), _names(leaf))

    def _signature(self) -> tuple[tuple[int, ...], ...]:
        return tuple(_identity_of(file) for file in self._files)


def check_certificate(certificate_file: Path, key_file: Path) -> None:
    """Raises UsageError when the files are no certificate and key that belong together."""
    _read(certificate_file, key_file)


_UNUSABLE: Final = (
    "the certificate {} and the key {} cannot be used: {}; give a PEM certificate (with its chain) and its PEM key"
)


def _read(certificate_file: Path, key_file: Path) -> tuple[x509.Certificate, ssl.SSLContext]:
    """Raises UsageError when they cannot be served."""
    try:
        leaf = x509.load_pem_x509_certificates(certificate_file.read_bytes())[0]
        return leaf, _context(certificate_file, key_file)
    except OSError as error:
        # load_cert_chain raises SSLError, an OSError, for a key that does not belong to the certificate
        reason = error.strerror if not isinstance(error, ssl.SSLError) else "they do not belong together"
        raise UsageError(_UNUSABLE.format(certificate_file, key_file, reason)) from None
    except ValueError:
        raise UsageError(_UNUSABLE.format(certificate_file, key_file, "not in PEM form")) from None


def _context(certificate_file: Path, key_file: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0  # nobody resumes, and each would be kept per connection
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(certificate_file, key_file, password=_no_password)
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted")


def _names(leaf: x509.Certificate) -> frozenset[str]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(name.lower() for name in names.get_values_for_type(x509.DNSName))


def _identity_of(file: Path) -> tuple[int, ...]:
    try:
        status = os.stat(file)  # noqa: PTH116 - follows links
    except OSError:
        return ()
    return (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)


def own_directory(path: Path) -> None:
    """Make ``path`` (mode 0700) unless it is there. Raises OperationFailed when it cannot hold the state."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise OperationFailed(
            f"the state directory {path} cannot be used: {error.strerror}; run as its owner or choose another --state"
        ) from None
