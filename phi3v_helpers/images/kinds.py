"""What a file is, by its bytes. Its name is never asked: names are often wrong.

Pictures are told apart here and not by Pillow, which would try its readers one after the other: some of them run other
programs (EPS calls Ghostscript), load fonts or follow references (WMF, FPX), or are hardly ever used and hence
hardly ever tested (FLI, PSD, SGI, FITS and some thirty more). What is read is what cameras, phones, scanners and
browsers write, and what holds pixels alone.
"""

import re
from dataclasses import dataclass

_GIVE = "Give a PNG, JPEG, WebP, GIF, BMP or TIFF picture."
_EXPORT = "Export it as PNG or JPEG."


@dataclass(frozen=True)
class Kind:
    """name: with its article, "a PDF document". format: Pillow's name of a picture that is read, else None.

    advice: what to do where it is not read. container: FFmpeg's name for that of a video.
    """

    name: str
    format: str | None = None
    advice: str = _GIVE
    container: str | None = None


PDF = Kind("a PDF document, not a picture")
TEXT = Kind("not a picture, but text")
BASE64 = Kind(
    "not a picture, but base64 text",
    advice='Decode it with base64.b64decode(text), or put "data:;base64," in front of it and give it as str.',
)
UNKNOWN = Kind("not a picture that Pillow knows")
_FRAMES = 'Take pictures from it with p3v.frames("…").'
_UNPACK = "Unpack it, and give the pictures in it."
_OFFICE = "Export it as a PDF, or save the pictures in it."


def _picture(name, format):
    return Kind(f"{name} picture", format)


def _drawn(name):
    return Kind(f"{name}, which is not read here", advice=_EXPORT)


def _video(name, container):
    return Kind(f"{name} video, not a picture", advice=_FRAMES, container=container)


_WEB_PAGE = Kind("a web page, not a picture")
_SOUND = Kind("a sound recording, not a picture")
_PROGRAM = Kind("a program, not a picture")
_ARCHIVE = Kind("an archive of files, not a picture", advice=_UNPACK)
_RAW = _drawn("a camera's raw picture")
_JPEG2000 = _picture("a JPEG 2000", "JPEG2000")
_TIFF = _picture("a TIFF", "TIFF")
_MP4 = _video("an MP4 or MOV", "mov")
_ICON = _drawn("an Apple icon")

# What a file begins with, as a regular expression -> what it is. The first that fits counts.
_STARTS = [
    (rb"\x89PNG\r\n\x1a\n", _picture("a PNG", "PNG")),
    (rb"\xff\xd8\xff", _picture("a JPEG", "JPEG")),
    (rb"RIFF.{4}WEBP", _picture("a WebP", "WEBP")),
    (rb"GIF8[79]a", _picture("a GIF", "GIF")),
    (rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0", _picture("a BMP", "BMP")),
    (rb"II\*\0.{4}CR|IIRO|IIRS|IIU\0|FUJIFILMCCD-RAW|.{4}ftypcrx", _RAW),
    (rb"II[*+]\0|MM\0[*+]", _TIFF),
    (rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", _JPEG2000),
    (rb"P[1-6f]\s+[#\d]", _picture("a PPM", "PPM")),
    (rb"\0\0\x01\0[^\0]", _picture("an ICO", "ICO")),
    (rb"%PDF", PDF),
    (rb"(?i:(\xef\xbb\xbf)?\s*<(html|!doctype html))", _WEB_PAGE),
    (rb"\x1aE\xdf\xa3", _video("a WebM or Matroska", "matroska")),
    (rb"RIFF.{4}AVI ", _video("an AVI", "avi")),
    (rb"[\0-\x08].{3}(moov|mdat|wide|skip|free)", _MP4),
    (rb"FLV\x01", _video("an FLV", "flv")),
    (rb"\x47.{187}\x47.{187}\x47", _video("an MPEG", "mpegts")),
    (rb"\0\0\x01\xba", _video("an MPEG", "mpeg")),
    (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", _video("a WMV", "asf")),
    (rb"OggS.{24,300}(theora|VP80)", _video("an Ogg", "ogg")),
    (rb"OggS|ID3|fLaC|RIFF.{4}WAVE|FORM.{4}AIF|MThd|\xff[\xf1\xf2\xf3\xf9\xfa\xfb]", _SOUND),
    (rb"%!PS|\xc5\xd0\xd3\xc6", _drawn("a PostScript drawing")),
    (rb"\xd7\xcd\xc6\x9a|\x01\0\0\0.{36} EMF|\x01\0\x09\0\0\x03", _drawn("a Windows drawing (WMF or EMF)")),
    (rb"8BPS", _drawn("a Photoshop file")),
    (rb"gimp xcf", _drawn("a GIMP file")),
    (rb"icns", _ICON),
    (rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n", _drawn("a JPEG XL picture")),
    (rb"II\xbc", _drawn("a JPEG XR picture")),
    (rb"DDS ", _drawn("a DDS texture")),
    (rb"qoif", _drawn("a QOI picture")),
    (rb"SIMPLE  =", _drawn("a FITS file")),
    (rb"\x01\xda[\0\x01][\x01\x02]\0", _drawn("an SGI picture")),
    (rb"\x0a[\0-\x05][\0\x01][\x01\x02\x04\x08]", _drawn("a PCX picture")),
    (rb"\0\0\x02\0[^\0]", _drawn("a mouse pointer")),
    (rb"\x93NUMPY", Kind("an array of NumPy, not a picture", advice="Give the array: numpy.load(path).")),
    (rb"\xd0\xcf\x11\xe0", Kind("an Office document, not a picture", advice=_OFFICE)),
    (rb"PK\x03\x04|PK\x05\x06|\x1f\x8b|7z\xbc\xaf|Rar!|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd|.{257}ustar", _ARCHIVE),
    (rb"MZ[^ -~]|\x7fELF|\xca\xfe\xba\xbe|[\xce\xcf]\xfa\xed\xfe|\0asm", _PROGRAM),
]
_STARTS = [(re.compile(pattern, re.DOTALL), kind) for pattern, kind in _STARTS]
_OFFICE_PARTS = {b"word/": "a Word document", b"ppt/": "a PowerPoint document", b"xl/": "an Excel document"}
_BASE64_TEXT = re.compile(r"[A-Za-z0-9+/_\-\s]{24,}={0,2}\s*")


def kind_of(data):
    """bytes of a file (the first 64 KiB are enough for most) -> Kind."""
    head = data[:4096]
    for pattern, kind in _STARTS:
        if pattern.match(head):
            return _office(data) if kind is _ARCHIVE else kind
    if head[4:8] == b"ftyp":
        return _boxes(head)
    text = _text(head)
    if text is not None:
        return _kind_of_text(text)
    if b"%PDF-" in head[:1024]:  # some programs write their own lines in front
        return PDF
    return _picture("a TGA", "TGA") if _is_tga(data) else UNKNOWN


def _boxes(head):
    """The files of one family that HEIC, AVIF and MP4 belong to; all say which in their first box."""
    size = int.from_bytes(head[:4], "big")
    brands = {head[start : start + 4] for start in (8, *range(16, min(size, 200), 4))}
    if brands & {b"avif", b"avis"}:
        return _picture("an AVIF", "AVIF")
    if brands & {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}:
        return _picture("a HEIC", "HEIF")
    return _SOUND if head[8:11] in (b"M4A", b"M4B") else _MP4


def _office(data):
    """An archive; documents of Word, PowerPoint and Excel are archives too, whose parts are listed at the end."""
    for part, name in _OFFICE_PARTS.items():
        if data.startswith(b"PK") and (part in data[-65536:] or part in data[:4096]):
            return Kind(f"{name}, not a picture", advice=_OFFICE)
    return _ARCHIVE


def _text(head):
    """The text in the first bytes of a file; None where they are no text."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return head.decode("utf-16", "replace")
    if re.search(rb"[\0-\x08\x0e-\x1a\x1c-\x1f]", head):
        return None
    try:
        return head[:4000].decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # letters of more than one byte may be cut at the end; older encodings have no rules, but Latin-1 has gaps
        whole = error.start > 3990
        return head[: error.start].decode() if whole or not re.search(rb"[\x80-\x9f]", head) else None


def _kind_of_text(text):
    lower = text.lower()
    if "<svg" in lower:
        return Kind(
            "an SVG drawing, which is text and not pixels", advice="Export it as a PNG, and give that."
        )
    if "<html" in lower:
        return _WEB_PAGE
    return BASE64 if looks_like_base64(text) else TEXT


def looks_like_base64(text):
    """Whether a str is the base64 of a picture, as far as its start tells."""
    starts = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR", "SUkqA", "TU0AK", "Qk", "AAAA", "JVBERi0")
    return text.lstrip().startswith(starts) and bool(_BASE64_TEXT.fullmatch(text[:4000].strip()))


def _is_tga(data):
    """TGA has no mark at its start, and one at its end only since 1989."""
    if data[-18:] == b"TRUEVISION-XFILE.\0":
        return True
    return (
        len(data) > 18
        and data[1] in (0, 1)
        and data[2] in (1, 2, 3, 9, 10, 11)
        and data[7] in (0, 15, 16, 24, 32)
        and data[16] in (8, 16, 24, 32)
        and any(data[12:14])
        and any(data[14:16])
    )
