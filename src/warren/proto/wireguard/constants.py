"""The numbers of the WireGuard paper, with their units, and apart from them the numbers that are ours.

"§" refers to Donenfeld, "WireGuard: Next Generation Kernel Network Tunnel" (NDSS 2017, revision of 2020).
"""

from __future__ import annotations

# Names hashed into every handshake (§5.4).
CONSTRUCTION = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
IDENTIFIER = b"WireGuard v1 zx2c4 Jason@zx2c4.com"
LABEL_MAC1 = b"mac1----"
LABEL_COOKIE = b"cookie--"

# Message types, the first byte of every message; three zero bytes follow (§5.4).
INITIATION = 1
RESPONSE = 2
COOKIE_REPLY = 3
DATA = 4

# Sizes in bytes (§5.4).
KEY_BYTES = 32
HASH_BYTES = 32
MAC_BYTES = 16
TAG_BYTES = 16
TIMESTAMP_BYTES = 12
INITIATION_BYTES = 148
RESPONSE_BYTES = 92
COOKIE_REPLY_BYTES = 64
HEADER_BYTES = 16
"""Of a data message: type, receiver index, counter."""
DATA_OVERHEAD_BYTES = HEADER_BYTES + TAG_BYTES
"""What a data message is longer than the padded packet in it."""
KEEPALIVE_BYTES = DATA_OVERHEAD_BYTES
"""A data message with nothing inside (§6.5)."""

# Life of a session (§6.1, table of constants).
REKEY_AFTER_MESSAGES = 1 << 60
REJECT_AFTER_MESSAGES = (1 << 64) - (1 << 13) - 1
REKEY_AFTER_S = 120.0
REJECT_AFTER_S = 180.0
REKEY_ATTEMPT_S = 90.0
REKEY_TIMEOUT_S = 5.0
KEEPALIVE_TIMEOUT_S = 10.0
COOKIE_REFRESH_S = 120.0
"""A cookie is accepted and used for so long (§5.3, §5.4.7)."""
ZERO_KEYS_AFTER_S = 3 * REJECT_AFTER_S
"""§6.3: ephemeral keys and sessions are forgotten when no new one was made for so long."""
RECEIVER_REKEY_AFTER_S = REJECT_AFTER_S - KEEPALIVE_TIMEOUT_S - REKEY_TIMEOUT_S
"""§6.2: an initiator that only receives renews its session at this age (165 s)."""
SILENCE_S = KEEPALIVE_TIMEOUT_S + REKEY_TIMEOUT_S
"""§6.5: data was sent and nothing came back for so long: handshake anew."""

# Where the paper leaves a choice: as the reference implementations chose.
REKEY_JITTER_S = 0.333
"""§6.1: "an additional amount of jitter" of up to a third of a second."""
HANDSHAKE_ATTEMPTS_MAX = int(REKEY_ATTEMPT_S / REKEY_TIMEOUT_S)
"""Retransmissions before giving up."""
INITIATION_INTERVAL_S = 1 / 50
"""§5.1: initiations of one peer are consumed at most this often, even when genuine."""
UNDER_LOAD_S = 1.0
"""How long cookies stay required after the handshake queue was last an eighth full."""
SOURCE_HANDSHAKES_PER_S = 20.0
SOURCE_HANDSHAKES_BURST = 5.0
"""Per IPv4 address and per IPv6 /64, under load, with a valid cookie (§5.3)."""
