"""AllowedIPs: which peer an inner address belongs to (WireGuard §2, "cryptokey routing").

One binary trie per family, path-compressed: a node is a prefix, its children are longer prefixes inside it. A node
without an owner only joins two branches. In front of the tries stands a dictionary of addresses seen lately, because
the data path asks the same few over and over; any change empties it.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import Generic, TypeVar

IPNetwork = IPv4Network | IPv6Network
Owner = TypeVar("Owner")

CACHED_ADDRESSES_MAX = 8192
"""The cache starts anew when it is full: about 1 MB, and more addresses than one node talks to in a burst."""


class _Node(Generic[Owner]):
    """The prefix of ``length`` leading bits of ``bits``, an address as an integer whose other bits are zero."""

    __slots__ = ("bits", "children", "length", "owner", "spare")

    def __init__(self, bits: int, length: int, spare: int, owner: Owner | None) -> None:
        self.bits = bits
        self.length = length
        self.spare = spare  # address bits behind the prefix
        self.owner = owner
        self.children: list[_Node[Owner] | None] = [None, None]

    def covers(self, bits: int) -> bool:
        return not (bits ^ self.bits) >> self.spare

    def side(self, bits: int) -> int:
        """Which child an address or longer prefix inside this one goes to."""
        return bits >> (self.spare - 1) & 1


class _Trie(Generic[Owner]):
    """The prefixes of one family, with addresses of ``width`` bits."""

    __slots__ = ("_root", "width")

    def __init__(self, width: int) -> None:
        self.width = width
        self._root: _Node[Owner] = _Node(0, 0, width, None)

    def lookup(self, bits: int) -> Owner | None:
        """The owner of the longest prefix around the address ``bits``."""
        node: _Node[Owner] | None = self._root
        found = None
        while node is not None and node.covers(bits):
            if node.owner is not None:
                found = node.owner
            if not node.spare:
                break
            node = node.children[node.side(bits)]
        return found

    def insert(self, bits: int, length: int, owner: Owner) -> Owner | None:
        """Give a prefix to ``owner``. Returns who had it before."""
        spare = self.width - length
        parent = self._root
        while parent.length < length:
            side = parent.side(bits)
            child = parent.children[side]
            if child is None:
                parent.children[side] = _Node(bits, length, spare, owner)
                return None
            if child.length <= length and child.covers(bits):
                parent = child
                continue
            parent.children[side] = self._join(child, bits, length, owner)
            return None
        before, parent.owner = parent.owner, owner
        return before

    def _join(self, child: _Node[Owner], bits: int, length: int, owner: Owner) -> _Node[Owner]:
        """A node that holds both ``child`` and the new prefix, neither of which lies inside the other unless
        ``child`` is longer.
        """
        common = min(length, self.width - (child.bits ^ bits).bit_length())
        spare = self.width - common
        fork: _Node[Owner] = _Node(bits >> spare << spare, common, spare, owner if common == length else None)
        fork.children[fork.side(child.bits)] = child
        if common < length:
            fork.children[fork.side(bits)] = _Node(bits, length, self.width - length, owner)
        return fork

    def remove(self, bits: int, length: int) -> None:
        """Take a prefix, which must be there, from its owner, and drop nodes that hold nothing together any more."""
        path = [self._root]
        while path[-1].length < length:
            child = path[-1].children[path[-1].side(bits)]
            if child is None:
                raise KeyError((bits, length))
            path.append(child)
        path[-1].owner = None
        while len(path) > 1:
            node = path.pop()
            left, right = node.children
            if node.owner is not None or (left is not None and right is not None):
                return
            path[-1].children[path[-1].side(bits)] = left or right


class AllowedIps(Generic[Owner]):
    """The table of one device. A prefix belongs to one owner; the newer claim wins, the longest prefix around an
    address counts.

    ``cached`` is the cache: the data path looks there first (by the 4 or 16 address bytes) and calls :meth:`lookup`
    on a miss.
    """

    __slots__ = ("_cached_max", "_owned", "_tries", "cached")

    def __init__(self, cached_max: int = CACHED_ADDRESSES_MAX) -> None:
        self.cached: dict[bytes, Owner] = {}
        self._cached_max = cached_max
        self._tries: dict[int, _Trie[Owner]] = {4: _Trie(32), 16: _Trie(128)}
        self._owned: dict[Owner, dict[IPNetwork, None]] = {}

    def lookup(self, address: bytes) -> Owner | None:
        """Whose address this is (4 or 16 bytes; anything else is nobody's)."""
        owner = self.cached.get(address)
        if owner is not None:
            return owner
        trie = self._tries.get(len(address))
        owner = trie.lookup(int.from_bytes(address, "big")) if trie is not None else None
        if owner is not None:
            if len(self.cached) >= self._cached_max:
                self.cached.clear()
            self.cached[address] = owner
        return owner

    def insert(self, network: IPNetwork, owner: Owner) -> None:
        """Give ``network`` to ``owner``, whoever had it."""
        before = self._trie(network).insert(int(network.network_address), network.prefixlen, owner)
        if before is not None:
            del self._owned[before][network]
        self._owned.setdefault(owner, {})[network] = None
        self.cached.clear()

    def remove(self, network: IPNetwork, owner: Owner) -> None:
        """Take ``network`` from ``owner``; nothing happens if it is not exactly theirs."""
        if network not in self._owned.get(owner, ()):
            return
        del self._owned[owner][network]
        self._trie(network).remove(int(network.network_address), network.prefixlen)
        self.cached.clear()

    def remove_all(self, owner: Owner) -> None:
        """Take everything from ``owner``."""
        for network in self.of(owner):
            self.remove(network, owner)
        self._owned.pop(owner, None)

    def of(self, owner: Owner) -> tuple[IPNetwork, ...]:
        """What ``owner`` has, oldest claim first."""
        return tuple(self._owned.get(owner, ()))

    def _trie(self, network: IPNetwork) -> _Trie[Owner]:
        return self._tries[network.max_prefixlen // 8]
