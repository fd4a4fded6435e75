# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The compiled twin of :mod:`warren.proto.wireguard.transport`: libcrypto, one call without the GIL for a whole train.

Importing it raises ImportError where libcrypto refuses ChaCha20-Poly1305 (a FIPS provider does).
"""

from cpython.buffer cimport PyBUF_FORMAT, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from warren._speed.packet cimport count_slots

cdef extern from "<endian.h>" nogil:
    uint32_t htole32(uint32_t)
    uint32_t le32toh(uint32_t)
    uint64_t htole64(uint64_t)
    uint64_t le64toh(uint64_t)

cdef extern from "<openssl/evp.h>" nogil:
    ctypedef struct EVP_CIPHER:
        pass
    ctypedef struct EVP_CIPHER_CTX:
        pass
    ctypedef struct ENGINE:
        pass
    int EVP_CTRL_AEAD_GET_TAG
    int EVP_CTRL_AEAD_SET_TAG
    EVP_CIPHER_CTX *EVP_CIPHER_CTX_new()
    void EVP_CIPHER_CTX_free(EVP_CIPHER_CTX *)
    const EVP_CIPHER *EVP_chacha20_poly1305()
    int EVP_CipherInit_ex(EVP_CIPHER_CTX *, const EVP_CIPHER *, ENGINE *, const uint8_t *, const uint8_t *, int)
    int EVP_CipherUpdate(EVP_CIPHER_CTX *, uint8_t *, int *, const uint8_t *, int)
    int EVP_CipherFinal_ex(EVP_CIPHER_CTX *, uint8_t *, int *)
    int EVP_CIPHER_CTX_ctrl(EVP_CIPHER_CTX *, int, int, void *)

cdef enum:
    DATA = 4
    HEADER_BYTES = 16
    TAG_BYTES = 16
    OVERHEAD = 32
    KEY_BYTES = 32

    OPEN_AUTH = -1
    OPEN_REPLAY = -2
    OPEN_MALFORMED = -3
    OPEN_FOREIGN = -4
    OPEN_LIMIT = -5

    BLOCK_BITS = 64
    BLOCKS = 128
    WINDOW = (BLOCKS - 1) * BLOCK_BITS

cdef uint64_t REJECT_AFTER_MESSAGES = <uint64_t>0 - (1 << 13) - 1

cdef struct Header:
    uint32_t kind
    uint32_t index
    uint64_t counter

# RFC 6479: a ring of bit blocks that is cleared a whole block at a time.
cdef struct ReplayWindow:
    uint64_t greatest
    uint64_t ring[BLOCKS]


cdef bint window_accepts(const ReplayWindow *window, uint64_t counter) noexcept nogil:
    if counter > window.greatest:
        return True
    if window.greatest - counter > WINDOW:
        return False
    return not (window.ring[counter // BLOCK_BITS % BLOCKS] >> (counter % BLOCK_BITS)) & 1


cdef void window_mark(ReplayWindow *window, uint64_t counter) noexcept nogil:
    cdef uint64_t block = counter // BLOCK_BITS
    cdef uint64_t newest = window.greatest // BLOCK_BITS
    if counter > window.greatest:
        if block - newest >= BLOCKS:
            memset(window.ring, 0, sizeof(window.ring))
        else:
            while newest < block:
                newest += 1
                window.ring[newest % BLOCKS] = 0
        window.greatest = counter
    window.ring[block % BLOCKS] |= <uint64_t>1 << (counter % BLOCK_BITS)


cdef EVP_CIPHER_CTX *new_cipher(bytes key, object index, bint sealing) except NULL:
    """A cipher context with its key set. Raises ValueError for a key or an index that is none."""
    cdef EVP_CIPHER_CTX *cipher
    if len(key) != KEY_BYTES or not 0 <= index < 2**32:
        raise ValueError(f"a data key is {KEY_BYTES} bytes with a 32-bit index")
    cipher = EVP_CIPHER_CTX_new()
    if cipher == NULL:
        raise MemoryError
    if EVP_CipherInit_ex(cipher, EVP_chacha20_poly1305(), NULL, <const uint8_t *>key, NULL, sealing) != 1:
        EVP_CIPHER_CTX_free(cipher)
        raise RuntimeError("libcrypto refuses ChaCha20-Poly1305")
    return cipher


cdef class SealingKey:
    """Encrypts data messages to one receiver. ``counter`` is the next to be used. For one thread at a time.

    Raises ValueError for a key that is not 32 bytes or an index that is not 32 bits.
    """

    cdef EVP_CIPHER_CTX *cipher
    cdef uint32_t receiver_index
    cdef bint busy
    cdef public uint64_t counter

    def __cinit__(self, bytes key not None, receiver_index):
        self.cipher = new_cipher(key, receiver_index, True)
        self.receiver_index = receiver_index

    def __dealloc__(self):
        EVP_CIPHER_CTX_free(self.cipher)

    def seal(self, buffer, Py_ssize_t at, Py_ssize_t end, Py_ssize_t stride):
        """Seal each slot of the train ``buffer[at:end]`` in place: header, ciphertext and tag around its packet.

        Raises ValueError, with nothing sealed, for a train that does not fit its buffer or has a slot below 32 bytes,
        for a wiped key, and when a counter would reach REJECT_AFTER_MESSAGES.
        """
        cdef Py_buffer view
        cdef Py_ssize_t count
        cdef uint64_t counter
        cdef bint sealed
        PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
        try:
            count = count_slots(view.len, at, end, stride)
            if count and end - at - (count - 1) * stride < OVERHEAD:
                raise ValueError("a slot is shorter than an empty data message")
            if self.cipher == NULL:
                raise ValueError("the key is wiped")
            counter = self.counter
            if counter > REJECT_AFTER_MESSAGES or <uint64_t>count > REJECT_AFTER_MESSAGES - counter:
                raise ValueError("the key has sealed all the messages it may")
            if self.busy:
                raise RuntimeError("a key is for one thread at a time")
            self.counter += <uint64_t>count
            self.busy = True
            with nogil:
                sealed = self.seal_train(<uint8_t *>view.buf + at, end - at, stride, counter)
            self.busy = False
        finally:
            PyBuffer_Release(&view)
        if not sealed:
            raise RuntimeError("libcrypto failed to encrypt")

    cdef bint seal_train(self, uint8_t *train, Py_ssize_t length, Py_ssize_t stride, uint64_t counter) noexcept nogil:
        cdef Py_ssize_t slot = 0
        while slot < length:
            if not self.seal_one(train + slot, min(stride, length - slot), counter):
                return False
            counter += 1
            slot += stride
        return True

    cdef bint seal_one(self, uint8_t *slot, Py_ssize_t length, uint64_t counter) noexcept nogil:
        cdef Header header
        cdef uint8_t nonce[12]
        cdef uint8_t *packet = slot + HEADER_BYTES
        cdef int size = <int>(length - OVERHEAD)
        cdef int written
        header.kind, header.index, header.counter = htole32(DATA), htole32(self.receiver_index), htole64(counter)
        memcpy(slot, &header, HEADER_BYTES)
        memset(nonce, 0, 4)
        memcpy(nonce + 4, slot + 8, 8)
        return (
            EVP_CipherInit_ex(self.cipher, NULL, NULL, NULL, nonce, 1) == 1
            and EVP_CipherUpdate(self.cipher, packet, &written, packet, size) == 1
            and EVP_CipherFinal_ex(self.cipher, packet + size, &written) == 1
            and EVP_CIPHER_CTX_ctrl(self.cipher, EVP_CTRL_AEAD_GET_TAG, TAG_BYTES, packet + size) == 1
        )

    def wipe(self):
        """Forget the key. Sealing raises from now on."""
        if self.busy:
            raise RuntimeError("a key is for one thread at a time")
        EVP_CIPHER_CTX_free(self.cipher)
        self.cipher = NULL


cdef class OpeningKey:
    """Authenticates and decrypts data messages that carry ``own_index``, each counter once. For one thread at a time.

    Raises ValueError for a key that is not 32 bytes or an index that is not 32 bits.
    """

    cdef EVP_CIPHER_CTX *cipher
    cdef uint32_t own_index
    cdef bint busy
    cdef ReplayWindow window

    def __cinit__(self, bytes key not None, own_index):
        self.cipher = new_cipher(key, own_index, False)
        self.own_index = own_index

    def __dealloc__(self):
        EVP_CIPHER_CTX_free(self.cipher)

    def open(self, buffer, Py_ssize_t at, Py_ssize_t end, Py_ssize_t stride, lengths):
        """Open each datagram of the train ``buffer[at:end]`` in place; return how many were opened.

        ``lengths[i]``, of an ``array('i')``, becomes the length of the plaintext now at ``at + i * stride + 16`` (0: a
        keepalive) or an ``OPEN_*`` code. A counter outside the replay window costs no decryption, and the window moves
        for authentic messages only. What a forged datagram leaves in its own slot is undefined. Raises ValueError, with
        nothing opened, for a train that does not fit its buffer or ``lengths``, and for a wiped key.
        """
        cdef Py_buffer view, items
        cdef Py_ssize_t opened
        PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
        try:
            PyObject_GetBuffer(lengths, &items, PyBUF_WRITABLE | PyBUF_FORMAT)
            try:
                if items.format == NULL or items.format != b"i" or (
                    count_slots(view.len, at, end, stride) > items.len // <Py_ssize_t>sizeof(int)
                ):
                    raise ValueError("lengths must be an array('i') with an item for each datagram")
                if self.cipher == NULL:
                    raise ValueError("the key is wiped")
                if self.busy:
                    raise RuntimeError("a key is for one thread at a time")
                self.busy = True
                with nogil:
                    opened = self.open_train(<uint8_t *>view.buf + at, end - at, stride, <int *>items.buf)
                self.busy = False
            finally:
                PyBuffer_Release(&items)
        finally:
            PyBuffer_Release(&view)
        return opened

    cdef Py_ssize_t open_train(
        self, uint8_t *train, Py_ssize_t length, Py_ssize_t stride, int *lengths
    ) noexcept nogil:
        cdef Py_ssize_t slot = 0, i = 0, opened = 0
        while slot < length:
            lengths[i] = self.open_one(train + slot, min(stride, length - slot))
            opened += lengths[i] >= 0
            i += 1
            slot += stride
        return opened

    cdef int open_one(self, uint8_t *slot, Py_ssize_t length) noexcept nogil:
        """Open one datagram; return what goes into ``lengths``."""
        cdef Header header
        cdef uint64_t counter
        cdef uint8_t nonce[12]
        cdef uint8_t *packet = slot + HEADER_BYTES
        cdef int size = <int>(length - OVERHEAD)
        cdef int written
        if length < OVERHEAD:
            return OPEN_MALFORMED
        memcpy(&header, slot, HEADER_BYTES)
        if le32toh(header.kind) != DATA or le32toh(header.index) != self.own_index:
            return OPEN_FOREIGN
        counter = le64toh(header.counter)
        if counter >= REJECT_AFTER_MESSAGES:
            return OPEN_LIMIT
        if not window_accepts(&self.window, counter):
            return OPEN_REPLAY
        memset(nonce, 0, 4)
        memcpy(nonce + 4, slot + 8, 8)
        if (
            EVP_CipherInit_ex(self.cipher, NULL, NULL, NULL, nonce, 0) != 1
            or EVP_CIPHER_CTX_ctrl(self.cipher, EVP_CTRL_AEAD_SET_TAG, TAG_BYTES, packet + size) != 1
            or EVP_CipherUpdate(self.cipher, packet, &written, packet, size) != 1
            or EVP_CipherFinal_ex(self.cipher, packet + size, &written) != 1
        ):
            return OPEN_AUTH
        window_mark(&self.window, counter)
        return size

    def wipe(self):
        """Forget the key. Opening raises from now on."""
        if self.busy:
            raise RuntimeError("a key is for one thread at a time")
        EVP_CIPHER_CTX_free(self.cipher)
        self.cipher = NULL


try:
    SealingKey(bytes(KEY_BYTES), 0)
except RuntimeError as error:
    raise ImportError(str(error)) from error
