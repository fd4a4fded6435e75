"""Relays that answer in memory: a STUN answer for every address, and a TURN client that does as a test says."""

from __future__ import annotations

import random
from ipaddress import ip_address

from warren.model.datagrams import ControlDatagram
from warren.model.tunnel import TransportAddress
from warren.proto.stun.attributes import pack_xor_address
from warren.proto.stun.message import Attribute, Class, Method, decode_untrusted, encode
from warren.proto.turn.client_events import ClientEvent, Failed, Ready
from warren.proto.wireguard.timers import Deadline
from warren.reach.relay_values import Connect, Disconnect, Event, RelayPlace, Resolve, Transport, Wish
from warren.reach.relays import Relays


def at(text: str, port: int = 3478) -> TransportAddress:
    return TransportAddress(ip_address(text), port)


OUTSIDE = at("203.0.113.9", 4000)


class FakeTurn:
    """As much of a TurnClient as Relays uses."""

    def __init__(self, server: TransportAddress, place: RelayPlace, now: float) -> None:
        self.server = server
        self.place = place
        self.mapped: TransportAddress | None = OUTSIDE
        self.relayed: tuple[TransportAddress, ...] = (at("198.51.100.77", 50_000),)
        self.events: list[ClientEvent] = []
        self.closed = False
        self.logins: list[str] = []

    def receive(self, data: bytes, now: float) -> bool:
        return False

    def handle_timeout(self, now: float) -> None: ...

    def next_deadline(self) -> Deadline | None:
        return None

    def take_transmits(self) -> list[bytes]:
        return []

    def take_events(self) -> list[ClientEvent]:
        taken, self.events = self.events, []
        return taken

    def credentials(self, username: str, password: str, now: float) -> None:
        self.logins.append(username)

    def close(self, now: float) -> None:
        self.closed = True


class RelayWorld:
    """Relays by name; those in ``silent`` do not answer over UDP, those in ``shut`` not over streams either."""

    def __init__(self, **rtts_s: float) -> None:
        self.now = 0.0
        self.rtts_s = rtts_s
        self.addresses = {name: at(f"192.0.2.{number + 1}") for number, name in enumerate(rtts_s)}
        self.silent: set[str] = set()
        self.shut: set[str] = set()
        self.outside = OUTSIDE
        self.refusal: Failed | None = None
        self.turns: list[FakeTurn] = []
        self.events: list[Event] = []
        self.wishes: list[Wish] = []
        self.asked: list[tuple[float, TransportAddress]] = []
        self._answers: list[tuple[float, bytes, TransportAddress]] = []
        self.relays = Relays(random.Random(1).randbytes, self._turn)

    def _turn(self, server: TransportAddress, place: RelayPlace, transport: Transport, now: float) -> FakeTurn:
        made = FakeTurn(server, place, now)
        made.events.append(self.refusal or Ready(made.relayed, made.mapped))
        self.turns.append(made)
        return made

    def place(self, name: str, username: str = "me", **changes: object) -> RelayPlace:
        values: dict[str, object] = {"udp_port": 3478, "username": username, "password": "secret", **changes}
        return RelayPlace(name, (str(self.addresses[name].ip),), **values)  # type: ignore[arg-type]

    def keep(self, *places: RelayPlace) -> None:
        self.relays.keep(places, self.now)
        self.settle()

    def settle(self) -> None:
        for _ in range(20):
            wishes = self.relays.take_wishes()
            self.wishes += wishes
            for wish in wishes:
                self._grant(wish)
            sent = self.relays.take_transmits()
            for datagram in sent:
                self._carry(datagram)
            if not wishes and not sent:
                break
        self.events += self.relays.take_events()

    def _grant(self, wish: Wish) -> None:
        match wish:
            case Resolve(name, _):
                self.relays.resolved(name, [self.addresses[name].ip], self.now)
            case Connect(place, transport) if place.name in self.shut:
                self.relays.not_connected(place.name, transport, "nobody answers", self.now)
            case Connect(place, transport):
                self.relays.connected(place.name, transport, at("127.0.0.1", 7000 + len(self.turns)), self.now)
            case Disconnect():
                pass

    def _carry(self, datagram: ControlDatagram) -> None:
        self.asked.append((self.now, datagram.remote))
        names = [name for name, address in self.addresses.items() if address == datagram.remote]
        if names and names[0] in self.silent:
            return
        message = decode_untrusted(datagram.data)
        value = pack_xor_address(self.outside, message.transaction)
        answer = encode(
            Method.BINDING, Class.SUCCESS, message.transaction, [(int(Attribute.XOR_MAPPED_ADDRESS), value)]
        )
        rtt_s = self.rtts_s[names[0]] if names else 0.001
        self._answers.append((self.now + rtt_s, answer, datagram.remote))

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        for _ in range(10_000):
            deadline = self.relays.next_deadline()
            moments = [moment for moment, *_ in self._answers] + ([deadline.at] if deadline else [])
            self.now = max(self.now, min([*moments, end]))
            due = [one for one in self._answers if one[0] <= self.now]
            self._answers = [one for one in self._answers if one[0] > self.now]
            for _, data, remote in due:
                self.relays.receive(data, remote, self.now)
            self.relays.handle_timeout(self.now)
            self.settle()
            if self.now >= end:
                return
        raise AssertionError("time stands still")

    def used(self) -> dict[str, str]:
        """The relays in use, and over what."""
        return {leg.relay: leg.transport for leg in self.relays.legs()}

    def turn_of(self, name: str) -> FakeTurn:
        return next(turn for turn in reversed(self.turns) if turn.place.name == name)
