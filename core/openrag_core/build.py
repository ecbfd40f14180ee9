"""Settings -> a ready pipeline: the only place where ports meet their adapters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from openrag_core._extras import need
from openrag_core.errors import ConfigError
from openrag_core.gate import Gate
from openrag_core.pipeline import OpenRAG
from openrag_core.ports import Reranker, Retriever
from openrag_core.records import EvidenceMode, GateMode
from openrag_core.weights import BUNDLED, ENCODER

if TYPE_CHECKING:
    from openrag_core.retrieval import PassageIndex, PointStore, SentenceTransformerEncoder


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that a pipeline is made from; the defaults work offline.

    Raises:
        ConfigError: A value is outside its range.
    """

    model: str = BUNDLED
    """Generator: "bundled", a checkpoint folder, or a name on a model hub."""
    base: str | None = None
    """Dense model that an adapter-only checkpoint belongs to, if it was moved."""
    dtype: str | None = None
    """Of the generator's weights; by default bfloat16 where the device has it."""
    device: str | None = None
    """Of the generator, such as "cpu" or "cuda"; by default the GPU where there is one."""
    device_map: str | None = None
    """In place of `device`: "auto" spreads the generator over the GPUs."""
    load_in_4bit: bool = False
    """Whether the generator's dense weights are kept in 4 bits (extra: quantized)."""
    max_batch_tokens: int = 8192
    """Most tokens that run through the generator at once; what bounds its memory."""
    max_new_tokens: int = 64
    """Longest answer, in tokens."""
    index: Path = Path(".openrag")
    """Folder of the embedded index; without effect where `qdrant_url` is set."""
    qdrant_url: str | None = None
    """Of a Qdrant server; None uses the embedded index."""
    qdrant_api_key: str | None = None
    """If the server asks for one."""
    qdrant_timeout: int = 10
    """Longest wait for one reply of the server, in seconds."""
    collection: str = "openrag"
    """On the server."""
    encoder: str = BUNDLED
    """Dense encoder: "bundled", or a sentence-transformers folder or name."""
    language: str = "english"
    """Of the documents, for BM25's stop words and stemming."""
    reranker: str = "maxsim"
    """"maxsim" (token similarity with the dense encoder), "cohere", "none", or a cross-encoder's
    folder or name."""
    gate: GateMode = "always"
    """What decides whether to retrieve."""
    threshold: float = 0.5
    """Of the gate, in [0, 1]."""
    speculative: bool | None = None
    """Whether to retrieve while the gate decides; by default for indexes in this process."""
    evidence: EvidenceMode = "each"
    """"each": one answer per passage; "joint": one answer from all of them together."""
    top_k: int = 5
    """Passages that answers are written from."""
    fetch_k: int = 20
    """Passages that the reranker chooses from."""
    min_relevance: float | None = None
    """A candidate of lower relevance is not believed; see `OpenRAG.min_relevance`."""
    min_support: float | None = None
    """The same for support; see `OpenRAG.min_support`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", Path(self.index))  # a string will do
        Gate(self.gate, self.threshold)
        if self.evidence not in get_args(EvidenceMode):
            raise ConfigError(
                f"evidence must be one of {', '.join(get_args(EvidenceMode))}; "
                f"got {self.evidence!r}"
            )
        for name in ("max_new_tokens", "max_batch_tokens", "qdrant_timeout", "top_k", "fetch_k"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")


def build(settings: Settings | None = None, *, retriever: Retriever | None = None) -> OpenRAG:
    """Make a pipeline.

    Args:
        settings: By default all embedded: bundled model, bundled encoder, index in `.openrag`.
        retriever: Finds the passages instead of the index that the settings name.

    Raises:
        MissingExtraError: A part needs a package that is not installed.
        OpenRAGError: A part cannot be made; the message says why.
    """
    settings = settings or Settings()
    need("model", "torch", "transformers")
    retriever = retriever or open_index(settings)
    from openrag_core.model import TransformersGenerator, load  # noqa: PLC0415

    model, tokenizer = load(
        settings.model,
        base=settings.base,
        dtype=settings.dtype,
        device=settings.device,
        device_map=settings.device_map,
        load_in_4bit=settings.load_in_4bit,
    )
    return OpenRAG(
        generator=TransformersGenerator(
            model,
            tokenizer,
            max_new_tokens=settings.max_new_tokens,
            max_batch_tokens=settings.max_batch_tokens,
        ),
        retriever=retriever,
        reranker=_reranker(settings, retriever),
        gate=Gate(settings.gate, settings.threshold),
        evidence=settings.evidence,
        top_k=settings.top_k,
        fetch_k=max(settings.fetch_k, settings.top_k),
        min_relevance=settings.min_relevance,
        min_support=settings.min_support,
        speculative=settings.speculative,
    )


def open_index(settings: Settings | None = None, *, must_exist: bool = False) -> PassageIndex:
    """Open the passage index, or one that is still empty.

    Args:
        settings: Where it is and how it was made.
        must_exist: Whether to refuse one that is empty, before anything large is loaded.

    Raises:
        IndexNotFoundError: It is empty and must not be.
        MissingExtraError: Its packages are not installed.
        PassageIndexError: It cannot be used; the message says why.
        CheckpointError: The dense encoder cannot be loaded.
    """
    settings = settings or Settings()
    need("qdrant", "qdrant_edge", "qdrant_client", "sentence_transformers")
    from openrag_core.retrieval import PassageIndex  # noqa: PLC0415
    from openrag_core.retrieval.index import check_indexed  # noqa: PLC0415

    store = open_store(settings)
    try:
        if must_exist:
            check_indexed(store)
        return PassageIndex(store, _encoder(settings), language=settings.language)
    except BaseException:
        store.close()
        raise


def open_store(settings: Settings) -> PointStore:
    """Open the place where the points live.

    Raises:
        PassageIndexError: It cannot be used; the message says why.
    """
    if settings.qdrant_url is None:
        from openrag_core.retrieval.edge import EdgeStore  # noqa: PLC0415

        return EdgeStore(settings.index)
    from openrag_core.retrieval.server import ServerStore  # noqa: PLC0415

    return ServerStore.connect(
        settings.qdrant_url,
        settings.collection,
        api_key=settings.qdrant_api_key,
        timeout=settings.qdrant_timeout,
    )


def _encoder(settings: Settings) -> SentenceTransformerEncoder:
    from openrag_core.retrieval import SentenceTransformerEncoder  # noqa: PLC0415

    if settings.encoder == BUNDLED:
        name = f"{ENCODER.holds}@{ENCODER.sha256[:12]}"
        return SentenceTransformerEncoder(ENCODER.locate(), name=name)
    return SentenceTransformerEncoder(settings.encoder, device=settings.device)


def _reranker(settings: Settings, retriever: Retriever) -> Reranker | None:
    match settings.reranker:
        case "none":
            return None
        case "maxsim":
            from openrag_core.reranking.maxsim import (  # noqa: PLC0415
                MaxSimReranker,
                TokenEncoder,
            )

            encoder = getattr(retriever, "encoder", None)
            if not isinstance(encoder, TokenEncoder):
                encoder = _encoder(settings)
            return MaxSimReranker(encoder)
        case "cohere":
            need("cohere", "cohere")
            from openrag_core.reranking.cohere import CohereReranker  # noqa: PLC0415

            return CohereReranker()
        case path_or_name:
            from openrag_core.reranking.cross_encoder import CrossEncoderReranker  # noqa: PLC0415

            return CrossEncoderReranker(path_or_name, device=settings.device)
