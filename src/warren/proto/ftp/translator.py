"""The machine between a client and a server of FTP (RFC 959, RFC 2428; as a translator by RFC 6384).

Commands go to the server one by one, each after the reply to the one before: what a reply belongs to is never in
doubt, whatever a client sends ahead. Only what ends or watches a transfer overtakes. The server is always asked for
passive mode (EPSV, else PASV), and from what it says nothing but the port is used: data connections go to the address
of the control connection, on either side.

==================== ============================================================================================
of the client        what happens
==================== ============================================================================================
PASV, EPSV           EPSV to the server; :class:`Offer`; the answer names the helper's own port
PORT, EPRT           EPSV to the server; the address is remembered
RETR, STOR, LIST …   after PORT and EPRT :class:`Join` first; after PASV and EPSV passed on, if the client has come
                     already then after its data connection is through
==================== ============================================================================================

:meth:`receive_client` and :meth:`receive_server` take bytes; they never raise, and a peer that does not speak FTP ends
with :class:`Over`. After each call the driver does what :meth:`take_actions` gives.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from warren.errors import MalformedPacket
from warren.model.tunnel import IPAddress, TransportAddress
from warren.proto.ftp.actions import Action, EndToServer, Join, Note, Offer, Over, ToClient, ToServer, Withdraw
from warren.proto.ftp.asking import Asked, NotGranted, understand
from warren.proto.ftp.commands import Command, Kind, command_of
from warren.proto.ftp.data import Data, Step
from warren.proto.ftp.expecting import Expectations, Purpose
from warren.proto.ftp.greeting import foreign
from warren.proto.ftp.lines import Lines
from warren.proto.ftp.passive import NoPort, PassiveMode
from warren.proto.ftp.replies import Part, Replies

QUEUED_MAX: Final = 64
"""Commands sent ahead until the driver is to stop reading; lftp sends no more than a dozen."""

_SPEAKS_OF_DATA: Final = frozenset({227, 228, 229})
_LEAVING: Final = 421


class Translator:
    """One control connection. Addresses are of it: ``client`` and ``local`` of the client's side, ``server`` of the
    other. ``announced`` stands in answers to PASV (None: ``local``), for helpers that are known by another address.
    """

    def __init__(
        self, *, client: IPAddress, local: IPAddress, server: IPAddress, announced: IPAddress | None = None
    ) -> None:
        self._client, self._local = client, local
        self._announced = announced or local
        self._commands = Lines(telnet=True)
        self._reply_lines = Lines(telnet=False)
        self._replies = Replies()
        self._queue: deque[Command] = deque()
        self._expected = Expectations()
        self._passive = PassiveMode(server)
        self._waiting: Command | None = None
        self._asked: Asked | None = None
        self._data: Data | None = None
        self._numbers = 0
        self._epsv_only = False
        self._spoken = False
        self._client_ended = False
        self._has_left = False
        self._done = False
        self._actions: list[Action] = []

    # What the driver sees

    @property
    def is_full(self) -> bool:
        """The client has sent so much ahead that no more should be read from it now."""
        return len(self._queue) >= QUEUED_MAX

    def take_actions(self) -> list[Action]:
        actions, self._actions = self._actions, []
        return actions

    def receive_client(self, data: bytes) -> None:
        if self._done or not data:
            return
        if not self._spoken:
            self._spoken = True
            if (why := foreign(data)) is not None:
                self._end(why)
                return
        try:
            lines = self._commands.take_untrusted(data)
        except MalformedPacket:
            self._end("the client sends a line without end")
            return
        if refusals := self._commands.take_refusals():
            self._actions.append(ToClient(refusals))
        self._queue.extend(map(command_of, lines))
        self._advance()

    def receive_server(self, data: bytes) -> None:
        if self._done:
            return
        try:
            for line in self._reply_lines.take_untrusted(data):
                self._take(self._replies.part_untrusted(line))
                if self._done:
                    return
        except MalformedPacket:
            self._end("the server does not speak FTP")
            return
        self._advance()

    def client_ended(self) -> None:
        """The client sends nothing more."""
        self._client_ended = True
        self._advance()

    def offered(self, number: int, port: int) -> None:
        """The driver listens at ``port`` of the local address."""
        if self._is_now(number, Step.OPENING) and self._data is not None:
            self._data.step = Step.READY
            self._waiting = None
            self._say(self._data.asked.answer(TransportAddress(self._announced, port)))
            self._advance()

    def arrived(self, number: int) -> None:
        """The client's data connection is there; that with the server is being opened."""
        if self._is_now(number, Step.READY) and self._data is not None:
            self._data.step = Step.JOINING

    def opened(self, number: int) -> None:
        """The two are connected with each other."""
        if self._is_now(number, Step.JOINING) and self._data is not None:
            self._data.step = Step.OPEN
            command, self._waiting = self._waiting, None
            if command is not None:
                self._pass(command, Purpose.TRANSFER)
            self._advance()

    def failed(self, number: int, why: str) -> None:
        """There is no data connection, and will not be: ``why`` is a clause for the client."""
        data = self._data
        if self._done or data is None or data.number != number or data.step in {Step.OPEN, Step.FAILED}:
            return
        transfer = self._expected.transfer()
        if self._waiting is not None:
            self._data = self._waiting = None
            self._say_no_data(why)
        elif transfer is None:
            data.step, data.why = Step.FAILED, why
        elif not self._replies.is_midreply:
            self._data = None
            transfer.answered = True
            self._say_no_data(why)
        self._advance()

    # Commands

    def _advance(self) -> None:
        """Take commands as long as they may be taken now."""
        while self._queue and not self._done and self._waiting is None and self._may_go_on():
            self._do(self._queue.popleft())
        if self._client_ended and not self._queue and not self._done and self._waiting is None:
            self._client_ended = False
            self._has_left = True
            self._actions.append(EndToServer())

    def _may_go_on(self) -> bool:
        # Whatever the server has sent beyond its reply must not be taken for the reply to what comes next.
        if self._expected.is_free:
            return not (self._reply_lines.is_midline or self._replies.is_midreply)
        return self._expected.may_be_overtaken_by(self._queue)

    def _do(self, command: Command) -> None:
        match command.kind:
            case Kind.REFUSED | Kind.BROKEN:
                self._say(command.refusal)
            case Kind.DATA:
                self._ask_for_data(command)
            case Kind.TRANSFER:
                self._transfer(command)
            case Kind.FEATURES:
                self._pass(command, Purpose.FEATURES)
            case _ if self._expected.transfer() is not None:
                self._pass(command, Purpose.OVERTAKER)
            case _:
                self._pass(command, Purpose.COMMAND)

    def _pass(self, command: Command, purpose: Purpose) -> None:
        self._expected.add(purpose, command)
        # Urgently pure-ftpd does not always understand it, plainly others do not always see it: it is said as it came.
        urgent = command.kind is Kind.ABORT and self._commands.take_interruption()
        self._actions.append(ToServer(command.text + b"\r\n", urgent))

    def _ask_for_data(self, command: Command) -> None:
        if command.verb == "EPSV" and command.argument.strip().upper() == b"ALL":
            self._epsv_only = True
            self._say(b"200 EPSV ALL command successful.")
            return
        if self._epsv_only and command.verb != "EPSV":  # RFC 2428 §4
            self._say(b"501 Only EPSV after EPSV ALL.")
            return
        asked = understand(command, client=self._client, local=self._local)
        if isinstance(asked, NotGranted):
            if asked.suspicion:
                self._actions.append(Note(asked.suspicion))
            self._say(asked.reply)
            return
        self._withdraw()
        self._asked = asked
        self._ask_server()

    def _ask_server(self) -> None:
        self._expected.add(Purpose.PORT)
        self._actions.append(ToServer(self._passive.question() + b"\r\n"))

    def _transfer(self, command: Command) -> None:
        data = self._data
        if data is None:
            self._say(b"425 Say PASV, EPSV, PORT or EPRT first.")
        elif data.step is Step.FAILED:
            self._data = None
            self._say_no_data(data.why)
        elif data.step is Step.READY and data.asked.where is not None:
            data.step = Step.JOINING
            self._waiting = command
            self._actions.append(Join(data.number, data.server_port, data.asked.where))
        elif data.step is Step.JOINING:
            self._waiting = command
        else:
            self._pass(command, Purpose.TRANSFER)

    # Replies

    def _take(self, part: Part) -> None:
        expected = self._expected.of(part)
        if expected is None:
            self._take_stray(part)
        elif expected.purpose is Purpose.PORT:
            if expected.over:
                self._take_port(part)
        elif part.code in _SPEAKS_OF_DATA:
            self._end("the server speaks of data connections unasked")
        else:
            if not expected.answered:
                for text in expected.features.correct(part) if expected.features else [part.text]:
                    self._say(text)
            if expected.over and expected.purpose is Purpose.TRANSFER:
                self._withdraw()

    def _take_stray(self, part: Part) -> None:
        """A reply to nothing: the server takes leave. Anything else might be meant for what comes next.

        To a client that has gone nothing is said: pure-ftpd has a goodbye then, with the code of its last reply.
        """
        if self._has_left:
            return
        if part.code == _LEAVING or (part.code not in _SPEAKS_OF_DATA and self._expected.forgive(part)):
            self._say(part.text)
        else:
            self._end("the server replies to what it was not asked")

    def _take_port(self, part: Part) -> None:
        answer = self._passive.answer(part)
        if answer is None:
            self._ask_server()
            return
        if answer.suspicion:
            self._actions.append(Note(answer.suspicion))
        asked, self._asked = self._asked, None
        if isinstance(answer, NoPort):
            self._say(answer.reply)
        elif asked is not None:
            self._provide(asked, answer.number)

    def _provide(self, asked: Asked, port: int) -> None:
        self._numbers += 1
        self._data = Data(self._numbers, asked, port, Step.READY)
        if asked.where is not None:
            self._say(asked.answer(asked.where))
            return
        self._data.step = Step.OPENING
        self._waiting = Command(Kind.DATA, asked.verb, b"", b"")
        self._actions.append(Offer(self._numbers, port))

    # Common

    def _is_now(self, number: int, step: Step) -> bool:
        return not self._done and self._data is not None and (self._data.number, self._data.step) == (number, step)

    def _withdraw(self) -> None:
        if self._data is not None:
            self._actions.append(Withdraw(self._data.number))
            self._data = None

    def _say(self, text: bytes) -> None:
        self._actions.append(ToClient(text + b"\r\n"))

    def _say_no_data(self, why: str) -> None:
        self._say(b"425 No data connection: " + why.encode("ascii", "replace") + b".")

    def _end(self, why: str) -> None:
        self._done = True
        self._withdraw()
        self._actions.append(Note(why))
        if not self._replies.is_midreply:
            self._say(b"421 " + why.encode("ascii", "replace") + b"; goodbye.")
        self._actions.append(Over())
