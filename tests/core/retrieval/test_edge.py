"""core/openrag_core/retrieval/edge.py: on disk, and one owner at a time."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from threading import Timer

import pytest
from filelock import FileLock

from openrag_core import IndexLockedError, IndexMismatchError, PassageIndexError
from openrag_core.retrieval import EdgeStore
from tests.core.retrieval.test_store import DESCRIPTION, HYBRID, point, query, texts

HOLD = """
import sys
from pathlib import Path
from openrag_core.retrieval import EdgeStore
store = EdgeStore(Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.read()
"""
CREATE = """
import sys
from pathlib import Path
from openrag_core import IndexLockedError
from openrag_core.retrieval import EdgeStore
from tests.core.retrieval.test_store import DESCRIPTION, point
try:
    store = EdgeStore(Path(sys.argv[1]))
    if store.description is None:
        store.create(DESCRIPTION)
    store.upsert([point(n) for n in range(3)])
    print("made")
except IndexLockedError:
    print("IndexLockedError")
"""
KILLED = """
import os, signal, sys
from pathlib import Path
from openrag_core.retrieval import EdgeStore
from tests.core.retrieval.test_store import DESCRIPTION, point
store = EdgeStore(Path(sys.argv[1]))
store.create(DESCRIPTION)
store.upsert([point(n) for n in range(3)])
os.kill(os.getpid(), signal.SIGKILL)
"""

EXIT = """
import sys
from pathlib import Path
from weakref import finalize
finalize(Path, print)  # whose exit handler is older than filelock's, and runs after it
from filelock import FileLock, Timeout
from openrag_core.retrieval import EdgeStore, edge_engine
released = edge_engine._release
def watched(shard, lock, owner, process):
    try:
        FileLock(lock.lock_file, is_singleton=False).acquire(timeout=0)
        print("anyone's", flush=True)
    except Timeout:
        print("ours", flush=True)
    released(shard, lock, owner, process)
edge_engine._release = watched
store = EdgeStore(Path(sys.argv[1]))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store = EdgeStore(tmp_path / "index")
    store.create(DESCRIPTION)
    store.upsert([point(n) for n in range(3)])
    store.close()
    return tmp_path / "index"


def test_it_is_there_again_when_opened_again(folder: Path) -> None:
    store = EdgeStore(folder)
    assert store.description == DESCRIPTION
    assert texts(store, query(1, 1))[0][0] == "t1"
    store.close()


def test_a_killed_process_loses_nothing_that_was_stored(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "index")], cwd=root, check=False)
    store = EdgeStore(tmp_path / "index")
    assert store.count() == 3
    store.close()


def test_a_second_process_is_told_who_holds_it(folder: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(IndexLockedError, match=rf"process {holder.pid} \(.*--qdrant-url"):
            EdgeStore(folder)
        holder.communicate("")
    store = EdgeStore(folder)
    assert store.count() == 3
    store.close()


def test_many_processes_that_create_at_once_make_one_index(tmp_path: Path) -> None:
    """One wins; the others are told who it is, or find its index afterwards."""
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", CREATE, str(tmp_path / "index")]
    racing = [
        subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    outcomes = [process.communicate()[0].strip() for process in racing]
    assert set(outcomes) <= {"made", "IndexLockedError"}
    assert "made" in outcomes
    store = EdgeStore(tmp_path / "index")
    assert store.count() == 3
    store.close()


def test_a_process_that_ends_closes_its_index_before_another_may_open_it(folder: Path) -> None:
    command = [sys.executable, "-c", EXIT, str(folder)]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    assert ended.stdout.split() == ["ours"]


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(PassageIndexError, match=r"cannot be written.*--index"):
        EdgeStore(tmp_path / "file" / "index").create(DESCRIPTION)


def test_an_engine_that_panics_is_no_crash(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Panic(BaseException):
        """As pyo3 raises it: no Exception."""

    class Broken:
        def count(self, _: object) -> int:
            raise Panic("index out of bounds")

        def close(self) -> None: ...

    store = EdgeStore(folder)
    monkeypatch.setattr(store._engine, "shard", Broken())
    with pytest.raises(PassageIndexError, match=r"index out of bounds.*index again"):
        store.count()


def test_stores_of_one_process_share_the_engine(folder: Path) -> None:
    one, other = EdgeStore(folder), EdgeStore(folder)
    one.upsert([point(3)])
    assert other.count() == 4
    one.close()
    assert other.count() == 4
    assert (folder / "owner").exists()
    other.close()
    assert not (folder / "owner").exists()


def test_a_store_that_is_dropped_gives_the_folder_free(folder: Path) -> None:
    store = EdgeStore(folder)
    assert store.count() == 3
    del store
    command = [sys.executable, "-c", HOLD, str(folder)]
    done = subprocess.run(command, input="", capture_output=True, text=True, check=True)
    assert done.stdout == "open\n"


def test_a_store_that_is_closed_in_another_thread_is_not_in_the_way(folder: Path) -> None:
    """Its engine is forgotten at once, and lets the folder go a moment later."""
    lock = FileLock(folder / "lock", is_singleton=False, thread_local=False)
    lock.acquire()
    (folder / "owner").write_text(str(os.getpid()), encoding="utf-8")
    letting_go = Timer(0.2, lock.release)
    letting_go.start()
    try:
        assert EdgeStore(folder).count() == 3
    finally:
        letting_go.join()


def test_nobody_is_named_who_has_not_said_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openrag_core.retrieval.edge_engine._LETTING_GO", 0.1)
    lock = FileLock(folder / "lock", is_singleton=False)
    for owner in (None, "-5", "somebody"):
        with lock:
            if owner is not None:
                (folder / "owner").write_text(owner, encoding="utf-8")
            with pytest.raises(IndexLockedError, match="in use by another process"):
                EdgeStore(folder)


def test_a_folder_that_was_deleted_while_it_is_open_says_so(folder: Path) -> None:
    store = EdgeStore(folder)
    shutil.rmtree(folder)
    new = EdgeStore(folder)
    with pytest.raises(PassageIndexError, match=r"was deleted while .*: close what has it open"):
        new.create(DESCRIPTION)
    store.close()
    new.create(DESCRIPTION)
    assert new.count() == 0


def test_two_creations_at_once_are_one(tmp_path: Path) -> None:
    one, other = EdgeStore(tmp_path), EdgeStore(tmp_path)
    one.create(DESCRIPTION)
    one.upsert([point(0)])
    other.create(DESCRIPTION)
    assert other.count() == 1


def test_a_creation_with_other_settings_is_refused(tmp_path: Path) -> None:
    one, other = EdgeStore(tmp_path), EdgeStore(tmp_path)
    one.create(DESCRIPTION)
    with pytest.raises(IndexMismatchError, match="run the command again"):
        other.create({**DESCRIPTION, "encoder": "another"})
    assert EdgeStore(tmp_path).description == DESCRIPTION


def test_a_creation_that_is_under_way_elsewhere_is_left_alone(folder: Path, tmp_path: Path) -> None:
    """The other process opened the engine and has not written `index.json` yet."""
    late = EdgeStore(tmp_path / "late")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        (folder / "index.json").rename(tmp_path / "index.json")
        (tmp_path / "late").symlink_to(folder)
        with pytest.raises(IndexLockedError, match=f"process {holder.pid}"):
            late.create(DESCRIPTION)
        holder.communicate("")
    (tmp_path / "index.json").rename(folder / "index.json")
    late.create(DESCRIPTION)
    assert late.count() == 3


def test_an_interrupted_creation_does_not_count(folder: Path) -> None:
    (folder / "index.json").unlink()
    store = EdgeStore(folder)
    assert store.description is None
    store.create(DESCRIPTION)
    assert store.count() == 0
    store.close()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("index.json", "{"),
        ("index.json", "null"),
        ("index.json", "[]"),
        ("points/edge_config.json", "{"),
    ],
)
def test_damaged_files_are_named(folder: Path, file: str, content: str) -> None:
    (folder / file).write_text(content, encoding="utf-8")
    with pytest.raises(PassageIndexError, match="index again"):
        EdgeStore(folder)


def test_a_closed_index_says_so(folder: Path) -> None:
    store = EdgeStore(folder)
    store.close()
    store.close()
    with pytest.raises(PassageIndexError, match="closed: open it again"):
        store.search([query(1, 1)], 1, HYBRID)


def test_so_does_one_that_was_never_made(tmp_path: Path) -> None:
    store = EdgeStore(tmp_path / "index")
    store.close()
    store.close()
    for use in (lambda: store.description, store.count, lambda: store.create(DESCRIPTION)):
        with pytest.raises(PassageIndexError, match="is closed: open it again"):
            use()


def test_a_forked_process_is_told_instead_of_hanging(folder: Path) -> None:
    script = """
import os, sys
from pathlib import Path
from openrag_core import PassageIndexError
from openrag_core.retrieval import EdgeStore
store = EdgeStore(Path(sys.argv[1]))
if os.fork() == 0:
    try:
        store.count()
    except PassageIndexError as error:
        print(error, flush=True)
    os._exit(0)
os.wait()
print(store.count())
"""
    command = [sys.executable, "-W", "ignore", "-c", script, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "before this process was forked" in done.stdout
    assert done.stdout.endswith("3\n")
