"""What the device counts: one place for the names and what they mean."""

from __future__ import annotations

from typing import Final

COUNTERS: Final[dict[str, str]] = {
    "tun_malformed": "frames from the host that are no whole IP packet",
    "tun_no_room": "frames from the host that did not fit the buffer",
    "tun_no_peer": "packets from the host to addresses that no peer has",
    "tun_device_down": "packets from the host while the device was down",
    "staged_dropped": "packets that waited for a session and gave way to newer ones, or no handshake succeeded",
    "udp_malformed": "datagrams that are neither WireGuard nor STUN, by length or type",
    "control_received": "STUN messages passed on to the controller",
    "control_unheard": "STUN messages that came while no controller listened",
    "control_limited": "STUN messages dropped because more came than the controller is given",
    "channel_data_refused": "ChannelData from hosts that are no relay of ours",
    "channel_data_malformed": "ChannelData of a relay of ours with a length that does not fit",
    "udp_unknown_index": "messages to a session or handshake that does not exist or is too old",
    "data_forged": "data messages that do not authenticate",
    "data_replayed": "data messages whose counter was seen before or is too old",
    "data_over_limit": "data messages with a counter beyond what a session may use",
    "inner_malformed": "packets in data messages that are no whole IP packet",
    "inner_spoofed": "frames whose source address is not one of the peer that sent them",
    "inner_congested": "packets dropped because a router marked them that may only drop them (RFC 6040)",
    "inner_no_room": "trains that came faster than frames were taken",
    "handshake_bad_mac1": "handshake messages of senders that do not know our public key",
    "handshake_limited": "handshake messages with a valid cookie beyond what one source may send",
    "handshake_queue_full": "handshake messages dropped because too many were waiting",
    "handshake_forged": "handshake messages that do not authenticate, or use a forbidden key",
    "handshake_unknown_peer": "initiations of keys that are not among our peers",
    "handshake_replayed": "initiations with a timestamp that is not greater than the peer's last",
    "handshake_too_often": "genuine initiations that came within 20 ms of the last",
    "handshake_key_refused": "initiations not made because the peer's public key is a point of low order",
    "initiations_sent": "handshake initiations sent, retransmissions included",
    "responses_sent": "handshake responses sent",
    "handshakes_completed": "handshakes that led to a confirmed session",
    "keepalives_sent": "empty data messages sent, passive and persistent",
    "cookies_sent": "cookie replies sent under load",
    "cookies_withheld": "cookie replies not sent because too many were",
    "cookies_taken": "cookies received and kept",
    "cookies_refused": "cookie replies that do not answer our last message",
    "roamed": "times a peer's endpoint changed by an authenticated message",
}


def new_counters() -> dict[str, int]:
    return dict.fromkeys(COUNTERS, 0)
