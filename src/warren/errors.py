"""The errors Warren raises on purpose, named by who is at fault.

Every message is one sentence a person can act on: what is wrong, and what to do. Anything that is not a
:class:`WarrenError` and reaches a user is a bug in Warren.

========================  ===========  =============================================
class                     exit status  whose fault
========================  ===========  =============================================
:class:`OperationFailed`  1            the host's: a missing device, a taken name …
:class:`UsageError`       2            the user's: a malformed file, a wrong argument
:class:`Unreachable`      3            the agent, engine or coordinator does not answer
:class:`MalformedPacket`  (none)       the peer's: bytes that do not parse
========================  ===========  =============================================
"""

from __future__ import annotations


def problem_line(title: str, detail: str, remedy: str) -> str:
    """An RFC 9457 problem as one line: what is wrong in this case (else in general), and what to do."""
    remedy = remedy.rstrip(".")
    first = remedy.partition(" ")[0]
    if first[1:].islower() or len(first) == 1:  # not a name, a method or a command
        remedy = remedy[:1].lower() + remedy[1:]
    return "; ".join(part for part in (detail or title, remedy) if part)


class WarrenError(Exception):
    """Base of all errors that carry a sentence for a person. ``exit_status`` is what a command ends with."""

    exit_status = 1


class OperationFailed(WarrenError):
    """The host refused something: no device, no privilege, a name, port or address that is taken."""

    exit_status = 1


class UsageError(WarrenError):
    """What the user wrote cannot be understood or contradicts itself; nothing has been touched."""

    exit_status = 2


class Unreachable(WarrenError):
    """The process that should answer (engine, agent, coordinator) does not."""

    exit_status = 3


class MalformedPacket(WarrenError):
    """Bytes from the network do not parse. Raised only by ``*_untrusted`` decoders; counted, never shown."""
