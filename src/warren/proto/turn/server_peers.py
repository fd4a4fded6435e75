"""What a client may do with peers: permissions (RFC 8656 §9, §10) and channels (§12).

Requests end in 0, or in the number of the error to answer with; then nothing has changed but what had expired anyway.
``refusal`` says the same of a peer: whether the allocation may have it at all.
"""

from __future__ import annotations

from collections.abc import Callable

from warren.model.tunnel import TransportAddress
from warren.proto.stun.attributes import unpack_port_untrusted, unpack_xor_address_untrusted
from warren.proto.stun.message import Attribute, Message
from warren.proto.turn.server_values import (
    CHANNEL_S,
    CHANNELS,
    PERMISSION_S,
    Allocation,
    Channel,
    Permission,
    Settings,
    SocketAddress,
    socket_address,
)

Refusal = Callable[[Allocation, TransportAddress], int]


def permit_untrusted(request: Message, allocation: Allocation, settings: Settings, refusal: Refusal, now: float) -> int:
    """CreatePermission, for all of its peers or none. Raises MalformedPacket."""
    peers = [
        unpack_xor_address_untrusted(value, request.transaction)
        for kind, value in request.attributes
        if kind == Attribute.XOR_PEER_ADDRESS
    ]
    error = 0 if peers else 400
    for peer in peers:
        error = error or refusal(allocation, peer)
    hosts = {str(peer.ip) for peer in peers}
    if not error and len(allocation.permissions.keys() | hosts) > settings.permissions_max:
        _forget_expired(allocation, now)
        if len(allocation.permissions.keys() | hosts) > settings.permissions_max:
            error = 508
    if not error:
        for host in hosts:
            _permit(allocation, host, now)
    return error


def bind_untrusted(request: Message, allocation: Allocation, settings: Settings, refusal: Refusal, now: float) -> int:
    """ChannelBind: a new channel, or ten more minutes for one. Raises MalformedPacket."""
    number_value, peer_value = request.get(Attribute.CHANNEL_NUMBER), request.get(Attribute.XOR_PEER_ADDRESS)
    if number_value is None or peer_value is None:
        return 400
    number = unpack_port_untrusted(number_value)  # written alike
    peer = unpack_xor_address_untrusted(peer_value, request.transaction)
    error = 400 if number not in CHANNELS else refusal(allocation, peer)
    if not error and len(allocation.channels) >= settings.channels_max:
        _forget_expired(allocation, now)
    address, host = socket_address(peer), str(peer.ip)
    conflict = _clear(allocation, number, address, now)
    error = error or conflict
    bound = allocation.channel_of.get(address)
    if not error and bound is None:
        full = len(allocation.channels) >= settings.channels_max
        crowded = host not in allocation.permissions and len(allocation.permissions) >= settings.permissions_max
        error = 508 if full or crowded else 0
    if error:
        return error
    permission = _permit(allocation, host, now)
    if bound is not None:
        bound.permission = permission
        bound.expires_at = now + CHANNEL_S
    else:
        made = Channel(number, address, allocation.relayed[peer.ip.version], permission, now + CHANNEL_S)
        allocation.channels[number] = allocation.channel_of[address] = made
    return 0


def forget_channel(allocation: Allocation, channel: Channel) -> None:
    allocation.channels.pop(channel.number, None)
    allocation.channel_of.pop(channel.peer, None)


def _clear(allocation: Allocation, number: int, peer: SocketAddress, now: float) -> int:
    """Forget what is over of a channel with this number, or with this peer; 400: one is still open (§12.2)."""
    taken, bound = allocation.channels.get(number), allocation.channel_of.get(peer)
    if taken is bound:
        return 0
    error = 0
    for channel in (taken, bound):
        if channel is None:
            continue
        if channel.expires_at > now:
            error = 400
        else:
            forget_channel(allocation, channel)
    return error


def _permit(allocation: Allocation, host: str, now: float) -> Permission:
    permission = allocation.permissions.get(host)
    if permission is None:
        permission = allocation.permissions[host] = Permission(now + PERMISSION_S)
    permission.expires_at = now + PERMISSION_S
    return permission


def _forget_expired(allocation: Allocation, now: float) -> None:
    for channel in [one for one in allocation.channels.values() if one.expires_at <= now]:
        forget_channel(allocation, channel)
    for host in [host for host, one in allocation.permissions.items() if one.expires_at <= now]:
        del allocation.permissions[host]
