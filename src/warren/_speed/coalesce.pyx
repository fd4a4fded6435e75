# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The compiled twin of :mod:`warren.proto.ip.coalesce`. Every index below is checked against the lengths given."""

from cpython.buffer cimport (
    PyBUF_FORMAT, PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
)
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memmove, memset

from warren._speed.packet cimport *

cdef enum:
    MAX_RUNS = 8
    MAX_UDP_SEGMENTS = 64
    MAX_FRAME = VNET + MAX_PACKET
    MAX_TRAIN = 65536

    NO_RUN = -1

# A whole packet outside the arena, its transport header (if ``protocol`` is set) inside.
cdef struct Packet:
    const uint8_t *data
    Py_ssize_t length
    Py_ssize_t offset       # of the transport header
    Py_ssize_t headers      # IP and transport header together; beyond ``length`` if the packet lies
    Py_ssize_t size         # of the payload, 0 or less if there is none
    int protocol            # TCP, UDP, or 0: of no flow that could be told
    bint mergeable

cdef struct Span:
    Py_ssize_t start
    Py_ssize_t end

# An open run: a frame in the arena that the next packet of its flow may be appended to. The header of its first packet,
# as it lies in the arena, is what a further packet is compared with.
cdef struct Run:
    Py_ssize_t start
    Py_ssize_t end
    Py_ssize_t limit        # how far the frame may grow
    Py_ssize_t index        # its place in the order of frames
    Py_ssize_t offset
    Py_ssize_t headers
    Py_ssize_t size         # of each segment (gso_size)
    Py_ssize_t segments
    int protocol
    uint32_t sequence       # that continues the run (TCP)
    uint32_t identification # of the last packet (IPv4)
    uint32_t step           # by which it rises


cdef class Coalescer:
    """Merges the packets of one peer's trains into TUN frames, kept in ``frames`` until the next :meth:`add`.

    ``capacity`` is the size of ``frames`` in bytes, at least MAX_TRAIN; ``udp`` says whether the TUN takes USO frames.
    Raises ValueError for a smaller capacity. For one thread at a time.

    Merged are TCP segments with ACK and perhaps PSH set, and UDP datagrams with a checksum, whose checksums hold, that
    follow each other in sequence and differ in nothing else. A shorter payload or PSH ends a run. All other packets,
    those with a wrong checksum among them, pass as they are for the host to judge. Packets of one flow keep their
    order; what cannot be told to belong to a flow (a fragment, ICMP …) stays behind all that came before it.
    """

    cdef readonly bytearray frames
    cdef Py_buffer view             # of frames, held so that they cannot be resized
    cdef uint8_t *arena
    cdef Py_ssize_t capacity
    cdef Span *spans
    cdef Py_ssize_t max_spans
    cdef Py_ssize_t count           # of spans
    cdef Py_ssize_t tail
    cdef Py_ssize_t last            # index of the open run that ends at the tail, or NO_RUN
    cdef Py_ssize_t reserves
    cdef Py_ssize_t spare
    cdef Run runs[MAX_RUNS]         # the open ones, oldest first
    cdef int open_runs
    cdef bint udp
    cdef bint busy

    def __cinit__(self, Py_ssize_t capacity, bint udp):
        if capacity < MAX_TRAIN:
            raise ValueError(f"a coalescer needs room for a train, {MAX_TRAIN} bytes")
        self.frames = bytearray(capacity)
        PyObject_GetBuffer(self.frames, &self.view, PyBUF_WRITABLE)
        self.arena = <uint8_t *>self.view.buf
        self.capacity = capacity
        self.max_spans = capacity // (VNET + IPV4_HEADER)
        self.spans = <Span *>malloc(self.max_spans * sizeof(Span))
        if self.spans == NULL:
            raise MemoryError
        self.udp = udp
        self.reserves = min(<Py_ssize_t>MAX_RUNS, (capacity - MAX_TRAIN) // MAX_FRAME // 2)
        self.reset()

    def __dealloc__(self):
        if self.arena != NULL:
            PyBuffer_Release(&self.view)
        free(self.spans)

    cdef void reset(self) noexcept nogil:
        self.count = 0
        self.tail = 0
        self.last = NO_RUN
        self.spare = self.reserves
        self.open_runs = 0

    def room(self):
        """Whether the packets of one more train surely fit."""
        return self.capacity - self.tail - self.spare * MAX_FRAME >= MAX_TRAIN

    def add(self, buffer, Py_ssize_t at, Py_ssize_t end, Py_ssize_t stride, lengths):
        """Take the plaintexts of an opened train; return how many were dropped as malformed, or for want of room.

        The plaintext of datagram i starts at ``buffer[at + i * stride + 16]`` and has ``lengths[i]`` bytes; lengths of
        0 and below are skipped. Padding is trimmed by the IP header's own length. The buffer is free for other use on
        return. Raises ValueError for a train that does not fit its buffer or ``lengths``, an ``array('i')``.
        """
        cdef Py_buffer view, items
        cdef Py_ssize_t dropped
        PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
        try:
            PyObject_GetBuffer(lengths, &items, PyBUF_FORMAT)
            try:
                if count_slots(view.len, at, end, stride) > items.len // <Py_ssize_t>sizeof(int) or (
                    items.format == NULL or items.format != b"i"
                ):
                    raise ValueError("lengths must be an array('i') with an item for each datagram")
                if self.busy:
                    raise RuntimeError("a coalescer is for one thread at a time")
                self.busy = True
                with nogil:
                    dropped = self.add_train(<const uint8_t *>view.buf + at, end - at, stride, <const int *>items.buf)
                self.busy = False
            finally:
                PyBuffer_Release(&items)
        finally:
            PyBuffer_Release(&view)
        return dropped

    def flush(self):
        """End all runs; return the (start, end) of each frame in ``frames``, in order, and start afresh."""
        cdef Py_ssize_t i
        if self.busy:
            raise RuntimeError("a coalescer is for one thread at a time")
        self.close_all()
        spans = [(self.spans[i].start, self.spans[i].end) for i in range(self.count)]
        self.reset()
        return spans

    cdef Py_ssize_t add_train(
        self, const uint8_t *train, Py_ssize_t length, Py_ssize_t stride, const int *lengths
    ) noexcept nogil:
        cdef Py_ssize_t slot = 0, i = 0, dropped = 0
        cdef Py_ssize_t room
        cdef Packet packet
        while slot < length:
            if lengths[i] > 0:
                room = min(stride, length - slot) - HEADROOM - TAILROOM
                packet.data = train + slot + HEADROOM
                packet.length = packet_length(packet.data, lengths[i]) if lengths[i] <= room else 0
                if packet.length == 0 or not self.take(&packet):
                    dropped += 1
            i += 1
            slot += stride
        return dropped

    cdef bint take(self, Packet *packet) noexcept nogil:
        """Sort one whole packet: into a run, or alone. False if there is no room for it."""
        cdef int i
        cdef Py_ssize_t index
        cdef bint pushed
        parse(packet, self.udp)
        if packet.protocol == 0:
            self.close_all()
            return self.place(packet) != NO_RUN
        pushed = packet.protocol == TCP and packet.data[packet.offset + 13] & PSH
        i = self.find(packet)
        if i != NO_RUN:
            if packet.mergeable and self.append(&self.runs[i], packet):
                if (
                    pushed
                    or packet.size < self.runs[i].size
                    or (packet.protocol == UDP and self.runs[i].segments == MAX_UDP_SEGMENTS)
                ):
                    self.close(i)
                return True
            self.close(i)
        index = self.place(packet)
        if index != NO_RUN and packet.mergeable and not pushed:
            self.begin(packet, index)
        return index != NO_RUN

    cdef int find(self, const Packet *packet) noexcept nogil:
        """The open run of the packet's flow, or NO_RUN."""
        cdef int i = self.open_runs - 1
        cdef const uint8_t *first
        cdef Py_ssize_t addresses = packet.offset - (8 if packet.offset == IPV4_HEADER else 32)
        while i >= 0:
            if self.runs[i].protocol == packet.protocol and self.runs[i].offset == packet.offset:
                first = self.arena + self.runs[i].start + VNET
                # The ports follow the addresses.
                if memcmp(first + addresses, packet.data + addresses, packet.offset + 4 - addresses) == 0:
                    return i
            i -= 1
        return NO_RUN

    cdef void begin(self, const Packet *packet, Py_ssize_t index) noexcept nogil:
        """Open a run with the frame just placed as number ``index``. The oldest open run gives way if need be."""
        cdef Run *run
        if self.open_runs == MAX_RUNS:
            self.close(0)
        run = &self.runs[self.open_runs]
        self.open_runs += 1
        run.start = self.spans[index].start
        run.end = self.spans[index].end
        run.limit = min(run.start + MAX_FRAME, self.capacity)
        run.index = index
        run.offset = packet.offset
        run.headers = packet.headers
        run.size = packet.size
        run.segments = 1
        run.protocol = packet.protocol
        run.step = 0
        run.identification = get16(packet.data + 4) if packet.offset == IPV4_HEADER else 0
        if packet.protocol == TCP:
            run.sequence = get32(packet.data + packet.offset + 4) + <uint32_t>packet.size
        self.last = index

    cdef bint append(self, Run *run, const Packet *packet) noexcept nogil:
        """Add a packet's payload to the run of its flow if it continues it."""
        cdef uint32_t identification = 0, step = 0
        if packet.size > run.size or run.end + packet.size > run.limit:
            return False
        if packet.protocol == TCP and get32(packet.data + packet.offset + 4) != run.sequence:
            return False
        if not same_headers(self.arena + run.start + VNET, packet):
            return False
        if packet.offset == IPV4_HEADER:
            identification = get16(packet.data + 4)
            step = (identification - run.identification) & 0xFFFF
            if run.segments > 1:
                if step != run.step:
                    return False
            elif step != 1 and not (step == 0 and packet.data[6] & 0x40):
                return False
        memcpy(self.arena + run.end, packet.data + packet.headers, packet.size)
        if packet.protocol == TCP:
            self.arena[run.start + VNET + run.offset + 13] |= packet.data[packet.offset + 13] & PSH
            run.sequence += <uint32_t>packet.size
        run.identification = identification
        run.step = step
        run.end += packet.size
        run.segments += 1
        if run.index == self.last:
            self.tail = run.end
        return True

    cdef Py_ssize_t place(self, const Packet *packet) noexcept nogil:
        """Write a packet as a frame of its own at the tail; return its number, or NO_RUN if there is no room.

        An open run at the tail keeps room to grow to its full size, as long as there are such reserves.
        """
        cdef Py_ssize_t start = self.tail
        cdef Run *run
        if self.last != NO_RUN:
            run = &self.runs[self.open_runs - 1]    # only the youngest open run can be at the tail
            if self.spare and run.limit + VNET + packet.length <= self.capacity:
                start = run.limit
                self.spare -= 1
            else:
                run.limit = run.end
            self.last = NO_RUN
        if start + VNET + packet.length > self.capacity or self.count == self.max_spans:
            return NO_RUN
        memset(self.arena + start, 0, VNET)
        memcpy(self.arena + start + VNET, packet.data, packet.length)
        self.tail = start + VNET + packet.length
        self.spans[self.count].start = start
        self.spans[self.count].end = self.tail
        self.count += 1
        return self.count - 1

    cdef void close_all(self) noexcept nogil:
        while self.open_runs:
            self.close(0)

    cdef void close(self, int i) noexcept nogil:
        """End a run; one of several packets becomes a super-packet."""
        cdef Run *run = &self.runs[i]
        if run.index == self.last:
            self.last = NO_RUN
        if run.segments > 1:
            self.spans[run.index].end = run.end
            finish(run, self.arena + run.start)
        self.open_runs -= 1
        memmove(run, run + 1, (self.open_runs - i) * sizeof(Run))


cdef void parse(Packet *packet, bint udp) noexcept nogil:
    """Fill in what flow a packet is of and whether it may be merged. Its length is known to hold an IP header."""
    cdef const uint8_t *ip = packet.data
    cdef const uint8_t *transport
    cdef int protocol
    packet.protocol = 0
    packet.mergeable = False
    if ip[0] >> 4 == 6:
        packet.offset = IPV6_HEADER
        protocol = ip[6]
    elif ip[0] == 0x45 and not ip[6] & 0xBF and not ip[7]:
        packet.offset = IPV4_HEADER
        protocol = ip[9]
    else:
        return  # IPv4 options or a fragment
    transport = ip + packet.offset
    if protocol == TCP and packet.length >= packet.offset + TCP_HEADER:
        packet.protocol = TCP
        packet.headers = packet.offset + (transport[12] >> 4) * 4
        packet.size = packet.length - packet.headers
        packet.mergeable = (
            (get16(transport + 12) & 0xFFF & ~PSH) == ACK
            and packet.headers >= packet.offset + TCP_HEADER
            and packet.size > 0
            and valid(packet)
        )
    elif protocol == UDP and packet.length >= packet.offset + UDP_HEADER:
        packet.protocol = UDP
        packet.headers = packet.offset + UDP_HEADER
        packet.size = packet.length - packet.headers
        packet.mergeable = (
            udp
            and get16(transport + UDP_CSUM) != 0
            and <Py_ssize_t>get16(transport + 4) == packet.length - packet.offset
            and packet.size > 0
            and valid(packet)
        )


cdef bint valid(const Packet *packet) noexcept nogil:
    """Whether the packet's transport checksum, and that of an IPv4 header, hold."""
    cdef Py_ssize_t addresses = 8
    cdef uint64_t total = packet.protocol + <uint64_t>(packet.length - packet.offset)
    if packet.offset == IPV4_HEADER:
        if word_sum(packet.data, IPV4_HEADER) != 0xFFFF:
            return False
        addresses = 12
    # The addresses lie right before the transport header: the two sum up in one go.
    return fold(total + word_sum(packet.data + addresses, packet.length - addresses)) == 0xFFFF


cdef bint same_headers(const uint8_t *first, const Packet *packet) noexcept nogil:
    """Whether the fields that a run has in common are those of its first packet; flow and lengths are."""
    cdef const uint8_t *data = packet.data
    cdef Py_ssize_t tcp = packet.offset
    if packet.offset == IPV4_HEADER:
        if data[1] != first[1] or memcmp(data + 6, first + 6, 4) != 0:     # TOS; DF, TTL, protocol
            return False
    elif memcmp(data, first, 4) != 0 or memcmp(data + 6, first + 6, 2) != 0:   # class, flow label; hop limit
        return False
    if packet.protocol == UDP:
        return True
    return (
        memcmp(data + tcp + 8, first + tcp + 8, 5) == 0         # acknowledgement, header length
        and memcmp(data + tcp + 14, first + tcp + 14, 2) == 0   # window
        and memcmp(data + tcp + 18, first + tcp + 18, packet.headers - tcp - 18) == 0   # urgent pointer, options
    )


cdef void finish(const Run *run, uint8_t *frame) noexcept nogil:
    """Make a run's frame a super-packet, its checksum left to the device to complete."""
    cdef uint8_t *packet = frame + VNET
    cdef Py_ssize_t length = run.end - run.start - VNET
    cdef Py_ssize_t segment = length - run.offset
    cdef uint64_t pseudo = run.protocol + <uint64_t>segment
    cdef VirtioHeader virtio
    virtio.flags = NEEDS_CSUM
    virtio.hdr_len = <uint16_t>run.headers
    virtio.gso_size = <uint16_t>run.size
    virtio.csum_start = <uint16_t>run.offset
    virtio.csum_offset = TCP_CSUM if run.protocol == TCP else UDP_CSUM
    if run.offset == IPV4_HEADER:
        virtio.gso_type = GSO_TCPV4 if run.protocol == TCP else GSO_UDP_L4
        put16(packet + 2, <uint32_t>length)
        put16(packet + 10, 0)
        put16(packet + 10, complement(word_sum(packet, IPV4_HEADER)))
        pseudo += word_sum(packet + 12, 8)
    else:
        virtio.gso_type = GSO_TCPV6 if run.protocol == TCP else GSO_UDP_L4
        put16(packet + 4, <uint32_t>segment)
        pseudo += word_sum(packet + 8, 32)
    if run.protocol == UDP:
        put16(packet + run.offset + 4, <uint32_t>segment)
    put16(packet + run.offset + virtio.csum_offset, fold(pseudo))
    memcpy(frame, &virtio, VNET)
