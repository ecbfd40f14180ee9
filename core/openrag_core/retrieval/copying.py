"""From one store to another, such as from the embedded index to a server."""

from __future__ import annotations

from collections.abc import Callable

from openrag_core.errors import IndexMismatchError, IndexNotFoundError
from openrag_core.filters import Field
from openrag_core.retrieval.store import Point, PointStore


def copy_points(
    source: PointStore,
    target: PointStore,
    on_page: Callable[[int], None] = lambda _: None,
    *,
    sync: bool = False,
) -> int:
    """Copy an index, vectors and all; what is there already is passed over.

    It can be stopped at any time and run again: ids say what a point holds. Older versions of the
    source's documents are deleted from the target at the end.

    Args:
        source: Stays as it is.
        target: Made where it is not there.
        on_page: Called with the number of points that were dealt with.
        sync: Whether to delete from the target what the source does not hold at all, of the
            tenants that it holds something of.

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
    for part in (Field("chunk") > 0, Field("chunk") == 0):  # first pieces last: see `ingestion`
        for page in source.scroll(part, vectors=True):
            documents |= {_document(point) for point in page}
            missing = [point for point in page if point.id not in there]
            if missing:
                target.upsert(missing)
            written += len(missing)
            on_page(len(page))
    _delete_stale(target, documents, sync=sync)
    return written


_Document = tuple[str | None, str, str]
_OF_DOCUMENT = ("tenant", "doc_id", "content_hash")


def _document(point: Point) -> _Document:
    tenant, document, content_hash = (point.payload.get(name) for name in _OF_DOCUMENT)
    return tenant, str(document), str(content_hash)


def _delete_stale(target: PointStore, documents: set[_Document], *, sync: bool) -> None:
    tenants = {tenant for tenant, _, _ in documents}
    names = {(tenant, name) for tenant, name, _ in documents}
    pages = target.scroll(fields=_OF_DOCUMENT)
    there = {_document(point) for page in pages for point in page}
    for tenant, name, content_hash in there - documents:
        if (tenant, name) not in names and not (sync and tenant in tenants):
            continue
        mine = ~Field("tenant").exists if tenant is None else Field("tenant") == tenant
        stale = (Field("doc_id") == name) & (Field("content_hash") == content_hash)
        target.delete(mine & stale)
