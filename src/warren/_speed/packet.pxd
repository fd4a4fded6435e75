# cython: language_level=3
"""What the compiled twins share: big-endian fields at any alignment, the Internet checksum, packet lengths."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from "<arpa/inet.h>" nogil:
    uint16_t htons(uint16_t)
    uint16_t ntohs(uint16_t)
    uint32_t htonl(uint32_t)
    uint32_t ntohl(uint32_t)

cdef enum:
    VNET = 10
    HEADROOM = 16
    TAILROOM = 16
    MAX_PACKET = 65535

    IPV4_HEADER = 20
    IPV6_HEADER = 40
    TCP_HEADER = 20
    UDP_HEADER = 8
    TCP = 6
    UDP = 17
    TCP_CSUM = 16
    UDP_CSUM = 6

    FIN = 0x01
    PSH = 0x08
    ACK = 0x10
    CWR = 0x80

    NEEDS_CSUM = 1
    GSO_NONE = 0
    GSO_TCPV4 = 1
    GSO_TCPV6 = 4
    GSO_UDP_L4 = 5
    GSO_ECN = 0x80

# linux/virtio_net.h, legacy layout: the machine's own byte order.
cdef packed struct VirtioHeader:
    uint8_t flags
    uint8_t gso_type
    uint16_t hdr_len
    uint16_t gso_size
    uint16_t csum_start
    uint16_t csum_offset


cdef inline uint32_t get16(const uint8_t *at) noexcept nogil:
    cdef uint16_t value
    memcpy(&value, at, 2)
    return ntohs(value)


cdef inline void put16(uint8_t *at, uint32_t value) noexcept nogil:
    cdef uint16_t word = htons(<uint16_t>value)
    memcpy(at, &word, 2)


cdef inline uint32_t get32(const uint8_t *at) noexcept nogil:
    cdef uint32_t value
    memcpy(&value, at, 4)
    return ntohl(value)


cdef inline void put32(uint8_t *at, uint32_t value) noexcept nogil:
    cdef uint32_t word = htonl(value)
    memcpy(at, &word, 4)


cdef inline uint32_t fold(uint64_t total) noexcept nogil:
    """A sum of 16-bit words brought to 16 bits; 0 only if ``total`` is 0, else 0xFFFF stands for zero (RFC 1071)."""
    total = <uint32_t>total + (total >> 32)
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return <uint32_t>total


cdef inline uint32_t complement(uint64_t total) noexcept nogil:
    """The checksum field that makes words summing to ``total`` valid."""
    return 0xFFFF - fold(total)


cdef inline uint32_t word_sum(const uint8_t *data, size_t length) noexcept nogil:
    """The folded sum of the big-endian 16-bit words of ``data``, an odd end padded with zero.

    Words of 32 bits are added in the machine's byte order, in a loop that the compiler turns into vector instructions;
    the order of bytes is put right in the end (RFC 1071 §2).
    """
    cdef uint64_t total = 0
    cdef uint32_t word
    cdef size_t i
    for i in range(length // 4):
        memcpy(&word, data + 4 * i, 4)
        total += word
    if length & 3:
        word = 0
        memcpy(&word, data + length - (length & 3), length & 3)
        total += word
    return ntohs(<uint16_t>fold(total))


cdef inline Py_ssize_t packet_length(const uint8_t *data, Py_ssize_t room) noexcept nogil:
    """The length of the IP packet at ``data`` by its own header, 0 if it is none or longer than ``room``."""
    cdef Py_ssize_t length, header
    if room < IPV4_HEADER:
        return 0
    if data[0] >> 4 == 4:
        length = get16(data + 2)
        header = (data[0] & 15) * 4
        return length if IPV4_HEADER <= header and header <= length and length <= room else 0
    if data[0] >> 4 == 6:
        length = IPV6_HEADER + <Py_ssize_t>get16(data + 4)
        return length if length <= room else 0
    return 0


cdef inline Py_ssize_t count_slots(Py_ssize_t size, Py_ssize_t at, Py_ssize_t end, Py_ssize_t stride) except -1:
    """How many slots the train [at, end) of a buffer of ``size`` bytes has. Raises ValueError if it does not fit."""
    if at < 0 or end < at or size < end or stride <= 0:
        raise ValueError("the train lies outside its buffer or has no stride")
    return (end - at) // stride + ((end - at) % stride != 0)
