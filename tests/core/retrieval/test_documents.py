"""core/openrag_core/retrieval/documents.py: files of each kind, good and bad."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from pypdf import PdfWriter

from openrag_core import DocumentError
from openrag_core.retrieval.documents import (
    Section,
    document_from_text,
    find_files,
    has_content,
    markdown_sections,
    read_file,
)

DOCUMENTS = Path(__file__).parents[3] / "examples" / "documents"


def test_markdown_is_cut_at_its_headings() -> None:
    text = (
        "Before.\n\n# Bridge\n\nOpen.\n\n## Repairs\n\nShut.\n\n### Cost\nHigh.\n\n## Light\n\nLit."
    )
    assert [(s.title, s.text.strip()) for s in markdown_sections(text)] == [
        ("", "Before."),
        ("Bridge", "Open."),
        ("Bridge > Repairs", "Shut."),
        ("Bridge > Repairs > Cost", "High."),
        ("Bridge > Light", "Lit."),
    ]


def test_a_hash_in_a_code_block_is_no_heading() -> None:
    sections = list(markdown_sections("# A\n\n```\n# comment\n```\n\n> # quoted\n"))
    assert [s.title for s in sections if s.text.strip()] == ["A"]


def test_the_pages_title_is_not_said_twice() -> None:
    sections = markdown_sections("# Museum\n\nOpen.\n\n## Visit\n\nDaily.", title="Museum")
    assert [s.title for s in sections if s.text.strip()] == ["Museum", "Museum > Visit"]


def test_lines_end_where_markdown_ends_them() -> None:
    text = "# A\r\none\u2028two\x0cthree\r\n\r\n# B\r\nthe secret is 42\r\n\r\n# C\r\nlast"
    assert [(s.title, s.text.strip()) for s in markdown_sections(text)][1:] == [
        ("A", "one\u2028two\x0cthree"),
        ("B", "the secret is 42"),
        ("C", "last"),
    ]


@pytest.mark.parametrize(
    "first",
    [
        "title: Bridge",
        "# of a tool",
        "",
        '"quoted key": 1',
        "date created: 2020",
        "a.b: 1",
        "tags:",
    ],
)
def test_front_matter_is_no_heading(first: str) -> None:
    sections = markdown_sections(f"---\n{first}\ndate: 2020\n---\n\nOpen.\n")
    assert [(s.title, s.text.strip()) for s in sections] == [("", "Open.")]


@pytest.mark.parametrize(
    "text",
    [
        "---\n\nImportant notice.\n\n---\n\nThe rest.",
        "-----\nMEETING NOTES\n-----\nThe rest.",
        "---\nhttp://ann.org\n---\nThe rest.",
        "----------\nFrom: Ann\nThe bridge closes.\n----------\nThe rest.",
    ],
)
def test_text_between_two_rules_is_read(text: str) -> None:
    (section, *more) = [one for one in markdown_sections(text) if one.text.strip()]
    read = " ".join(f"{one.title} {one.text}" for one in (section, *more))
    assert all(
        word in read for word in ("rest", "notice", "NOTES", "Ann", "ann.org") if word in text
    )


def test_a_rule_at_the_head_of_a_page_is_no_front_matter(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<hr><h1>Notice</h1><p>Closed on Sunday.</p><hr><p>Rest.</p>", encoding="utf-8")
    read = [(one.title, one.text.strip()) for one in read_file(page).sections]
    assert [title for title, _ in read] == ["Notice"]  # nor is the rule a section
    assert "Closed on Sunday." in read[0][1]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}])
def test_metadata_that_no_store_can_keep_is_refused_with_its_document(value: Any) -> None:  # noqa: ANN401
    with pytest.raises(DocumentError, match="a: its metadata is not what JSON can hold"):
        document_from_text("text", "a", metadata={"price": value})


def test_metadata_is_kept_as_json_has_it() -> None:
    document = document_from_text("text", "a", metadata={1: "x", "flags": (True, False)})  # type: ignore[dict-item]
    assert document.metadata == {"1": "x", "flags": [True, False]}


def test_the_id_of_a_document_is_a_text() -> None:
    with pytest.raises(DocumentError, match="the id of a document must be a text, got 5"):
        document_from_text("text", 5)  # type: ignore[arg-type]


def test_what_may_not_be_looked_at_is_not_known_to_be_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: Any, **__: Any) -> Any:  # noqa: ANN401
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", forbidden)
    monkeypatch.setattr(Path, "stat", forbidden)
    assert has_content(Path("a.md"))
    with pytest.raises(DocumentError, match="cannot be read: Permission denied"):
        read_file(Path("a.md"))


def test_files_that_may_not_be_looked_at_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.md").write_text("text", encoding="utf-8")
    (tmp_path / "b.md").write_text("text", encoding="utf-8")
    is_file = Path.is_file

    def only_a(path: Path) -> bool:
        if path.name == "b.md":
            raise PermissionError(13, "Permission denied")
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", only_a)
    assert list(find_files([tmp_path])) == [tmp_path / "a.md"]
    with pytest.raises(DocumentError, match="cannot be read: File name too long"):
        list(find_files([tmp_path / ("z" * 300)]))


def test_a_heading_with_nothing_below_is_a_text() -> None:
    text = "# Bridge\n\n## Opened in 1893\n\n## Repairs\n\nShut.\n\n# Ferry"
    assert [(s.title, s.text.strip()) for s in markdown_sections(text) if s.text.strip()] == [
        ("Bridge > Opened in 1893", "Opened in 1893"),
        ("Bridge > Repairs", "Shut."),
        ("Ferry", "Ferry"),
    ]


def test_html_is_read_without_what_is_not_for_reading() -> None:
    document = read_file(DOCUMENTS / "museum.html")
    titles = [section.title for section in document.sections]
    assert titles == [
        "Lindrel Clock Museum",
        "Lindrel Clock Museum > Visit",
        "Lindrel Clock Museum > Collection",
    ]
    text = " ".join(section.text for section in document.sections)
    assert "Ida Corbel" in text
    assert "font-family" not in text


def test_pdf_is_read_page_by_page() -> None:
    (section,) = read_file(DOCUMENTS / "water-tower.pdf").sections
    assert (section.title, section.page) == ("Water tower", 1)
    assert "Tove Brandt" in section.text


def test_text_is_titled_by_its_name(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("\ufeffOne line.", encoding="utf-8")
    assert read_file(file).sections == (Section("notes", "One line."),)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.txt", b"", "holds no text"),
        ("blank.md", b" \n\n# \n", "holds no text"),
        ("deep.html", b"<div>" * 900 + b"x", "cannot be read: RecursionError"),
        ("empty.pdf", b"", "cannot be read"),
        ("broken.pdf", b"%PDF-1.4 nonsense", "cannot be read"),
        ("latin.txt", b"caf\xe9", "is not UTF-8"),
        ("program.exe", b"MZ", r"'\.exe' is not one of \.htm, .*\.txt"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DocumentError, match=message):
        read_file(tmp_path / name)


def test_a_file_that_is_gone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="No such file"):
        read_file(tmp_path / "gone.txt")


def test_markdown_signs_in_html_stay_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "code.html"
    file.write_text("<p>max_tokens * 2 <img src='data:image/png;base64,AAAA'></p>", "utf-8")
    assert read_file(file).sections[0].text.strip() == "max_tokens * 2"


def test_a_damaged_pdf_is_refused_whatever_its_reader_raises(tmp_path: Path) -> None:
    whole = (DOCUMENTS / "water-tower.pdf").read_bytes()
    file = tmp_path / "damaged.pdf"
    for cut in range(20, len(whole), 60):
        file.write_bytes(whole[:cut] + b"<<" + whole[cut + 7 :])
        with suppress(DocumentError):
            read_file(file)


def test_an_encrypted_pdf_is_refused(tmp_path: Path) -> None:
    writer = PdfWriter(clone_from=DOCUMENTS / "water-tower.pdf")
    writer.encrypt("secret", algorithm="AES-256")
    writer.write(tmp_path / "secret.pdf")
    with pytest.raises(DocumentError, match="has not been decrypted"):
        read_file(tmp_path / "secret.pdf")


def test_a_name_that_is_no_unicode_is_refused(tmp_path: Path) -> None:
    file = tmp_path / os.fsdecode(b"caf\xe9.txt")
    file.write_text("x", encoding="utf-8")
    with pytest.raises(DocumentError, match="no Unicode"):
        read_file(file)


def test_folders_are_searched_and_names_are_taken(tmp_path: Path) -> None:
    for name in ("b.md", "a.txt", "sub/c.HTML", "x.py", ".git/d.md", "sub/.hidden.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x", encoding="utf-8")
    found = [file.relative_to(tmp_path).as_posix() for file in find_files([tmp_path])]
    assert found == ["a.txt", "b.md", "sub/c.HTML"]
    assert list(find_files([tmp_path / "x.py"])) == [tmp_path / "x.py"]
    twice = [tmp_path, tmp_path / "sub", tmp_path / "a.txt", tmp_path / "sub" / ".." / "b.md"]
    assert len(list(find_files(twice))) == 3
    with pytest.raises(DocumentError, match="no such file or folder"):
        list(find_files([tmp_path / "gone"]))


def test_bold_paragraphs_are_headings() -> None:
    text = "# FAQ\n\n**(1) Is it *free*?**\n\nYes.\n\n**(2) Why?**\n\nSo. **Bold** words."
    sections = [(one.title, one.text.strip()) for one in markdown_sections(text)]
    assert [one for one in sections if one[1]] == [
        ("FAQ > (1) Is it *free*?", "Yes."),
        ("FAQ > (2) Why?", "So. **Bold** words."),
    ]
    long = f"**{'word ' * 60}end**"
    assert [one.title for one in markdown_sections(f"# A\n\n{long}")] == ["", "A"]
    assert [one.title for one in markdown_sections("**One** and **two**")] == [""]


def test_a_table_of_contents_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "faq.html"
    file.write_text(
        "<title>FAQ</title><ol><li><a href='#q1'>Is it <b>free?</b></a></li>"
        "<li><a href='#q2'>Why?</a></li></ol>"
        "<p><b><a name='q1'></a>(1) Is it free?</b></p><p>Yes, see <a href='x.html'>here</a>.</p>"
        "<ul><li><a href='#q1'>Above</a> it says more.</li><li><a href='#q2'>Below</a></li></ul>",
        encoding="utf-8",
    )
    (section,) = (one for one in read_file(file).sections if one.text.strip())
    assert section.title == "FAQ > (1) Is it free?"
    assert section.text.strip().startswith("Yes, see here.")
    assert "Above it says more" in section.text
    assert "Why?" not in section.text
