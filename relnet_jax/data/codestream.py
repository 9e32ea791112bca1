"""What a JPEG or JPEG 2000 stream says of itself, read before a decoder is let loose on it.

Decoders trust these streams with their memory and time: a few hundred bytes can ask for gigabytes (a precinct for every
pixel) or for minutes (thousands of scans).
"""
from collections.abc import Iterator
from typing import NamedTuple

END = b'\xff\xd9'
START_JPEG_2000 = b'\xff\x4f\xff\x51'
FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xF7}     # start of frame: lossy sequential and progressive, lossless; JPEG-LS
MAX_SCANS = 100         # a progressive JPEG has about ten; each costs a pass over all pixels
MAX_TILES = 10_000      # of JPEG 2000
MIN_PRECINCT = 3        # log2 of its side: decoders keep some 500 bytes for every one


class Refused(ValueError):
    """Bytes that are not decoded; the text says why."""


class Frame(NamedTuple):
    """The picture in a stream. `lossless` is not told of JPEG 2000."""
    height: int
    width: int
    components: int
    precision: int          # bits per sample
    lossless: bool = False


def jpeg_frame(stream: bytes) -> Frame:
    """Of a JPEG or JPEG-LS stream. Raises Refused if it is none, is cut off or has too many scans."""
    if not stream.startswith(b'\xff\xd8'):
        raise Refused('no JPEG stream')
    if stream.find(END, stream.rfind(b'\xff\xda')) < 0:     # thumbnails in the header have ends, too
        raise Refused(f'truncated JPEG, {len(stream)} bytes without an end marker')
    if stream.count(b'\xff\xda') > MAX_SCANS:
        raise Refused(f'JPEG of more than {MAX_SCANS} scans')
    for marker, content in _jpeg_segments(stream):
        if marker in FRAMES and len(content) > 5:
            return Frame(_number(content[1:3]), _number(content[3:5]), content[5], precision=content[0],
                         lossless=marker >= 0xC3)
    raise Refused('JPEG stream without a frame that can be decoded')


def jpeg2000_frame(stream: bytes) -> Frame:
    """Of a JPEG 2000 code stream. Raises Refused if it is none or has more tiles and precincts than make sense."""
    frame = None
    for marker, content in _jpeg2000_headers(stream):
        precincts = b''
        if marker == 0x51:      # SIZ: image and tile size
            width, height, left, top, tile_width, tile_height = (_number(content[i:i + 4]) for i in range(2, 26, 4))
            if not tile_width or not tile_height or -(-width // tile_width) * -(-height // tile_height) > MAX_TILES:
                raise Refused(f'JPEG 2000 of {width} x {height} pixels in tiles of {tile_width} x {tile_height}')
            frame = Frame(height - top, width - left, _number(content[34:36]), precision=(content[36] & 127) + 1)
        elif marker == 0x52 and content[0] & 1:     # COD: coding style; bit 0: precinct sizes are given
            precincts = content[10:]
        elif marker == 0x53 and content[1] & 1:     # COC: the same for one component
            precincts = content[7:]
        if any(min(size & 15, size >> 4) < MIN_PRECINCT for size in precincts):
            raise Refused(f'JPEG 2000 in precincts of less than {2 ** MIN_PRECINCT} pixels a side')
    return frame


def _number(data: bytes) -> int:
    return int.from_bytes(data, 'big')


def _jpeg_segments(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """(marker, content) of the segments, up to the first one without a sensible length."""
    position = 2
    while position + 4 <= len(stream) and stream[position] == 0xFF:
        if stream[position + 1] == 0xFF:      # fill byte
            position += 1
            continue
        length = _number(stream[position + 2:position + 4])
        content = stream[position + 4:position + 2 + length]
        if length < 2 or len(content) < length - 2:
            return
        yield stream[position + 1], content
        position += 2 + length


def _jpeg2000_headers(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """(marker, content) of the segments in the main header and in those of the tile parts, whose data are passed over.

    Raises Refused for anything else: a decoder would search on where this looks away.
    """
    if not stream.startswith(START_JPEG_2000):
        raise Refused('no JPEG 2000 code stream')
    position, next_part = 2, len(stream)
    while stream[position:position + 2] not in (b'', END):
        marker = _number(stream[position:position + 2]) - 0xFF00
        if marker == 0x93:      # SOD: from here on data, to the end of the tile part
            position = next_part
            continue
        length = _number(stream[position + 2:position + 4])
        content = stream[position + 4:position + 2 + length]
        if not (0x50 <= marker <= 0x64 or marker == 0x90) or len(content) != length - 2:
            raise Refused('JPEG 2000 code stream with damaged headers')
        if marker == 0x90:      # SOT: length of the tile part; 0 = to the end
            part = _number(content[2:6])
            next_part = position + part if part else len(stream)
            if next_part < position + 14:
                raise Refused('JPEG 2000 code stream with damaged headers')
        yield marker, content
        position += 2 + length
