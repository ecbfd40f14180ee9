"""Small to large: a piece is found, and read with the pieces around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from openrag_core.filters import AnyOf, Field
from openrag_core.records import Passage
from openrag_core.retrieval.payload import to_passage
from openrag_core.retrieval.store import Hit

if TYPE_CHECKING:
    from openrag_core.retrieval.index import PassageIndex

Payload = Mapping[str, Any]


def read_with_neighbours(
    index: PassageIndex, found: Sequence[Sequence[Hit]], distance: int
) -> list[list[Passage]]:
    """The found pieces, each with those around it under the same heading.

    A piece that a better one of the same list has brought along already is left out.

    Args:
        index: Where they were found.
        found: Of each question, best first.
        distance: How many pieces before and after, >= 1.
    """
    hits = [hit for own in found for hit in own]
    pieces = _pieces(index, hits, distance) if hits else {}
    passages: list[list[Passage]] = []
    for own in found:
        read: set[tuple[str, int]] = set()
        large = []
        for hit in own:
            document, number = hit.payload["doc_id"], hit.payload["chunk"]
            if (document, number) in read:
                continue
            around = _around(pieces, hit.payload, distance)
            read |= {(document, piece["chunk"]) for piece in around}
            passage = to_passage(hit.id, hit.payload, hit.score)
            position = {"start": around[0]["start"], "end": around[-1]["end"]}
            large.append(
                replace(passage, text=_joined(around), metadata={**passage.metadata, **position})
            )
        passages.append(large)
    return passages


def _pieces(
    index: PassageIndex, hits: Sequence[Hit], distance: int
) -> dict[tuple[str, int], Payload]:
    """Every piece near a hit, in one request."""
    near = tuple(
        (Field("doc_id") == hit.payload["doc_id"])
        & (Field("content_hash") == hit.payload["content_hash"])
        & (Field("chunk") >= hit.payload["chunk"] - distance)
        & (Field("chunk") <= hit.payload["chunk"] + distance)
        for hit in hits
    )
    payloads = (p.payload for page in index.store.scroll(index.scoped(AnyOf(near))) for p in page)
    return {(payload["doc_id"], payload["chunk"]): payload for payload in payloads}


def _around(
    pieces: Mapping[tuple[str, int], Payload], hit: Payload, distance: int
) -> list[Payload]:
    """The hit and its neighbours, as far as they follow each other in its section."""
    around = [hit]
    for step in (-1, 1):
        for number in range(1, distance + 1):
            piece = pieces.get((hit["doc_id"], hit["chunk"] + step * number))
            if piece is None or (piece["title"], piece["page"]) != (hit["title"], hit["page"]):
                break
            around.append(piece)
    return sorted(around, key=lambda piece: (piece["start"], piece["end"]))


def _joined(pieces: Sequence[Payload]) -> str:
    """Their texts in one, what they share once."""
    text, end = "", pieces[0]["start"]
    for piece in pieces:
        shared = end - piece["start"]
        if shared < 0:  # white space at the seams was cut off
            text += " " if shared == -1 else "\n\n"
        text += piece["text"][max(0, shared) :]
        end = max(end, piece["end"])
    return text
