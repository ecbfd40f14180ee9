"""From one store to another, such as from the embedded index to a server."""

from __future__ import annotations

from collections.abc import Callable

from openrag_core.errors import IndexMismatchError, IndexNotFoundError
from openrag_core.filters import Field
from openrag_core.retrieval.store import Point, PointStore


def copy_points(
    source: PointStore, target: PointStore, on_page: Callable[[int], None] = lambda _: None
) -> int:
    """Copy an index, vectors and all; what is there already is passed over.

    It can be stopped at any time and run again: ids say what a point holds. Documents that have
    changed, or are not in the source any more, are deleted from the target at the end.

    Args:
        source: Stays as it is.
        target: Made where it is not there.
        on_page: Called with the number of points that were dealt with.

    Returns:
        How many points were written.

    Raises:
        IndexNotFoundError: The source is empty.
        IndexMismatchError: The target was made with another encoder or setting.
    """
    if source.description is None or not source.count():
        raise IndexNotFoundError(f"there is nothing to copy at {source.address}")
    if target.description is None:
        target.create(source.description)
    elif dict(target.description) != dict(source.description):
        raise IndexMismatchError(
            f"{target.address} was made with {dict(target.description)}, and {source.address} "
            f"with {dict(source.description)}: copy to another collection"
        )
    there = {point.id for page in target.scroll(fields=["doc_id"]) for point in page}
    documents: set[_Document] = set()
    written = 0
    for page in source.scroll(vectors=True):
        documents |= {_document(point) for point in page}
        missing = [point for point in page if point.id not in there]
        if missing:  # first pieces last, as they were stored: see `ingestion`
            target.upsert(sorted(missing, key=lambda point: -point.payload["chunk"]))
        written += len(missing)
        on_page(len(page))
    stale = {
        _document(point) for page in target.scroll(fields=_OF_DOCUMENT) for point in page
    } - documents
    for tenant, document, content_hash in stale:
        mine = Field("tenant") == tenant if tenant else ~Field("tenant").exists
        target.delete(
            mine & (Field("doc_id") == document) & (Field("content_hash") == content_hash)
        )
    return written


_Document = tuple[str | None, str, str]
_OF_DOCUMENT = ("tenant", "doc_id", "content_hash")


def _document(point: Point) -> _Document:
    tenant, document, content_hash = (point.payload.get(name) for name in _OF_DOCUMENT)
    return tenant, str(document), str(content_hash)
