"""Small books of every format for the tests: PDF with pages and an outline, EPUB with a spine."""

import zipfile
from pathlib import Path

CONTAINER = (
    '<?xml version="1.0"?><container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
    '<rootfile full-path="OPS/package.opf" media-type="application/oebps-package+xml"/></rootfiles></container>'
)


def words(count: int, word: str = "rhythm") -> str:
    """Sentences of ten words, each with another end, `count` words in all."""
    ends = ["".join(chr(ord("a") + int(digit)) for digit in str(at)) for at in range(count // 10)]
    sentences = [" ".join([word.capitalize(), *[word] * 8, f"{end}."]) for end in ends]
    return " ".join(sentences)


def write_pdf(path: Path, pages: list[list[str]], title: str = "", chapters: dict[str, int] | None = None) -> Path:
    """A PDF with lines of text on each page; `chapters` are headings of the outline with their page from 0."""
    from pypdf import PdfWriter
    from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

    writer = PdfWriter()
    font = {"/Type": "/Font", "/Subtype": "/Type1", "/BaseFont": "/Helvetica", "/Encoding": "/WinAnsiEncoding"}
    fonts = DictionaryObject({NameObject(key): NameObject(value) for key, value in font.items()})
    resources = DictionaryObject({NameObject("/Font"): DictionaryObject({NameObject("/F1"): fonts})})
    for lines in pages:
        page = writer.add_blank_page(612, 792)
        shown = " ".join(f"({line}) Tj T*" for line in lines)
        stream = DecodedStreamObject()
        stream.set_data(f"BT /F1 9 Tf 11 TL 40 750 Td {shown} ET".encode("cp1252"))
        page[NameObject("/Resources")] = resources
        page[NameObject("/Contents")] = writer._add_object(stream)
    for heading, at in (chapters or {}).items():
        writer.add_outline_item(heading, at)
    if title:
        writer.add_metadata({"/Title": title})
    writer.write(path)
    return path


def write_epub(path: Path, documents: dict[str, str], title: str = "A handbook", extra: dict | None = None) -> Path:
    """An EPUB whose spine has the documents in their order; `extra` are further members."""
    items = "".join(
        f'<item id="d{at}" href="{name}" media-type="application/xhtml+xml"/>' for at, name in enumerate(documents)
    )
    spine = "".join(f'<itemref idref="d{at}"/>' for at in range(len(documents)))
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/">'
        f"<dc:title>{title}</dc:title></metadata><manifest>{items}</manifest><spine>{spine}</spine></package>"
    )
    members = {"META-INF/container.xml": CONTAINER, "OPS/package.opf": package}
    members |= {f"OPS/{name}": f"<html><body>{body}</body></html>" for name, body in documents.items()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (members | (extra or {})).items():
            archive.writestr(name, content)
    return path
