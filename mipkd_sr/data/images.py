"""Image files: the one place that reads them and the one that writes them.

Pillow decodes, as it gets colours right and refuses broken files. Of a 16-bit colour image it keeps 8 bits; OpenCV
reads those again with all 16. OpenCV also encodes PNG, in half of Pillow's time.
"""

import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageCms, PngImagePlugin

from mipkd_sr.runtime.errors import RunError, printable, sentence
from mipkd_sr.runtime.files import atomic_write

# Pillow warns of larger images and refuses those of twice as many pixels.
Image.MAX_IMAGE_PIXELS = 2**29
Image.init()
FORMATS = sorted(set(Image.OPEN) - {'EPS', 'MPEG', 'WMF', 'BUFR', 'GRIB', 'HDF5'})
"""Formats that are read: all that Pillow decodes by itself. For those left out it starts other programs, or has no
decoder."""
SUFFIXES = {suffix for suffix, form in Image.registered_extensions().items() if form in FORMATS}
"""Endings by which image files are found in a folder."""

RGB_OR_GREY = {'RGB', 'RGBA', 'RGBX', 'RGBa', 'L', 'LA', 'La', 'P', 'PA', '1', 'I;16', 'I;16B', 'I;16L', 'I'}
"""Pillow's names of the modes that hold RGB or grey values."""
ORIENTATION, BITS, EXIF, GPS = 274, 258, 0x8769, 0x8825
"""Tags of EXIF and TIFF: how the image is turned, the bits of each value, and where two more lists of tags are."""
KEPT = (270, 271, 272, 305, 306, 315, 33432)
"""EXIF tags that stay: description, maker and model of the camera, program, time, author, copyright."""
OF_THE_ORIGINAL = (37500, 40962, 40963, 40965)
"""EXIF tags that do not stay: the maker's own notes, the size in pixels, and a pointer."""


@dataclass(frozen=True)
class Picture:
    """An image as it is to be seen, upright.

    Attributes:
        pixels: H x W (grey), H x W x 2 (grey and alpha), x 3 (RGB) or x 4 (RGB and alpha, not multiplied with it), of 8
            or 16 bits.
        form: The file's: 'colour', 'grey', 'palette', 'transparent', '16-bit', 'foreign' (CMYK, LAB) or 'turned'.
        kept: Metadata to keep: ``icc_profile``, ``dpi``, ``exif``, and ``chunks`` of PNG.
        notes: What is not kept, each in a few words.
    """

    pixels: np.ndarray
    form: str = 'colour'
    kept: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def decode(content: bytes) -> Picture:
    """Decode an image file's content.

    Raises:
        ValueError: Why it cannot be read.
    """
    try:
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            if image.format == 'PNG':
                with Image.open(BytesIO(content), formats=['PNG']) as checked:
                    checked.verify()  # all checksums; the image is of no use afterwards
            return _decoded(image, content)
    except Image.UnidentifiedImageError:
        raise ValueError('it is not an image of a kind that Pillow reads') from None
    except Image.DecompressionBombError:
        raise ValueError(f'it has more than {2 * 2**29:,} pixels') from None
    except Exception as error:  # what Pillow's decoders raise for a file that they do not understand
        reason = (str(error) and sentence(error).rstrip('.')[:200]) or type(error).__name__
        raise ValueError(f'it is broken, or of a form that Pillow does not read ({reason})') from None


def _decoded(image: Any, content: bytes) -> Picture:
    deep = image.mode.startswith('I') or (
        content[24] if image.format == 'PNG' else max(np.atleast_1d(getattr(image, 'tag_v2', {}).get(BITS, 8)))
    ) > 8  # fmt: skip
    turned = image.getexif().get(ORIENTATION, 1) != 1
    image.load()
    exif = image.getexif()  # once more, as Pillow turns TIFF by itself
    notes, pixels = [], _values(image)
    if deep and pixels.dtype == np.uint8:
        found = _sixteen_bits(image, content, pixels)
        notes += ['cut to 8 bits a value'] if found is None else []
        pixels = pixels if found is None else found
    form = 'turned' if turned else '16-bit' if deep else 'colour'
    if form == 'colour' and image.mode not in RGB_OR_GREY:
        form = 'foreign'
        notes.append(f'{image.mode} turned into RGB')
    elif form == 'colour' and pixels.ndim == 3 and pixels.shape[2] in (2, 4):
        form = 'transparent'
    elif form == 'colour':
        form = {'L': 'grey', '1': 'grey', 'P': 'palette'}.get(image.mode, form)
    kept = _kept(image, exif) if image.mode in RGB_OR_GREY else {'exif': _kept(image, exif).get('exif')}
    frames = 1
    with suppress(Exception):  # the frames after the first may be broken
        frames = getattr(image, 'n_frames', 1)
    notes += [f'the first of {frames} frames'] if frames > 1 else []
    return Picture(_upright(pixels, exif.get(ORIENTATION, 1)), form, kept, tuple(notes))


def _values(image: Any) -> np.ndarray:
    """The values of a decoded image, as ``Picture.pixels``; of colours, 8 bits."""
    mode, hidden = image.mode, image.info.get('transparency')
    if mode.startswith('I'):
        pixels = np.asarray(image)
        if pixels.min(initial=0) < 0 or pixels.max(initial=0) > 65535:
            raise ValueError('its values are not whole numbers of 16 bits or less')
        pixels = pixels.astype(np.uint16)
        return pixels if hidden is None else np.dstack([pixels, np.where(pixels == hidden, 0, 65535)]).astype(np.uint16)
    if mode == 'F':
        raise ValueError('its values are not whole numbers of 16 bits or less')
    if mode not in RGB_OR_GREY:
        return np.asarray(_to_srgb(image))
    grey = mode in ('1', 'L', 'LA', 'La')
    if mode in ('La', 'RGBa'):
        image = image.convert(mode.upper())
    alpha = image.has_transparency_data
    return np.asarray(image.convert(('LA' if alpha else 'L') if grey else 'RGBA' if alpha else 'RGB'))


def _to_srgb(image: Any) -> Any:
    """An image of CMYK, LAB or the like as RGB: by its own colour profile where it has one."""
    profile = image.info.get('icc_profile')
    with suppress(ImageCms.PyCMSError, OSError):
        source: Any = ImageCms.createProfile('LAB') if image.mode == 'LAB' else None
        if profile and image.mode == 'CMYK':
            source = BytesIO(profile)
        if source:
            return ImageCms.profileToProfile(image, source, ImageCms.createProfile('sRGB'), outputMode='RGB')
    return image.convert('RGB')


def _sixteen_bits(image: Any, content: bytes, shallow: np.ndarray) -> np.ndarray | None:
    """The values with all 16 bits, of which Pillow gives the upper 8. None if OpenCV's upper 8 are not Pillow's."""
    with suppress(cv2.error):
        found: Any = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        if found is None or found.dtype != np.uint16 or found.ndim != 3:
            return None
        found = cv2.cvtColor(found, cv2.COLOR_BGRA2RGBA if found.shape[2] == 4 else cv2.COLOR_BGR2RGB)
        if image.mode in ('L', 'LA', 'La'):
            found = found[..., [0, -1]]
        hidden = image.info.get('transparency')
        if isinstance(hidden, tuple):
            alpha = np.where((found[..., :3] == hidden).all(-1), 0, 65535).astype(np.uint16)
            return np.dstack([found[..., :3], alpha]) if np.array_equal(found[..., :3] >> 8, shallow[..., :3]) else None
        return found if np.array_equal(found >> 8, shallow) else None
    return None


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn pixels as EXIF's orientation, 1 to 8, says."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _kept(image: Any, exif: Image.Exif) -> dict[str, Any]:
    info = image.info
    kept = {'icc_profile': info.get('icc_profile')}
    with suppress(Exception):  # whatever a broken file has in their place
        dpi = tuple(float(value) for value in info['dpi'])
        kept['dpi'] = dpi if min(dpi) >= 1 and max(dpi) < 1e6 else None
    with suppress(Exception):
        new = Image.Exif()
        new.update({tag: exif[tag] for tag in KEPT if tag in exif})
        for pointer in (EXIF, GPS):
            tags = {tag: value for tag, value in exif.get_ifd(pointer).items() if tag not in OF_THE_ORIGINAL}
            new.update({pointer: tags} if tags else {})
        kept['exif'] = new.tobytes() if len(new) else None
    chunks = []
    with suppress(Exception):
        if 'gamma' in info:
            chunks.append((b'gAMA', struct.pack('>I', round(info['gamma'] * 100_000))))
        if 'chromaticity' in info:
            chunks.append((b'cHRM', struct.pack('>8I', *(round(value * 100_000) for value in info['chromaticity']))))
        if 'srgb' in info:
            chunks.append((b'sRGB', bytes([info['srgb']])))
    return {name: value for name, value in {**kept, 'chunks': chunks}.items() if value}


def encode(picture: Picture, text: tuple[str, str] | None = None) -> bytes:
    """The content of a PNG file, with a text by its name in it; grey and alpha of 16 bits are written as RGB and
    alpha.
    """
    pixels, buffer = picture.pixels, BytesIO()
    if pixels.ndim == 3 and pixels.shape[2] == 2 and pixels.dtype == np.uint8:
        Image.fromarray(pixels).save(buffer, 'PNG', compress_level=1)
        content = buffer.getvalue()
    else:
        order = {2: [0, 0, 0, 1], 3: [2, 1, 0], 4: [2, 1, 0, 3]}.get(pixels.shape[2] if pixels.ndim == 3 else 1)
        content = cv2.imencode('.png', pixels if order is None else pixels[..., order])[1].tobytes()
    info, small = PngImagePlugin.PngInfo(), BytesIO()
    for kind, data in picture.kept.get('chunks', ()):
        info.add(kind, data)
    if text:
        info.add_text(*text)
    kept = {name: picture.kept[name] for name in ('icc_profile', 'dpi', 'exif') if picture.kept.get(name)}
    Image.new('L', (1, 1)).save(small, 'PNG', pnginfo=info, **kept)
    header = small.getvalue()[33:]  # after the signature and IHDR
    return content[:33] + header[: header.rindex(b'IDAT') - 4] + content[33:]


def read_text(file: Path, name: str) -> str | None:
    """The text of that name in a PNG file; None if it has none, or is none."""
    with suppress(Exception), Image.open(file, formats=['PNG']) as image:
        return image.info.get(name)
    return None


def images_in(folder: Path) -> tuple[list[Path], list[Path]]:
    """The image files in a folder, by their endings, and all other files; without those whose name begins with a
    dot."""
    there = sorted(file for file in folder.iterdir() if not file.name.startswith('.'))
    images = [file for file in there if file.suffix.lower() in SUFFIXES and not file.is_dir()]
    return images, [file for file in there if file not in set(images)]


def listing(reasons: Iterable[tuple[str, Path]]) -> str:
    """A line for each reason, with the names of its files; printable."""
    files: dict[str, list[str]] = {}
    for reason, file in reasons:
        files.setdefault(reason, []).append(file.name)
    return ''.join(f'  {reason}: {printable(", ".join(names))}\n' for reason, names in files.items())


def read_image(file: Path) -> np.ndarray:
    """Read an image file as training does: ``to_bgr`` of its picture."""
    try:
        return to_bgr(decode(file.read_bytes()).pixels)
    except (OSError, ValueError) as error:
        raise ValueError(unreadable(file, error)) from None


def unreadable(file: Path, error: Exception) -> str:
    """The message for a file that cannot be read."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else sentence(error).rstrip('.')
    return f'{file} cannot be read as an image: {reason}; remove it or replace it'


def to_bgr(pixels: np.ndarray) -> np.ndarray:
    """Pixels of any form as BasicSR has them: H x W x 3, BGR, 8 bits.

    Grey becomes three equal channels, an alpha channel is left out, and of 16 bits the upper 8 remain.
    """
    pixels = (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels
    pixels = np.atleast_3d(pixels)
    return cv2.cvtColor(np.ascontiguousarray(pixels[..., :3]), cv2.COLOR_RGB2BGR) if pixels.shape[2] > 2 else (
        cv2.cvtColor(np.ascontiguousarray(pixels[..., 0]), cv2.COLOR_GRAY2BGR)
    )  # fmt: skip


def imfrombytes(content: bytes, flag: str = 'color', float32: bool = False) -> np.ndarray:
    """Replaces BasicSR's function of that name, which reads by OpenCV: H x W x 3, BGR; with ``float32`` in [0, 1].

    An array's content, as ``write_image`` writes it, is read as well.
    """
    assert flag == 'color', flag
    is_array = content.startswith(b'\x93NUMPY')
    image = np.load(BytesIO(content), allow_pickle=False) if is_array else to_bgr(decode(content).pixels)
    return image.astype(np.float32) / 255.0 if float32 else image


def write_image(file: Path, image: np.ndarray) -> None:
    """Write an image (H x W x 3, BGR, 8 bits) as PNG, or as an array if the file ends so, and read it again.

    Raises:
        OSError: If it cannot be written.
        RunError: If it comes back as another image.
    """
    if file.suffix == '.npy':
        buffer = BytesIO()
        np.save(buffer, image, allow_pickle=False)
        content = buffer.getvalue()
    else:
        content = encode(Picture(image[..., ::-1]))
    with atomic_write(file) as part:
        part.write_bytes(content)
    check_image(file, image)


def check_image(file: Path, image: np.ndarray) -> None:
    """Compare an image file with what it should hold."""
    found = None
    with suppress(OSError, ValueError, EOFError):
        found = np.load(file, allow_pickle=False) if file.suffix == '.npy' else read_image(file)
    if found is None or not np.array_equal(found, image):
        raise RunError(f'{file} is absent or not the image that it should be; prepare it again in another folder.')
