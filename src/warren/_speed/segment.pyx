# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The compiled twin of :mod:`warren.proto.ip.segment`. Every index below is checked against the lengths given."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.string cimport memcpy, memset

from warren._speed.packet cimport *

cdef enum:
    MALFORMED = -1
    NO_ROOM = -2

    HOP_BY_HOP = 0
    DESTINATION_OPTIONS = 60

cdef struct Train:
    Py_ssize_t count
    Py_ssize_t stride
    Py_ssize_t length

# A super-packet, its geometry checked: headers < length, every segment's headers and payload inside.
cdef struct Super:
    const uint8_t *packet
    Py_ssize_t length
    Py_ssize_t transport
    Py_ssize_t headers
    Py_ssize_t gso_size
    bint tcp


def split(frame, Py_ssize_t length, out, Py_ssize_t at, Py_ssize_t mtu):
    """Turn one TUN frame into slots of a train in ``out``, segmented and with every checksum complete.

    ``frame[:length]`` is a virtio header and an IP packet of at most 65,535 bytes. Slot i starts at ``out[at + i *
    stride]``; its packet is zero-padded to a multiple of 16, but not beyond ``max(mtu, packet length)`` (WireGuard
    §5.4.6). Returns ``(count, stride, end)``: the slots fill ``out[at:end]`` and all but the last are ``stride`` bytes.
    A count of 0 means that nothing was written, and the stride is the reason: MALFORMED or NO_ROOM.

    A super-packet (TCPv4, TCPv6, UDP_L4) is cut as the kernel would: rising IPv4 identification and TCP sequence, FIN
    and PSH on the last segment only, CWR on the first only. Where the headers end is read from the packet;
    ``csum_start`` must agree, ``hdr_len`` is not trusted. Raises ValueError for a length or position outside its
    buffer.
    """
    cdef Py_buffer source, target
    cdef Train train
    PyObject_GetBuffer(frame, &source, PyBUF_SIMPLE)
    try:
        PyObject_GetBuffer(out, &target, PyBUF_WRITABLE)
        try:
            if length < 0 or length > source.len or at < 0 or at > target.len or mtu < 0:
                raise ValueError("the frame or the position lies outside its buffer")
            with nogil:
                train = split_frame(
                    <const uint8_t *>source.buf, length, <uint8_t *>target.buf + at, target.len - at, mtu
                )
        finally:
            PyBuffer_Release(&target)
    finally:
        PyBuffer_Release(&source)
    return train.count, train.stride, at + train.length


cdef Train failure(Py_ssize_t reason) noexcept nogil:
    cdef Train train
    train.count, train.stride, train.length = 0, reason, 0
    return train


cdef Py_ssize_t padded(Py_ssize_t length, Py_ssize_t mtu) noexcept nogil:
    """The length of a packet with its padding: up to a multiple of 16, but not beyond the MTU (WireGuard §5.4.6)."""
    return min((length + 15) & ~<Py_ssize_t>15, max(mtu, length))


cdef Train split_frame(
    const uint8_t *frame, Py_ssize_t length, uint8_t *out, Py_ssize_t room, Py_ssize_t mtu
) noexcept nogil:
    """As :func:`split`, writing at most ``room`` bytes to ``out``."""
    cdef VirtioHeader virtio
    cdef Py_ssize_t header
    cdef Super whole
    if length < VNET + IPV4_HEADER:
        return failure(MALFORMED)
    memcpy(&virtio, frame, VNET)
    whole.packet = frame + VNET
    whole.length = length - VNET
    header = ip_header_length(whole.packet, whole.length)
    if header == 0 or whole.length > MAX_PACKET:
        return failure(MALFORMED)
    if virtio.gso_type == GSO_NONE:
        return put_single(&whole, &virtio, header, out, room, mtu)
    if not measure(&whole, &virtio):
        return failure(MALFORMED)
    return put_segments(&whole, out, room, mtu)


cdef Py_ssize_t ip_header_length(const uint8_t *packet, Py_ssize_t length) noexcept nogil:
    """The length of the IPv4 header or of the fixed IPv6 header, 0 if neither fits; ``length`` is at least 20."""
    cdef Py_ssize_t header
    if packet[0] >> 4 == 4:
        header = (packet[0] & 15) * 4
        return header if IPV4_HEADER <= header and header <= length else 0
    return IPV6_HEADER if packet[0] >> 4 == 6 and length >= IPV6_HEADER else 0


cdef Train put_single(
    const Super *whole, const VirtioHeader *virtio, Py_ssize_t header, uint8_t *out, Py_ssize_t room, Py_ssize_t mtu
) noexcept nogil:
    """Write one packet as a slot, its checksum completed where the frame asks for it."""
    cdef Train train
    cdef Py_ssize_t start = virtio.csum_start
    cdef Py_ssize_t field = start + virtio.csum_offset
    cdef Py_ssize_t size = padded(whole.length, mtu)
    cdef uint8_t *packet = out + HEADROOM
    cdef uint32_t checksum
    if virtio.flags & NEEDS_CSUM and (start < header or field + 2 > whole.length):
        return failure(MALFORMED)
    if HEADROOM + size + TAILROOM > room:
        return failure(NO_ROOM)
    memcpy(packet, whole.packet, whole.length)
    memset(packet + whole.length, 0, size - whole.length)
    if virtio.flags & NEEDS_CSUM:
        # The field already holds the pseudo-header's sum. 0 would mean "none" to UDP, so the other zero is written.
        checksum = complement(word_sum(packet + start, whole.length - start))
        put16(packet + field, checksum if checksum else 0xFFFF)
    train.count = 1
    train.stride = train.length = HEADROOM + size + TAILROOM
    return train


cdef bint measure(Super *whole, const VirtioHeader *virtio) noexcept nogil:
    """Find out where the headers of a super-packet end and whether its parts make sense."""
    cdef int gso_type = virtio.gso_type & ~GSO_ECN
    cdef int version = whole.packet[0] >> 4
    cdef Py_ssize_t size = UDP_HEADER
    if gso_type == GSO_UDP_L4:
        whole.tcp = False
    elif (gso_type == GSO_TCPV4 and version == 4) or (gso_type == GSO_TCPV6 and version == 6):
        whole.tcp = True
    else:
        return False
    whole.transport = transport_offset(whole.packet, whole.length, TCP if whole.tcp else UDP)
    if whole.transport == 0 or whole.transport != virtio.csum_start:
        return False
    if whole.tcp:
        if whole.transport + TCP_HEADER > whole.length:
            return False
        size = (whole.packet[whole.transport + 12] >> 4) * 4
        if size < TCP_HEADER:
            return False
    whole.headers = whole.transport + size
    whole.gso_size = virtio.gso_size
    return whole.headers < whole.length and whole.gso_size > 0


cdef Py_ssize_t transport_offset(const uint8_t *packet, Py_ssize_t length, int protocol) noexcept nogil:
    """Where the ``protocol`` header starts in an IP packet whose fixed header fits; 0 if it cannot be told."""
    cdef Py_ssize_t offset = IPV6_HEADER
    cdef int following
    if packet[0] >> 4 == 4:
        return 0 if packet[6] & 0x3F or packet[7] or packet[9] != protocol else (packet[0] & 15) * 4
    following = packet[6]
    while following == HOP_BY_HOP or following == DESTINATION_OPTIONS:
        if offset + 2 > length:
            return 0
        following = packet[offset]
        offset += 8 * (<Py_ssize_t>packet[offset + 1] + 1)
    return offset if following == protocol else 0


cdef Train put_segments(const Super *whole, uint8_t *out, Py_ssize_t room, Py_ssize_t mtu) noexcept nogil:
    """Cut a super-packet into slots."""
    cdef Train train
    cdef Py_ssize_t payload = whole.length - whole.headers
    cdef Py_ssize_t size, length, filled, index
    cdef Py_ssize_t position = whole.headers
    cdef uint8_t *packet
    cdef uint64_t base = constant_sum(whole)
    train.count = (payload + whole.gso_size - 1) // whole.gso_size
    train.stride = HEADROOM + padded(whole.headers + min(whole.gso_size, payload), mtu) + TAILROOM
    size = payload - (train.count - 1) * whole.gso_size
    train.length = (train.count - 1) * train.stride + HEADROOM + padded(whole.headers + size, mtu) + TAILROOM
    if train.length > room:
        return failure(NO_ROOM)
    for index in range(train.count):
        size = min(whole.gso_size, whole.length - position)
        length = whole.headers + size
        filled = padded(length, mtu)
        packet = out + index * train.stride + HEADROOM
        memcpy(packet, whole.packet, whole.headers)
        memcpy(packet + whole.headers, whole.packet + position, size)
        memset(packet + length, 0, filled - length)
        put_ip(whole, packet, length, index)
        if whole.tcp:
            put_tcp(whole, packet, length, index, base)
        else:
            put_udp(whole, packet, length, base)
        position += size
    return train


cdef uint64_t constant_sum(const Super *whole) noexcept nogil:
    """The part of the transport checksum that all segments share: addresses, protocol and unchanging header fields."""
    cdef const uint8_t *ip = whole.packet
    cdef const uint8_t *transport = ip + whole.transport
    cdef uint64_t total = word_sum(ip + 12, 8) if ip[0] >> 4 == 4 else word_sum(ip + 8, 32)
    total += word_sum(transport, 4)
    if not whole.tcp:
        return total + UDP
    total += TCP + word_sum(transport + 8, 4) + get16(transport + 14)
    return total + word_sum(transport + 18, whole.headers - whole.transport - 18)


cdef void put_ip(const Super *whole, uint8_t *packet, Py_ssize_t length, Py_ssize_t index) noexcept nogil:
    """Complete the IP header of segment ``index``."""
    if packet[0] >> 4 == 6:
        put16(packet + 4, <uint32_t>(length - IPV6_HEADER))
        return
    put16(packet + 2, <uint32_t>length)
    put16(packet + 4, get16(whole.packet + 4) + <uint32_t>index)
    put16(packet + 10, 0)
    put16(packet + 10, complement(word_sum(packet, whole.transport)))


cdef void put_tcp(
    const Super *whole, uint8_t *packet, Py_ssize_t length, Py_ssize_t index, uint64_t base
) noexcept nogil:
    """Complete the TCP header of segment ``index``."""
    cdef uint8_t *tcp = packet + whole.transport
    cdef uint32_t sequence = get32(tcp + 4) + <uint32_t>(index * whole.gso_size)
    put32(tcp + 4, sequence)
    if index:
        tcp[13] &= <uint8_t>~CWR
    if whole.headers + (index + 1) * whole.gso_size < whole.length:
        tcp[13] &= <uint8_t>~(FIN | PSH)
    base += <uint64_t>(length - whole.transport) + sequence + get16(tcp + 12)
    put16(tcp + TCP_CSUM, complement(base + word_sum(packet + whole.headers, length - whole.headers)))


cdef void put_udp(const Super *whole, uint8_t *packet, Py_ssize_t length, uint64_t base) noexcept nogil:
    """Complete the UDP header of a segment."""
    cdef uint8_t *udp = packet + whole.transport
    cdef uint32_t size = <uint32_t>(length - whole.transport)
    cdef uint32_t checksum
    put16(udp + 4, size)
    # The length counts twice: in the pseudo-header and in the header. 0 would mean "no checksum" (RFC 768).
    checksum = complement(base + 2 * size + word_sum(packet + whole.headers, length - whole.headers))
    put16(udp + UDP_CSUM, checksum if checksum else 0xFFFF)
