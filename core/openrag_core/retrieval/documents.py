"""Files -> documents: text, Markdown, HTML and PDF, as titled sections."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import file_digest, sha256
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from bs4 import BeautifulSoup, Tag
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markdownify import markdownify
from mdit_py_plugins.front_matter import front_matter_plugin
from pypdf import PdfReader

from openrag_core.errors import DocumentError

_UNREAD = (
    "script",
    "style",
    "nav",
    "noscript",
    "template",
    "img",
    "svg",
)  # of a page, not for reading
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_BOLD = 7  # level of a paragraph that is bold throughout, below all headings
_HEADING_LENGTH = 200  # characters; a longer one is text
_FRONT_MATTER = re.compile(
    r"""---[ \t]*\r?\n([ \t]*(\#.*)?\r?\n)*["']?\w[\w .-]*["']?[ \t]*:(\s|$)"""
)
"""A key below the first rule; what else stands between two rules is text."""
MAX_BYTES = 100_000_000
"""Of a file, unless another limit is given."""


@dataclass(frozen=True, slots=True)
class Section:
    """A stretch of a document under one heading."""

    title: str
    """The headings above it, outermost first, joined by " > "; may be empty."""
    text: str
    page: int | None = None
    """Where the document has pages, counted from 1."""
    start: int = 0
    """Where the text begins, in characters of what was read: the file, of HTML its Markdown, of a
    PDF the page."""


@dataclass(frozen=True, slots=True)
class Document:
    """What is indexed, and replaced, as a whole."""

    id: str
    source: str
    content_hash: str
    """SHA-256 of what was read; a document whose hash is unchanged is not indexed again."""
    sections: tuple[Section, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """What JSON can hold; kept with every passage, and filtered by as "metadata.KEY"."""


def document_from_text(
    text: str,
    document_id: str,
    *,
    title: str = "",
    source: str = "",
    metadata: Mapping[str, Any] | None = None,
) -> Document:
    """A document of what another reader has read already.

    Args:
        text: Plain, or Markdown, which is cut at its headings.
        document_id: By which it is replaced and removed; unique in the index.
        title: Stands above all headings.
        source: What is shown as its source; by default the id.
        metadata: What JSON can hold.

    Raises:
        DocumentError: There is no text, or something in it is no Unicode character.
    """
    if not isinstance(document_id, str):
        raise DocumentError(f"the id of a document must be a text, got {document_id!r}")
    try:
        known = json.loads(json.dumps(dict(metadata or {}), allow_nan=False))
        content = json.dumps([title, source, text, known], ensure_ascii=False, sort_keys=True)
        digest = sha256(content.encode()).hexdigest()
    except UnicodeEncodeError as error:
        raise DocumentError(f"{document_id}: holds what is no Unicode character") from error
    except (TypeError, ValueError) as error:
        raise DocumentError(
            f"{document_id}: its metadata is not what JSON can hold ({error})"
        ) from error
    sections = tuple(filter(_says_something, markdown_sections(text, title)))
    if not sections:
        raise DocumentError(f"{document_id}: holds no text")
    return Document(document_id, source or document_id, digest, sections, known)


def find_files(paths: Sequence[Path]) -> Iterator[Path]:
    """Every readable file below the given folders, and each file given by name.

    Hidden files and folders, and files of other kinds, are passed over unless given by name. A
    file that is reached twice is given once.

    Raises:
        DocumentError: A path does not exist.
    """
    seen: set[Path] = set()
    for path in paths:
        try:
            there = path.exists()
        except OSError as error:
            raise DocumentError(f"{path}: cannot be read: {error.strerror}") from error
        if not there:
            raise DocumentError(f"{path}: no such file or folder")
        for file in _readable(path) if path.is_dir() else (path,):
            if file.resolve() not in seen:
                seen.add(file.resolve())
                yield file


def has_content(file: Path) -> bool:
    """Whether a file is there, and not empty; what may not be looked at is not known to be gone."""
    try:
        return file.is_file() and file.stat().st_size > 0
    except OSError:
        return True


def hash_file(file: Path) -> str:
    """SHA-256 of a file.

    Raises:
        DocumentError: The file cannot be read.
    """
    try:
        with file.open("rb") as content:
            return file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise DocumentError(f"cannot be read: {error.strerror}") from error


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError as error:
        raise DocumentError(f"cannot be read: {error.strerror}") from error


def read_file(file: Path, max_bytes: int = MAX_BYTES) -> Document:
    """Read one file.

    Args:
        file: Of a kind in `READERS`.
        max_bytes: Larger ones are refused, for they are read whole.

    Raises:
        DocumentError: The file is of an unknown kind, damaged, too large, not UTF-8, or holds no
            text.
    """
    reader = READERS.get(file.suffix.lower())
    if reader is None:
        known = ", ".join(sorted(READERS))
        raise DocumentError(f"kind {file.suffix or 'without ending'!r} is not one of {known}")
    if (size := _size(file)) > max_bytes:
        raise DocumentError(
            f"{size / 1e6:.0f} MB, and {max_bytes / 1e6:.0f} MB are allowed: split it, or raise "
            "the limit (--max-file-mb)"
        )
    content_hash = hash_file(file)
    source = str(file.resolve())
    try:
        sections = tuple(filter(_says_something, reader(file)))
        "".join([source, *(section.title + section.text for section in sections)]).encode()
    except UnicodeDecodeError as error:
        raise DocumentError("is not UTF-8 text: convert it (iconv -t UTF-8)") from error
    except UnicodeEncodeError as error:
        raise DocumentError("its name or text holds what is no Unicode character") from error
    except Exception as error:  # readers of damaged files raise anything
        raise DocumentError(f"cannot be read: {type(error).__name__}: {error}") from error
    if not sections:
        raise DocumentError("holds no text")
    return Document(source, source, content_hash, sections)


def markdown_sections(text: str, title: str = "") -> Iterator[Section]:
    """Cut Markdown at its headings, and at paragraphs all bold; front matter is left out.

    Args:
        text: The whole document.
        title: Stands above all headings, unless the document's first heading says the same.
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")  # as markdown-it counts
    offsets = [0, *accumulate(len(line) + 1 for line in lines)]
    above = {0: title} if title else {}
    start = 0
    markdown = MarkdownIt()
    if _FRONT_MATTER.match(text):
        markdown.use(front_matter_plugin)
    tokens = markdown.parse(text)
    for token, inline in pairwise([*tokens, Token("end", "", 0)]):
        if token.map is None or token.level:
            continue
        if token.type == "front_matter":
            start = token.map[1]
        level = _HEADINGS.get(token.tag, 0)
        if token.type == "paragraph_open" and _is_bold(inline):
            level = _BOLD
        if level:
            yield _section(above, lines[start : token.map[0]], offsets[start], level)
            above = {outer: name for outer, name in above.items() if outer < level}
            name = inline.content.strip("*_ ") if level == _BOLD else inline.content
            if name != title:
                above[level] = name
            start = token.map[1]
    yield _section(above, lines[start:], offsets[start])


def _says_something(section: Section) -> bool:
    """Whether there is more in it than rules."""
    return re.search(r"[^\s*_-]", section.text) is not None


def _is_bold(inline: Token) -> bool:
    """Whether a paragraph is a heading in disguise: one line, all of it bold."""
    parts = [part.type for part in inline.children or () if part.content or part.nesting]
    return (
        len(parts) >= 3
        and parts[0] == "strong_open"
        and parts.index("strong_close") == len(parts) - 1
        and len(inline.content) <= _HEADING_LENGTH
    )


def _section(
    above: Mapping[int, str], lines: Sequence[str], start: int, following: int = 0
) -> Section:
    """The section that ends before a heading of level `following`, 0 at the end.

    A heading with nothing below it, not even smaller headings, is its own text.
    """
    text = "\n".join(lines)
    level = max(above, default=0)
    if not text.strip() and level >= max(following, 1):
        text = above[level]
    return Section(" > ".join(above.values()), text, start=start)


def _readable(folder: Path) -> Iterator[Path]:
    for file in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        if not hidden and file.suffix.lower() in READERS and _is_file(file):
            yield file


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # in a folder that may be listed and not entered
        return False


def _text(file: Path) -> Iterator[Section]:
    yield Section(file.stem, file.read_text(encoding="utf-8-sig"))


def _markdown(file: Path) -> Iterator[Section]:
    yield from markdown_sections(file.read_text(encoding="utf-8-sig"))


def _html(file: Path) -> Iterator[Section]:
    page = BeautifulSoup(file.read_bytes(), "html.parser")
    for listing in page(["ul", "ol"]):
        if not listing.decomposed and _is_navigation(listing):
            listing.decompose()
    title = page.title.get_text(strip=True) if page.title else ""
    for element in page(["title", *_UNREAD]):
        element.decompose()
    markdown = markdownify(
        str(page),
        heading_style="ATX",
        escape_asterisks=False,
        escape_underscores=False,
        strip=["a"],  # where a link leads is not for reading
    )
    yield from markdown_sections(markdown, title)


def _is_navigation(listing: Tag) -> bool:
    """Whether a list holds nothing but links: a table of contents, or a menu."""
    links = listing("a")
    words = {word for link in links for word in link.get_text(" ").split()}
    return len(links) > 1 and words >= set(listing.get_text(" ").split())


def _pdf(file: Path) -> Iterator[Section]:
    pdf = PdfReader(file)
    title = (pdf.metadata.title if pdf.metadata else None) or file.stem
    for number, page in enumerate(pdf.pages, start=1):
        yield Section(title, page.extract_text(), number)


READERS = {
    ".txt": _text,
    ".text": _text,
    ".md": _markdown,
    ".markdown": _markdown,
    ".html": _html,
    ".htm": _html,
    ".pdf": _pdf,
}
"""How each kind of file is read, by the ending of its name."""
