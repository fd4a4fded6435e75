"""The certificate of TURN over TLS: the operator's, or a self-made one that clients pin by its SHA-256."""

from __future__ import annotations

import hashlib
import ssl
from pathlib import Path
from typing import Final

from warren.errors import OperationFailed, UsageError
from warren.files import write_atomically
from warren.identity.certificates import self_made

CERTIFICATE_FILE: Final = "relay-certificate.pem"
KEY_FILE: Final = "relay-key.pem"


def kept_certificate(directory: Path) -> tuple[Path, Path]:
    """The self-made certificate and its key in ``directory``, made now unless both are there (ECDSA P-256, 0600).

    Raises OperationFailed when they cannot be written.
    """
    certificate_file, key_file = directory / CERTIFICATE_FILE, directory / KEY_FILE
    if not (certificate_file.exists() and key_file.exists()):
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise OperationFailed(
                f"the state directory {directory} cannot be made: {error.strerror}; name another with --state"
            ) from None
        certificate, key = self_made("warren relay")
        write_atomically(key_file, key)
        write_atomically(certificate_file, certificate)
    return certificate_file, key_file


def context_of(certificate_file: Path, key_file: Path) -> tuple[ssl.SSLContext, bytes]:
    """What serves them, and the SHA-256 of the certificate (DER). Raises UsageError when they cannot be used."""
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2  # what TURN clients of browsers and coturn's tools have
        context.num_tickets = 0
        context.load_cert_chain(certificate_file, key_file, password=_no_password)
        pem = certificate_file.read_text()
        first = pem[pem.index(ssl.PEM_HEADER) : pem.index(ssl.PEM_FOOTER) + len(ssl.PEM_FOOTER)]
        return context, hashlib.sha256(ssl.PEM_cert_to_DER_cert(first)).digest()
    except ssl.SSLError:
        reason = "they do not belong together"
    except OSError as error:
        reason = error.strerror or "they cannot be read"
    except ValueError:
        reason = "not in PEM form, or the key is encrypted"
    raise UsageError(
        f"the certificate {certificate_file} and the key {key_file} cannot be used: {reason}; give a PEM certificate "
        "(with its chain) and its PEM key"
    )


def _no_password() -> str:
    raise ValueError("the key is encrypted")
