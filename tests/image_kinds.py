"""Images made by code: odd ones with the pixels a person should see, and malformed ones.

``good()`` maps a name to (bytes, uint8 (H, W, 3)): the pixels are worked out here with numpy from
the values that were encoded. ``bad()`` maps a name to (bytes, the look that must find it, a part of
the reason): ``quick`` for the look before training, ``full`` for the survey.
"""

import io
import pickle
import struct
import zlib

import numpy as np
from PIL import Image

H, W = 20, 28
RANGE = (-1000.0, 3000.0)  # of the good images whose pixels are floats or 32-bit integers


def photo(height=H, width=W):
    """Smooth waves and noise, uint8 (H, W, 3)."""
    y, x = np.mgrid[:height, :width]
    waves = [127 + 120 * np.sin(x / a + y / b) for a, b in ((5, 9), (7, -11), (13, 6))]
    noise = np.random.default_rng(0).normal(0, 8, (height, width, 3))
    return (np.stack(waves, -1) + noise).clip(0, 255).astype(np.uint8)


def encoded(pixels, kind, **options):
    """An image by Pillow's own encoder."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


# encoders by hand, from the formats' specifications


def packed(values, bits):
    """Rows of values of 1, 2, 4, 8 or 16 bits, big-endian, each row padded to a byte."""
    rows = values.reshape(len(values), -1).astype(np.int64)
    spread = (rows[..., None] >> np.arange(bits)[::-1]) & 1
    return [row.tobytes() for row in np.packbits(spread.reshape(len(rows), -1), axis=1)]


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(values, colour, bits=8, *, before=b"", after=b"", interlaced=False, data=None, size=None):
    """Values (H, W[, C]) as a PNG of a colour type (0 grey, 2 RGB, 3 palette, 4 LA, 6 RGBA)."""
    height, width = size or values.shape[:2]
    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4)]
        passes += [(2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = [row for y, x, dy, dx in passes for row in packed(values[y::dy, x::dx], bits)]
    if data is None:
        data = zlib.compress(b"".join(b"\0" + row for row in rows))
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    body = chunk(b"IHDR", head) + before + (chunk(b"IDAT", data) if data else b"")
    return b"\x89PNG\r\n\x1a\n" + body + after + chunk(b"IEND", b"")


def tiff(data, tags, order="<", size=(H, W)):
    """An uncompressed TIFF of one strip (or the strips and tiles that the tags tell)."""
    entries = {256: (4, [size[1]]), 257: (4, [size[0]]), 259: (3, [1])}
    entries |= {273: (4, [8]), 278: (4, [size[0]]), 279: (4, [len(data)])} | tags
    entries = {k: v for k, v in sorted(entries.items()) if v}
    where = 8 + len(data) + len(data) % 2
    ifd, extra = struct.pack(order + "H", len(entries)), b""
    beyond = where + 2 + 12 * len(entries) + 4
    for tag, (kind, values) in entries.items():
        raw = struct.pack(f"{order}{len(values)}{'?BBHI'[kind]}", *values)
        if len(raw) > 4:
            extra, raw = extra + raw, struct.pack(order + "I", beyond + len(extra))
        ifd += struct.pack(order + "HHI", tag, kind, len(values)) + raw.ljust(4, b"\0")
    start = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, where)
    return start + data + b"\0" * (len(data) % 2) + ifd + bytes(4) + extra


def grey_tiff(values, photometric=1, sample=1, order="<", **more):
    dtype = values.dtype.newbyteorder(order)
    bits = 8 * values.dtype.itemsize
    tags = {258: (3, [bits]), 262: (3, [photometric]), 277: (3, [1]), 339: (3, [sample]), **more}
    return tiff(values.astype(dtype).tobytes(), tags, order, values.shape)


def colour_tiff(values, photometric=2, order="<", **more):
    """Values (H, W, C), 8 or 16 bits."""
    channels, bits = values.shape[-1], 8 * values.dtype.itemsize
    tags = {258: (3, [bits] * channels), 262: (3, [photometric]), 277: (3, [channels])}
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    return tiff(data, tags | {int(k[1:]): v for k, v in more.items()}, order, values.shape[:2])


def bmp(rows, bits, *, width=W, height=H, compression=0, palette=b"", size=None):
    """Rows of bytes, in the file's order, below a BITMAPINFOHEADER."""
    data = b"".join(row + b"\0" * (-len(row) % 4) for row in rows) if size is None else rows
    at = 54 + len(palette)
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(data), 0, 0,
                       len(palette) // 4, 0)  # fmt: skip
    return b"BM" + struct.pack("<IHHI", at + len(data), 0, 0, at) + head + palette + data


def exif(orientation, thumbnail=b""):
    block = Image.Exif()
    block[0x0112] = orientation
    if thumbnail:
        block[0x9286] = thumbnail
    return block


# what a person sees


def eight(values, top):
    return np.rint(values.astype(float) * 255 / top)


def three(grey):
    return np.repeat(grey[..., None], 3, axis=-1)


def on_white(colour, alpha):
    """Colour 0 to 255 and alpha 0 to 1, both (H, W[, C])."""
    return np.rint(colour * alpha[..., None] + 255 * (1 - alpha[..., None]))


def lab_to_srgb(lab):
    """CIE L*a*b* at D50 to sRGB, floats (..., 3) to 0 to 255."""
    fy = (lab[..., 0] + 16) / 116
    f = np.stack([fy + lab[..., 1] / 500, fy, fy - lab[..., 2] / 200], -1)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * (0.9642, 1, 0.8249)
    to_rgb = np.array(  # XYZ at D50 to linear sRGB, Bradford-adapted
        [[3.1339, -1.6169, -0.4906], [-0.9788, 1.9161, 0.0335], [0.0719, -0.2290, 1.4052]]
    )
    linear = (xyz @ to_rgb.T).clip(0, 1)
    curve = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(255 * curve)


TURNED = {  # how the pixels of the file must be turned to be upright
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


def good():
    """Name to (bytes, the pixels a person sees)."""
    return {**_good_png(), **_good_jpeg(), **_good_tiff(), **_good_bmp(), **_good_others()}


def _good_png():
    rng, rgb = np.random.default_rng(1), photo()
    grey, alpha = rgb[..., 0], rgb[..., 1]
    deep = rng.integers(0, 65536, (H, W, 4))
    rows = {}
    for bits in (1, 2, 4):
        few = grey >> (8 - bits)
        rows[f"png grey {bits} bits"] = png(few, 0, bits), three(eight(few, 2**bits - 1))
        key, opaque = chunk(b"tRNS", struct.pack(">H", 1)), (few != 1)[..., None]
        rows[f"png grey {bits} bits, one transparent"] = (
            png(few, 0, bits, before=key), np.where(opaque, rows[f"png grey {bits} bits"][1], 255),
        )  # fmt: skip
    rows["png grey"] = png(grey, 0), three(grey)
    rows["png interlaced"] = png(rgb, 2, interlaced=True), rgb
    rows["png 16-bit grey"] = png(deep[..., 0], 0, 16), three(eight(deep[..., 0], 65535))
    rows["png 16-bit rgb"] = png(deep[..., :3], 2, 16), eight(deep[..., :3], 65535)
    rows["png 16-bit interlaced"] = (
        png(deep[..., :3], 2, 16, interlaced=True), eight(deep[..., :3], 65535),
    )  # fmt: skip
    rows["png 16-bit grey and alpha"] = (
        png(deep[..., :2], 4, 16),
        three(on_white(deep[..., :1] / 257, deep[..., 1] / 65535)[..., 0]),
    )  # fmt: skip
    rows["png 16-bit rgba"] = (
        png(deep, 6, 16), on_white(deep[..., :3] / 257, deep[..., 3] / 65535),
    )  # fmt: skip
    hard = np.array([[[0x00FF, 0x00FF, 0xFF00, 0xFF00], [0xFF00, 0, 0x00FF, 0x00FF]]] * 2)
    rows["png 16-bit rgba, low bytes matter"] = (
        png(hard, 6, 16), on_white(hard[..., :3] / 257, hard[..., 3] / 65535),
    )  # fmt: skip
    rows["png grey and alpha"] = (
        png(np.dstack([grey, alpha]), 4), three(on_white(grey[..., None], alpha / 255)[..., 0]),
    )  # fmt: skip
    rows["png rgba"] = png(np.dstack([rgb, alpha]), 6), on_white(rgb, alpha / 255)
    rows["png rgba 1 transparent"] = png(np.zeros((H, W, 4)), 6), np.full((H, W, 3), 255)
    key = chunk(b"tRNS", struct.pack(">H", grey[3, 4]))
    opaque = (grey != grey[3, 4]).astype(float)
    rows["png grey, one transparent"] = (
        png(grey, 0, before=key), three(on_white(grey[..., None], opaque)[..., 0]),
    )  # fmt: skip
    few = deep[..., 0] % 7 * 9000
    key = chunk(b"tRNS", struct.pack(">H", 27000))
    rows["png 16-bit grey, one transparent"] = (
        png(few, 0, 16, before=key), three(np.where(few == 27000, 255, eight(few, 65535))),
    )  # fmt: skip
    key = chunk(b"tRNS", struct.pack(">3H", *rgb[3, 4]))
    opaque = (rgb != rgb[3, 4]).any(-1).astype(float)
    rows["png rgb, one transparent"] = png(rgb, 2, before=key), on_white(rgb, opaque)
    few = np.where(few[..., None] == 27000, deep[3, 4, :3], deep[..., :3])
    key = chunk(b"tRNS", struct.pack(">3H", *deep[3, 4, :3]))
    opaque = (few != deep[3, 4, :3]).any(-1).astype(float)
    rows["png 16-bit rgb, one transparent"] = (
        png(few, 2, 16, before=key), on_white(few / 257, opaque),
    )  # fmt: skip
    palette, index = rng.integers(0, 256, (16, 3), np.uint8), rng.integers(0, 16, (H, W))
    table, see_through = chunk(b"PLTE", palette.tobytes()), rng.integers(0, 256, 9, np.uint8)
    through = np.append(see_through, [255] * 7) / 255
    for bits in (4, 8):
        rows[f"png palette {bits} bits"] = png(index, 3, bits, before=table), palette[index]
    rows["png palette and alpha"] = (
        png(index, 3, 4, before=table + chunk(b"tRNS", see_through.tobytes())),
        on_white(palette[index], through[index]),
    )
    rows["png palette, one transparent"] = (
        png(index, 3, 4, before=table + chunk(b"tRNS", b"\xff\xff\0")),
        on_white(palette[index], (index != 2).astype(float)),
    )
    rows["png turned"] = encoded(rgb, "PNG", exif=exif(6)), TURNED[6](rgb)
    rows["png animated"] = (
        encoded(rgb, "PNG", save_all=True, append_images=[Image.new("RGB", (W, H))]), rgb,
    )  # fmt: skip
    rows["png with bytes behind it"] = png(rgb, 2) + b"trailer", rgb
    rows["png with unknown chunks"] = png(rgb, 2, before=chunk(b"abCd", b"?" * 99)), rgb
    rows["png 1 x 1"] = png(rgb[:1, :1], 2), rgb[:1, :1]
    return rows


def _as_pillow(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def _good_jpeg():
    rgb, rows = photo(), {}
    for name, options in {
        "4:4:4": {"subsampling": 0},
        "4:2:2": {"subsampling": 1},
        "4:2:0": {"subsampling": 2},
        "progressive": {"progressive": True},
        "restarts": {"restart_marker_blocks": 3},
        "rgb inside": {"keep_rgb": True},
        "optimized": {"optimize": True, "quality": 30},
    }.items():
        data = encoded(rgb, "JPEG", **options)
        rows[f"jpeg {name}"] = data, _as_pillow(data)
    data = encoded(rgb[..., 0], "JPEG")
    rows["jpeg grey"] = data, three(np.asarray(Image.open(io.BytesIO(data))))
    for size in ((1, 1), (17, 33), (3, 16)):
        data = encoded(photo(*size), "JPEG")
        rows[f"jpeg {size[0]} x {size[1]}"] = data, _as_pillow(data)
    data = encoded(rgb, "JPEG")
    for turn, turned in TURNED.items():
        rows[f"jpeg turned {turn}"] = (
            encoded(rgb, "JPEG", exif=exif(turn)), turned(_as_pillow(data)),
        )  # fmt: skip
    rows["jpeg with bytes behind it"] = data + b"trailer \xff\xda of a phone", _as_pillow(data)
    rows["jpeg with zeros behind it"] = data + bytes(500), _as_pillow(data)
    inner = encoded(rgb, "JPEG", exif=exif(1, b"\xff\xd8 a thumbnail \xff\xd9"))
    rows["jpeg with a thumbnail"] = inner, _as_pillow(data)
    for name, block in {
        "damaged": b"Exif\0\0" + b"MM\0*\0\0\1\0nonsense",
        "no": b"Exif\0\0",
    }.items():
        rows[f"jpeg with {name} exif"] = encoded(rgb, "JPEG", exif=block), _as_pillow(data)
    rows["jpeg turned by nonsense"] = encoded(rgb, "JPEG", exif=exif(77)), _as_pillow(data)
    rows["mpo"] = (
        encoded(rgb, "MPO", save_all=True, append_images=[Image.new("RGB", (W, H))]),
        _as_pillow(data),
    )
    cmyk = encoded(Image.fromarray(rgb).convert("CMYK"), "JPEG", quality=95)
    inks = np.asarray(Image.open(io.BytesIO(cmyk))).astype(float)
    rows["jpeg cmyk"] = cmyk, np.rint((255 - inks[..., :3]) * (255 - inks[..., 3:]) / 255)
    at = cmyk.index(b"Adobe") + 11
    assert cmyk[at] == 0
    ycck = cmyk[:at] + b"\2" + cmyk[at + 1 :]  # the same numbers, said to be YCCK
    y, cb, cr, k = np.moveaxis(255 - inks, -1, 0)  # Adobe stores inks inverted
    cb, cr = cb - 128, cr - 128
    light = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], -1)
    inverse = np.rint(255 - light).clip(0, 255)  # the inks as they are stored
    rows["jpeg ycck"] = ycck, np.rint(inverse * k[..., None] / 255)
    return rows


def _good_tiff():
    rng, rgb = np.random.default_rng(2), photo()
    deep = rng.integers(0, 65536, (H, W, 4)).astype(np.uint16)
    grey, rows = rgb[..., 0], {}
    for order, name in (("<", "little"), (">", "big")):
        rows[f"tiff 16-bit {name} endian"] = (
            grey_tiff(deep[..., 0], order=order), three(eight(deep[..., 0], 65535)),
        )  # fmt: skip
        rows[f"tiff 16-bit rgb {name} endian"] = (
            colour_tiff(deep[..., :3], order=order), eight(deep[..., :3], 65535),
        )  # fmt: skip
        rows[f"tiff 16-bit rgba {name} endian"] = (
            colour_tiff(deep, order=order, t338=(3, [2])),
            on_white(deep[..., :3] / 257, deep[..., 3] / 65535),
        )
    rows["tiff 16-bit deflated"] = (
        encoded(deep[..., 0], "TIFF", compression="tiff_adobe_deflate"),
        three(eight(deep[..., 0], 65535)),
    )
    rows["tiff 16-bit, 0 is white"] = (
        grey_tiff(deep[..., 0], photometric=0), three(255 - eight(deep[..., 0], 65535)),
    )  # fmt: skip
    rows["tiff 0 is white"] = grey_tiff(grey, photometric=0), three(255 - grey)
    twelve = deep[..., 0] >> 4
    tags = {258: (3, [12]), 262: (3, [1]), 277: (3, [1])}
    rows["tiff 12-bit"] = tiff(b"".join(packed(twelve, 12)), tags), three(eight(twelve, 4095))
    wide = np.linspace(-2000, 4000, H * W).reshape(H, W)
    shown = three(np.rint(((wide - RANGE[0]) / 4000).clip(0, 1) * 255))
    rows["tiff float"] = grey_tiff(wide.astype(np.float32), sample=3), shown
    rows["tiff float big endian"] = grey_tiff(wide.astype(np.float32), 1, 3, ">"), shown
    whole = np.rint(wide)
    shown = three(np.rint(((whole - RANGE[0]) / 4000).clip(0, 1) * 255))
    rows["tiff 32-bit integer"] = grey_tiff(whole.astype(np.int32), sample=2), shown
    rows["tiff 16-bit signed"] = grey_tiff(whole.astype(np.int16), sample=2), shown
    gaps = wide.astype(np.float32)
    gaps[2], gaps[3] = np.nan, np.inf
    shown = shown.copy()
    shown = three(np.rint(((wide - RANGE[0]) / 4000).clip(0, 1) * 255))
    shown[2], shown[3] = 0, 255
    rows["tiff float with gaps"] = grey_tiff(gaps, sample=3), shown
    inks = np.dstack([rgb, rgb[::-1, :, 0] // 2])
    rows["tiff cmyk"] = (
        colour_tiff(inks, photometric=5),
        np.rint((255.0 - inks[..., :3]) * (255.0 - inks[..., 3:]) / 255),
    )
    lab = np.dstack([rgb[..., 0], (rgb[..., 1] // 16) - 8, (rgb[..., 2] // 16) - 8]).astype(
        np.uint8
    )
    told = np.dstack([lab[..., 0] / 2.55, lab[..., 1:].view(np.int8)])
    rows["tiff lab"] = colour_tiff(lab, photometric=8), lab_to_srgb(told)
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits"):
        rows[f"tiff {compression}"] = encoded(rgb, "TIFF", compression=compression), rgb
    bits = rgb[..., 0] > 127
    rows["tiff fax"] = (
        encoded(Image.fromarray(bits), "TIFF", compression="group4"), three(255 * bits),
    )  # fmt: skip
    rows["tiff turned"] = colour_tiff(rgb, t274=(3, [6])), TURNED[6](rgb)
    rows["tiff of two pages"] = (
        encoded(rgb, "TIFF", save_all=True, append_images=[Image.new("RGB", (9, 9))]), rgb,
    )  # fmt: skip
    planes = [8 + i * H * W for i in range(3)]
    rows["tiff of planes"] = (
        tiff(rgb.transpose(2, 0, 1).tobytes(),
             {258: (3, [8] * 3), 262: (3, [2]), 277: (3, [3]), 284: (3, [2]),
              273: (4, planes), 279: (4, [H * W] * 3)}),
        rgb,
    )  # fmt: skip
    tiles = np.zeros((32, 32, 3), np.uint8)
    tiles[:H, :W] = rgb
    cut = tiles.reshape(2, 16, 2, 16, 3).transpose(0, 2, 1, 3, 4)
    rows["tiff of tiles"] = (
        tiff(cut.tobytes(),
             {258: (3, [8] * 3), 262: (3, [2]), 277: (3, [3]), 273: None, 278: None, 279: None,
              322: (3, [16]), 323: (3, [16]), 324: (4, [8 + 768 * i for i in range(4)]),
              325: (4, [768] * 4)}),
        rgb,
    )  # fmt: skip
    unknown = {258: (3, [8] * 3), 262: (3, [2]), 277: (3, [3]), 65000: (3, [7])}
    rows["tiff with an unknown tag"] = tiff(rgb.tobytes(), unknown), rgb
    return rows


def _good_bmp():
    rng, rgb = np.random.default_rng(3), photo()
    bgr, alpha = rgb[..., ::-1], rgb[..., 1]

    def with_alpha(alpha):
        data = np.dstack([bgr, alpha])[::-1].tobytes()
        masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + bytes(52)
        head = struct.pack("<IiiHHIIiiII", 108, W, H, 1, 32, 3, len(data), 0, 0, 0, 0)
        return b"BM" + struct.pack("<IHHI", 122 + len(data), 0, 0, 122) + head + masks + data

    index, palette = rng.integers(0, 16, (H, W)).astype(np.uint8), rng.integers(0, 256, (16, 3))
    table = np.hstack([palette[:, ::-1], np.zeros((16, 1))]).astype(np.uint8).tobytes()
    fives = rgb >> 3
    words = (fives[..., 0].astype("<u2") << 10) | (fives[..., 1].astype("<u2") << 5) | fives[..., 2]
    runs = b"".join(
        b"".join(bytes((1, value)) for value in row) + b"\0\0" for row in index[::-1]
    )[:-2] + b"\0\1"  # fmt: skip
    return {
        "bmp": (bmp([row.tobytes() for row in bgr[::-1]], 24), rgb),
        "bmp from the top": (bmp([row.tobytes() for row in bgr], 24, height=-H), rgb),
        "bmp 32 bits": (
            bmp([np.insert(row, 3, 0, axis=-1).tobytes() for row in bgr[::-1]], 32), rgb,
        ),
        "bmp alpha": (with_alpha(alpha), on_white(rgb, alpha / 255)),
        "bmp alpha left empty": (with_alpha(np.zeros_like(alpha)), rgb),
        "bmp 16 bits": (bmp([row.tobytes() for row in words[::-1]], 16), eight(fives, 31)),
        "bmp palette": (
            bmp([row.tobytes() for row in index[::-1]], 8, palette=table), palette[index],
        ),
        "bmp palette 4 bits": (bmp(packed(index[::-1], 4), 4, palette=table), palette[index]),
        "bmp run lengths": (
            bmp(runs, 8, compression=1, palette=table, size=len(runs)), palette[index],
        ),
    }  # fmt: skip


def _good_others():
    rng, rgb = np.random.default_rng(4), photo()
    grey, alpha = rgb[..., 0], rgb[..., 1]
    index = rng.integers(0, 16, (H, W)).astype(np.uint8)
    palette = rng.integers(0, 256, (16, 3), np.uint8)
    drawn = Image.fromarray(index, "L").convert("P")
    drawn.putdata(index.ravel().tolist())
    drawn.putpalette(palette.tobytes())
    black = Image.new("RGB", (W, H))
    rgba = np.dstack([rgb, alpha])
    bits = rgb[..., 0] > 127
    deep = rng.integers(0, 65536, (H, W, 3)).astype(">u2")
    ten = (deep[..., 0] >> 6).astype(">u2")
    head = b"%d %d\n" % (W, H)
    wide = np.linspace(-2000, 4000, H * W).reshape(H, W).astype("<f4")
    numbers = b" ".join(b"%d" % v for v in rgb.ravel())
    return {
        "gif": (encoded(drawn, "GIF"), palette[index]),
        "gif transparent": (
            encoded(drawn, "GIF", transparency=5),
            on_white(palette[index], (index != 5).astype(float)),
        ),
        "gif animated": (
            encoded(drawn, "GIF", save_all=True, append_images=[black.convert("P")]),
            palette[index],
        ),
        "gif with bytes behind it": (encoded(drawn, "GIF") + bytes(7), palette[index]),
        "webp lossless": (encoded(rgb, "WEBP", lossless=True), rgb),
        "webp alpha": (
            encoded(rgba, "WEBP", lossless=True, exact=True), on_white(rgb, alpha / 255),
        ),
        "webp animated": (
            encoded(rgb, "WEBP", lossless=True, save_all=True, append_images=[black]), rgb,
        ),
        "webp turned": (encoded(rgb, "WEBP", lossless=True, exif=exif(8)), TURNED[8](rgb)),
        "pbm": (b"P4\n" + head + b"".join(packed(~bits & 1, 1)), three(255 * bits)),
        "pgm": (b"P5\n" + head + b"255\n" + grey.tobytes(), three(grey)),
        "pgm 10 bits": (b"P5\n" + head + b"1023\n" + ten.tobytes(), three(eight(ten, 1023))),
        "pgm 16 bits": (
            b"P5\n" + head + b"65535\n" + deep[..., 0].tobytes(), three(eight(deep[..., 0], 65535)),
        ),
        "ppm": (b"P6\n# made by hand\n" + head + b"255\n" + rgb.tobytes(), rgb),
        "ppm 16 bits": (b"P6\n" + head + b"65535\n" + deep.tobytes(), eight(deep, 65535)),
        "ppm in letters": (b"P3\n" + head + b"255\n" + numbers, rgb),
        "pfm": (
            b"Pf\n" + head + b"-1.0\n" + wide[::-1].tobytes(),
            three(np.rint(((wide - RANGE[0]) / 4000).clip(0, 1) * 255)),
        ),
    }  # fmt: skip


# what is no image, or no whole one


def bad():
    """Name to (bytes, the look that must find it, a part of the reason)."""
    return {**_bad_files(), **_bad_jpeg(), **_bad_png(), **_bad_tiff(), **_bad_others()}


def _bad_files():

    rng = np.random.default_rng(5)
    header = "not an image"
    contents = {
        "text": b"hello",
        "a web page": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "a large-file pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n",
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        "zip": b"PK\3\4" + bytes(60),
        "pdf": b"%PDF-1.7\n1 0 obj\n",
        "pickle": pickle.dumps({"a": [1, 2, 3]}),
        "heic": b"\0\0\0\x18ftypheic" + bytes(80),
        "zeros": bytes(5000),
        "noise": rng.bytes(5000),
        "one byte": b"\xff",
        "a photo behind a byte": b"\0" + encoded(photo(), "JPEG"),
        "a photo as base64": b"/9j/4AAQSkZJRgABAQAAAQABAAD" * 40,
    }

    return {"empty": (b"", "quick", "0 bytes; bring")} | {
        name: (content, "quick", header) for name, content in contents.items()
    }


def _frame(jpeg):
    """Where a JPEG's frame header begins: marker, length, depth, height, width, components."""
    return next(i for i in range(len(jpeg)) if jpeg[i : i + 2] in (b"\xff\xc0", b"\xff\xc2"))


def _edited(data, at, new):
    return data[:at] + new + data[at + len(new) :]


def _without_segment(jpeg, marker):
    at = jpeg.index(marker)
    return jpeg[:at] + jpeg[at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big") :]


def _bad_jpeg():
    rgb, end, cut, corrupt = photo(60, 80), b"\xff\xd9", "cut off", "corrupt"
    whole = encoded(rgb, "JPEG", quality=90)
    scan = whole.index(b"\xff\xda") + 14
    middle = (scan + len(whole)) // 2
    frame = _frame(whole)
    restarts = encoded(rgb, "JPEG", restart_marker_blocks=2)
    progressive = encoded(rgb, "JPEG", progressive=True)
    other = encoded(rgb[::-1], "JPEG", quality=60, subsampling=0)
    inner = encoded(rgb, "JPEG", exif=exif(1, b"\xff\xd8 a thumbnail \xff\xd9"))
    within = inner.index(b"thumbnail \xff\xd9") + 12
    quick = {
        "jpeg start only": (whole[:2], "not an image"),
        "jpeg cut in its header": (whole[:200], "cut off"),
        "jpeg cut at its thumbnail's end": (inner[:within], "cut off"),
        "jpeg cut before its scan": (whole[: scan - 14], cut),
        "jpeg cut at its scan": (whole[:scan], cut),
        "jpeg half": (whole[:middle], cut),
        "jpeg one byte short": (whole[:-1], cut),
        "jpeg end marker missing": (whole[:-2], cut),
        "jpeg progressive, half": (progressive[: len(progressive) // 2], cut),
        "jpeg zero tail": (_edited(whole, middle, bytes(len(whole) - middle)), cut),
        "jpeg zero end marker": (_edited(whole, len(whole) - 2, b"\0\0"), cut),
        "jpeg tail of 0xff": (_edited(whole, middle, b"\xff" * (len(whole) - middle)), cut),
        "jpeg cut, then text": (whole[:middle] + b" and so on" * 20, cut),
        "jpeg 0 wide": (_edited(whole, frame + 7, b"\0\0"), "replace"),
        "jpeg bomb": (_edited(whole, frame + 5, b"\xff\xdc\xff\xdc"), "pixels"),
        "jpeg strip": (_edited(whole, frame + 5, b"\xff\xdc\0\1"), "strip"),
        "jpeg 12 bits": (_edited(whole, frame + 4, b"\x0c"), "replace"),
        "jpeg two components": (_edited(whole, frame + 9, b"\2"), "replace"),
    }
    full = {
        "jpeg zeros, then its end": (whole[:middle] + bytes(900) + end, corrupt),
        "jpeg hole amid": (_edited(whole, middle, bytes(200)), corrupt),
        "jpeg cut, end marker put on": (whole[:middle] + end, corrupt),
        "jpeg no coded data": (whole[:scan] + end, corrupt),
        "jpeg bytes lost": (whole[:middle] + whole[middle + 400 :], corrupt),
        "jpeg text put in": (whole[:middle] + b"corrupted \xff\xd3 here" + whole[middle:], corrupt),
        "jpeg of two images": (whole[:middle] + other[len(other) // 2 :], "replace"),
        "jpeg taller than its data": (_edited(whole, frame + 5, b"\0\xc0"), corrupt),
        "jpeg wider than its data": (_edited(whole, frame + 7, b"\0\xc0"), corrupt),
        "jpeg smaller than its data": (_edited(whole, frame + 5, b"\0\x08"), corrupt),
        "jpeg progressive, end put on": (progressive[: len(progressive) // 3] + end, "replace"),
        "jpeg restarts out of order": (
            restarts.replace(b"\xff\xd1", b"\xff\xd5", 1), corrupt,
        ),
        "jpeg without quantization": (_without_segment(whole, b"\xff\xdb"), "replace"),
        "jpeg started twice": (whole[:20] + whole, "replace"),
        "jpeg lines ended otherwise": (whole.replace(b"\n", b"\r\n"), "replace"),
        "jpeg bits cut to 7": (
            whole[:scan] + bytes(b & 127 for b in whole[scan:-2]) + end, corrupt,
        ),
    }  # fmt: skip
    return {name: (data, "quick", why) for name, (data, why) in quick.items()} | {
        name: (data, "full", why) for name, (data, why) in full.items()
    }


def _bad_png():
    rgb = photo()
    whole = png(rgb, 2)
    data = whole.index(b"IDAT") + 4
    middle = (data + len(whole)) // 2
    lines = b"".join(b"\0" + row.tobytes() for row in rgb)
    quick = {
        "png signature only": (whole[:8], "not an image"),
        "png header damaged": (_edited(whole, 17, b"\7"), "not an image"),
        "png 0 wide": (png(rgb, 2, size=(H, 0)), "replace"),
        "png unknown colour": (png(rgb, 5), "replace"),
        "png 3 bits": (png(rgb, 2, 3), "replace"),
        "png no data, no end": (whole[: data - 8], "not an image"),
        "png one byte short": (whole[:-1], "cut off"),
        "png end chunk missing": (whole[:-12], "cut off"),
        "png half": (whole[:middle], "cut off"),
        "png zero tail": (_edited(whole, middle, bytes(len(whole) - middle)), "cut off"),
        "png end chunk damaged": (_edited(whole, len(whole) - 1, b"\0"), "damaged"),
        "png lines ended otherwise": (whole.replace(b"\r\n", b"\n"), "not an image"),
        "png text bomb": (
            png(rgb, 2, before=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**24)))), "replace",
        ),
    }  # fmt: skip
    for name, (height, width), why in (
        ("100 megapixels", (10_000, 10_000), "10000 x 10000 is over 50,000,000 pixels; make it"),
        ("170 megapixels", (13_000, 13_077), "pixels; make it smaller"),
        ("400 megapixels", (20_000, 20_000), "pixels; make it smaller"),
        ("strip", (1, 65_535), "65535 x 1 is too narrow a strip; crop it"),
    ):
        row = zlib.compress(bytes((width // 8 + 1) * height), 9)
        quick[f"png bomb of {name}"] = png(rgb, 0, 1, data=row, size=(height, width)), why
    full = {
        "png flipped bit": (_edited(whole, middle, bytes([whole[middle] ^ 1])), "replace"),
        "png no data": (png(rgb, 2, data=b""), "replace"),
        "png too few lines": (png(rgb, 2, data=zlib.compress(lines[:500])), "replace"),
        "png data not compressed": (png(rgb, 2, data=lines), "replace"),
        "png unknown filter": (png(rgb, 2, data=zlib.compress(b"\7" + lines[1:])), "replace"),
        "png hole amid": (_edited(whole, middle - 50, bytes(60)), "replace"),
    }
    return {name: (data, "quick", why) for name, (data, why) in quick.items()} | {
        name: (data, "full", why) for name, (data, why) in full.items()
    }


def _bad_tiff():
    rgb = photo()
    tags = {258: (3, [8] * 3), 262: (3, [2]), 277: (3, [3])}
    whole = tiff(rgb.tobytes(), tags)
    lzw = encoded(rgb, "TIFF", compression="tiff_lzw")
    flate = encoded(rgb, "TIFF", compression="tiff_adobe_deflate")
    fax = encoded(Image.fromarray(photo(60, 80)[..., 0] > 127), "TIFF", compression="group4")
    inside = encoded(rgb, "TIFF", compression="jpeg")
    grey = np.linspace(0, 1, H * W).reshape(H, W)
    unset = "dataset.value_range"
    quick = {
        "tiff header only": (whole[:8], "replace"),
        "tiff directory missing": (whole[: 8 + rgb.size], "replace"),
        "tiff directory cut": (whole[: 8 + rgb.size + 30], "replace"),
        "tiff strip beyond the end": (tiff(rgb.tobytes(), tags | {273: (4, [9999])}), "cut off"),
        "tiff strip too long": (tiff(rgb.tobytes(), tags | {279: (4, [99_999])}), "cut off"),
        "tiff strip 4 GB long": (tiff(rgb.tobytes(), tags | {279: (4, [2**32 - 1])}), "cut off"),
        "tiff 0 wide": (tiff(rgb.tobytes(), tags | {256: (4, [0])}), "replace"),
        "tiff width missing": (tiff(rgb.tobytes(), tags | {256: None}), "replace"),
        "tiff bomb": (tiff(rgb.tobytes(), tags, size=(60_000, 60_000)), "pixels"),
        "tiff 9 colours": (
            tiff(rgb.tobytes(), {**tags, 277: (3, [9]), 258: (3, [8] * 9)}),
            "replace",
        ),
        "tiff unknown colours": (tiff(rgb.tobytes(), tags | {262: (3, [77])}), "replace"),
        "tiff unknown compression": (tiff(rgb.tobytes(), tags | {259: (3, [9999])}), "replace"),
        "tiff float, no range": (grey_tiff(grey.astype(np.float32), sample=3), unset),
        "tiff 32-bit integer, no range": (grey_tiff(grey.astype(np.int32), sample=2), unset),
        "tiff signed, no range": (grey_tiff(grey.astype(np.int16), sample=2), unset),
    }  # fmt: skip
    frame = _frame(inside)
    full = {
        "tiff with a jpeg bomb in it": (
            _edited(inside, frame + 5, b"\xff\xdc\xff\xdc"), "replace",
        ),
        "tiff too few bytes in its strip": (
            tiff(rgb.tobytes()[:900], {**tags, 273: (4, [8]), 279: (4, [900])}), "replace",
        ),
        "tiff flipped bit": (_edited(flate, 200, bytes([flate[200] ^ 4])), "replace"),
        "tiff lzw hole": (_edited(lzw, 300, b"\xff" * 200), "replace"),
        "tiff fax hole": (_edited(fax, 20, b"\x55\x0f" * 20), "replace"),
        "tiff jpeg hole": (
            _edited(inside, inside.rindex(b"\xff\xda") + 60, bytes(120)), "corrupt",
        ),
    }  # fmt: skip
    return {name: (data, "quick", why) for name, (data, why) in quick.items()} | {
        name: (data, "full", why) for name, (data, why) in full.items()
    }


def _bad_others():
    rgb = photo()
    cut, index = "cut off", (rgb[..., 0] >> 4)
    rows = [row.tobytes() for row in rgb[::-1, :, ::-1]]
    flat = bmp(rows, 24)
    runs = b"".join(bytes((1, v)) for v in index.ravel())
    run_bmp = bmp(runs, 8, compression=1, palette=bytes(64), size=len(runs))
    gif = encoded(Image.fromarray(rgb).convert("P"), "GIF")
    moving = encoded(
        Image.fromarray(rgb).convert("P"), "GIF", save_all=True,
        append_images=[Image.fromarray(rgb[::-1]).convert("P")],
    )  # fmt: skip
    lossy, lossless = encoded(rgb, "WEBP"), encoded(rgb, "WEBP", lossless=True)
    head = b"%d %d\n" % (W, H)
    ppm = b"P6\n" + head + b"255\n" + rgb.tobytes()
    deep = b"P5\n" + head + b"65535\n" + bytes(2 * H * W)
    quick = {
        "bmp header only": (flat[:54], cut),
        "bmp one byte short": (flat[:-1], cut),
        "bmp half": (flat[: len(flat) // 2], cut),
        "bmp 7 bits": (_edited(flat, 28, b"\7"), "replace"),
        "bmp unknown compression": (_edited(flat, 30, b"\x2a"), "replace"),
        "bmp bomb": (_edited(flat, 18, struct.pack("<ii", 50_000, 50_000)), "pixels"),
        "bmp run lengths cut": (run_bmp[: len(run_bmp) // 2], cut),
        "gif header only": (gif[:13], "replace"),
        "gif trailer missing": (gif[:-1], cut),
        "gif half": (gif[: len(gif) // 2], cut),
        "gif zero tail": (_edited(gif, len(gif) // 2, bytes(len(gif) - len(gif) // 2)), cut),
        "gif cut in its second frame": (moving[:-60], cut),
        "gif bomb": (_edited(gif, 6, b"\xff\xff\xff\xff"), "pixels"),
        "webp header only": (lossy[:12], "replace"),
        "webp one byte short": (lossless[:-1], ""),
        "webp half": (lossy[: len(lossy) // 2], ""),
        "webp unknown chunk": (_edited(lossy, 12, b"ABCD"), "not an image"),
        "ppm header only": (ppm[:13], cut),
        "ppm one byte short": (ppm[:-1], cut),
        "ppm half": (ppm[: len(ppm) // 2], cut),
        "pgm 16 bits, one byte short": (deep[:-1], cut),
        "pbm one byte short": (b"P4\n" + head + bytes(4 * H - 1), cut),
        "ppm largest value 0": (b"P6\n" + head + b"0\n" + rgb.tobytes(), "replace"),
        "ppm largest value 70000": (b"P6\n" + head + b"70000\n" + rgb.tobytes(), "replace"),
        "ppm size in words": (b"P6\nten ten\n255\n" + rgb.tobytes(), "replace"),
        "ppm bomb": (b"P6\n99999 99999\n255\n" + rgb.tobytes(), "pixels"),
        "pfm, no range": (b"Pf\n" + head + b"-1.0\n" + bytes(4 * H * W), "dataset.value_range"),
    }
    full = {
        "gif unknown codes": (_edited(gif, gif.index(b",\0\0\0\0") + 10, b"\x0f"), "replace"),
        "webp lossless hole": (_edited(lossless, 40, bytes(90)), "replace"),
        "ppm too few numbers": (b"P3\n" + head + b"255\n1 2 3 4", "replace"),
        "ppm words for numbers": (b"P3\n" + head + b"255\n" + b"red " * 3 * H * W, "replace"),
        "ppm number too large": (b"P3\n" + head + b"255\n" + b"256 " * 3 * H * W, "replace"),
    }
    return {name: (data, "quick", why) for name, (data, why) in quick.items()} | {
        name: (data, "full", why) for name, (data, why) in full.items()
    }


def mutants(count, seed=0):
    """``count`` of (kind, what was done, the whole image, the mutant), always the same."""
    rng, whole = np.random.default_rng(seed), list(_to_mutate().items())
    for i in range(count):
        kind, data = whole[i % len(whole)]
        how = ("flip", "cut", "splice", "zero tail", "header")[i // len(whole) % 5]
        mutant = data
        while mutant == data:
            mutant = _mutated(data, how, whole[rng.integers(len(whole))][1], rng)
        yield kind, how, data, mutant


def _mutated(data, how, other, rng):
    at = int(rng.integers(4, len(data)))
    if how == "cut":
        return data[:at]
    if how == "splice":
        return data[:at] + other[rng.integers(4, len(other)) :]
    if how == "zero tail":
        return data[:at] + bytes(len(data) - at)
    edited = bytearray(data)
    for _ in range(rng.integers(1, 6)):
        if how == "flip":
            edited[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        else:
            edited[rng.integers(min(80, len(data)))] = int(rng.integers(256))
    return bytes(edited)


def _to_mutate():
    rgb = photo(30, 44)
    index = Image.fromarray(rgb).convert("P")
    return {
        "jpeg": encoded(rgb, "JPEG"),
        "jpeg progressive": encoded(rgb, "JPEG", progressive=True),
        "jpeg restarts": encoded(rgb, "JPEG", restart_marker_blocks=2),
        "jpeg grey": encoded(rgb[..., 0], "JPEG"),
        "jpeg cmyk": encoded(Image.fromarray(rgb).convert("CMYK"), "JPEG", exif=exif(6)),
        "png": encoded(rgb, "PNG"),
        "png palette": encoded(index, "PNG", transparency=3),
        "png 16 bits": png(rgb[:, :, [0, 1, 2, 0]].astype(int) * 257, 6, 16),
        "webp": encoded(rgb, "WEBP"),
        "webp lossless": encoded(rgb, "WEBP", lossless=True),
        "gif": encoded(index, "GIF", save_all=True, append_images=[index.rotate(180)]),
        "bmp": encoded(rgb, "BMP"),
        "tiff": encoded(rgb, "TIFF"),
        "tiff lzw": encoded(rgb, "TIFF", compression="tiff_lzw"),
        "tiff jpeg": encoded(rgb, "TIFF", compression="jpeg"),
        "ppm": encoded(rgb, "PPM"),
    }
