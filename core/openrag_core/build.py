"""Settings -> a ready pipeline: the only place where ports meet their adapters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from openrag_core._extras import need
from openrag_core.conversation import ChatCondenser, Condenser
from openrag_core.errors import ConfigError
from openrag_core.gate import Gate
from openrag_core.pipeline import OpenRAG, check_hops
from openrag_core.ports import ChainRetriever, Generator, Reranker, Retriever
from openrag_core.records import EvidenceMode, GateMode, Hops
from openrag_core.search import SearchOptions
from openrag_core.weights import BUNDLED, ENCODER

if TYPE_CHECKING:
    from openrag_core.model import TransformersGenerator
    from openrag_core.retrieval import (
        Chunker,
        Contextualizer,
        DenseEncoder,
        PassageIndex,
        PointStore,
        SentenceTransformerEncoder,
        SparseEncoder,
    )
    from openrag_core.retrieval.encoders import Backend


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
    instruction: str | None = None
    """For trained models: put in front of every prompt, for instance how long an answer to give."""
    index: Path = Path(".openrag")
    """Folder of the embedded index; without effect where `qdrant_url` is set."""
    qdrant_url: str | None = None
    """Of a Qdrant server; None uses the embedded index."""
    qdrant_api_key: str | None = None
    """If the server asks for one."""
    qdrant_timeout: int = 10
    """Longest wait for one reply of the server, in seconds."""
    qdrant_grpc_port: int | None = None
    """Speak gRPC with the server on this port (usually 6334) instead of REST."""
    shard_number: int | None = None
    """Of a new collection; see `Server`."""
    replication_factor: int | None = None
    """Of a new collection; see `Server`."""
    write_consistency_factor: int | None = None
    """Of a new collection; see `Server`."""
    collection: str = "openrag"
    """On the server."""
    tenant: str | None = None
    """Whose documents are indexed and found, where several share an index."""
    compatible: bool | None = None
    """Whether LangChain's and LlamaIndex's Qdrant stores can read the index, once it is on a
    server; by default the index's own, of a new one no."""
    encoder: str = BUNDLED
    """Dense encoder: "bundled", or a sentence-transformers folder or name."""
    encoder_backend: Backend = "torch"
    """"openvino" (extra: fast) encodes faster on CPUs."""
    question_prefix: str = ""
    """What the encoder wants before a question, such as "query: "."""
    passage_prefix: str = ""
    """What the encoder wants before a passage, such as "passage: "."""
    encoder_cache: Path | None = None
    """A file that keeps vectors, so that no text is encoded twice."""
    language: str | None = None
    """Of the documents, for BM25's stop words and stemming; by default the index's own, "english"
    for a new one."""
    splade: str | None = None
    """A learned sparse encoder's folder or name, in place of BM25."""
    chunk_size: int | None = None
    """Longest piece of a document, in tokens of the encoder, >= 16; by default the index's own, 160
    for a new one."""
    chunk_overlap: int | None = None
    """Tokens that a piece may repeat of the one before, < chunk_size; likewise, 24."""
    search: SearchOptions = field(default_factory=SearchOptions)
    """How passages are searched."""
    reranker: str = "maxsim"
    """"maxsim" (token similarity with the dense encoder), "reflection" (the generator's own
    judgement), "cohere", "none", or a cross-encoder's folder or name; several joined by "+" are
    weighted alike."""
    gate: GateMode = "always"
    """What decides whether to retrieve."""
    threshold: float = 0.5
    """Of the gate, in [0, 1]."""
    speculative: bool | None = None
    """Whether to retrieve while the gate decides; by default for indexes in this process."""
    evidence: EvidenceMode = "each"
    """"each": one answer per passage; "joint": one answer from all of them together."""
    hops: Hops = 1
    """Passages in a chain that an answer is written from, or "auto"; see `OpenRAG.hops`."""
    hop_width: int = 8
    """Chains that are lengthened at each hop."""
    top_k: int = 5
    """Passages, or chains of them, that answers are written from."""
    fetch_k: int = 20
    """Passages that the reranker chooses from."""
    min_relevance: float | None = None
    """A candidate of lower relevance is not believed; see `OpenRAG.min_relevance`."""
    min_support: float | None = None
    """The same for support; see `OpenRAG.min_support`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", Path(self.index))  # a string will do
        if not isinstance(self.search, SearchOptions):
            raise ConfigError(f"search must be SearchOptions(...), got {self.search!r}")
        if self.tenant is not None and not self.tenant:
            raise ConfigError("tenant must not be empty: name one, or leave it out")
        check_hops(self.hops)
        Gate(self.gate, self.threshold)
        if self.evidence not in get_args(EvidenceMode):
            raise ConfigError(
                f"evidence must be one of {', '.join(get_args(EvidenceMode))}; "
                f"got {self.evidence!r}"
            )
        for name in ("max_new_tokens", "max_batch_tokens", "qdrant_timeout", "top_k", "fetch_k"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")


def build(
    settings: Settings | None = None,
    *,
    retriever: Retriever | None = None,
    generator: Generator | None = None,
    reranker: Reranker | None = None,
    condenser: Condenser | None = None,
) -> OpenRAG:
    """Make a pipeline.

    Args:
        settings: By default all embedded: bundled model, bundled encoder, index in `.openrag`.
        retriever: Finds the passages instead of the index that the settings name.
        generator: Writes the answers instead of the model that they name.
        reranker: Ranks the passages instead of the one that they name.
        condenser: Makes questions of a conversation stand alone, instead of the model itself, or
            of the dense model that it was made from where it knows reflection tokens.

    Raises:
        MissingExtraError: A part needs a package that is not installed.
        OpenRAGError: A part cannot be made; the message says why.
    """
    settings = _settings(settings)
    if generator is None:
        need("model", "torch", "transformers")
    retriever = retriever or open_index(settings)
    if generator is None:
        generator = own = _generator(settings)
        condenser = condenser or _condenser(settings, own)
    reranker = reranker or _reranker(settings, retriever, generator)
    if settings.hops != 1 and not isinstance(retriever, ChainRetriever):
        from openrag_core.retrieval.multihop import MultihopRetriever  # noqa: PLC0415

        retriever = MultihopRetriever(retriever, reranker=reranker, width=settings.hop_width)
    return OpenRAG(
        generator=generator,
        retriever=retriever,
        reranker=reranker,
        gate=Gate(settings.gate, settings.threshold),
        evidence=settings.evidence,
        hops=settings.hops,
        top_k=settings.top_k,
        fetch_k=max(settings.fetch_k, settings.top_k),
        min_relevance=settings.min_relevance,
        min_support=settings.min_support,
        condenser=condenser,
        speculative=settings.speculative,
    )


def _generator(settings: Settings) -> TransformersGenerator:
    from openrag_core.model import TransformersGenerator, load  # noqa: PLC0415

    model, tokenizer = load(
        settings.model,
        base=settings.base,
        dtype=settings.dtype,
        device=settings.device,
        device_map=settings.device_map,
        load_in_4bit=settings.load_in_4bit,
    )
    return TransformersGenerator(
        model,
        tokenizer,
        max_new_tokens=settings.max_new_tokens,
        max_batch_tokens=settings.max_batch_tokens,
        instruction=settings.instruction,
    )


def _condenser(settings: Settings, generator: TransformersGenerator) -> Condenser:
    """The model itself, or the dense one that it was made from, which was trained to chat."""
    from openrag_core.model import BaseChat, TransformersChat  # noqa: PLC0415

    if not generator.reflection_trained:
        return ChatCondenser(TransformersChat(generator))
    base = BaseChat(settings.model, base=settings.base, device=settings.device)
    return ChatCondenser(base, cautious=settings.model == BUNDLED)


def open_index(
    settings: Settings | None = None,
    *,
    must_exist: bool = False,
    encoder: DenseEncoder | None = None,
    context: Contextualizer | None = None,
) -> PassageIndex:
    """Open the passage index, or one that is still empty.

    Args:
        settings: Where it is and how it was made.
        must_exist: Whether to refuse one that is empty, before anything large is loaded.
        encoder: Of the dense vectors, in place of the one that the settings name.
        context: What is encoded before each passage; by default its title and headings.

    Raises:
        IndexNotFoundError: It is empty and must not be.
        MissingExtraError: Its packages are not installed.
        PassageIndexError: It cannot be used; the message says why.
        CheckpointError: The dense encoder cannot be loaded.
    """
    settings = _settings(settings)
    need("qdrant", "qdrant_edge", "qdrant_client", "sentence_transformers")
    from openrag_core.retrieval import PassageIndex  # noqa: PLC0415
    from openrag_core.retrieval.index import check_indexed  # noqa: PLC0415

    store = open_store(settings)
    try:
        if must_exist:
            check_indexed(store)
        encoder = encoder or _dense(settings)
        return PassageIndex(
            store,
            encoder,
            sparse=_sparse(settings),
            context=context,
            chunk=_chunker(settings, encoder, store.description or {}),
            options=settings.search,
            tenant=settings.tenant,
            compatible=settings.compatible,
        )
    except BaseException:
        store.close()
        raise


def _settings(settings: Settings | None) -> Settings:
    if settings is not None and not isinstance(settings, Settings):
        raise ConfigError(
            f"settings must be Settings(...), such as Settings(index=...); got {settings!r}"
        )
    return settings or Settings()


def open_store(settings: Settings) -> PointStore:
    """Open the place where the points live.

    Raises:
        PassageIndexError: It cannot be used; the message says why.
    """
    if settings.qdrant_url is None:
        from openrag_core.retrieval.edge import EdgeStore  # noqa: PLC0415

        return EdgeStore(settings.index)
    from openrag_core.retrieval.server import Server, ServerStore  # noqa: PLC0415

    server = Server(
        url=settings.qdrant_url,
        api_key=settings.qdrant_api_key,
        timeout=settings.qdrant_timeout,
        grpc_port=settings.qdrant_grpc_port,
        shard_number=settings.shard_number,
        replication_factor=settings.replication_factor,
        write_consistency_factor=settings.write_consistency_factor,
    )
    return ServerStore.connect(server, settings.collection)


def _dense(settings: Settings) -> DenseEncoder:
    encoder = _encoder(settings)
    if settings.encoder_cache is None:
        return encoder
    from openrag_core.retrieval.cached import CachedEncoder  # noqa: PLC0415

    return CachedEncoder(encoder, settings.encoder_cache)


def _encoder(settings: Settings) -> SentenceTransformerEncoder:
    from openrag_core.retrieval import SentenceTransformerEncoder  # noqa: PLC0415

    bundled = settings.encoder == BUNDLED
    return SentenceTransformerEncoder(
        ENCODER.locate() if bundled else settings.encoder,
        name=f"{ENCODER.holds}@{ENCODER.sha256[:12]}" if bundled else None,
        device=None if bundled else settings.device,
        question_prefix=settings.question_prefix,
        passage_prefix=settings.passage_prefix,
        backend=settings.encoder_backend,
    )


def _sparse(settings: Settings) -> SparseEncoder | None:
    from openrag_core.retrieval.sparse import Bm25Encoder, SpladeEncoder  # noqa: PLC0415

    if settings.splade is not None:
        return SpladeEncoder(settings.splade, device=settings.device)
    return None if settings.language is None else Bm25Encoder(settings.language)


def _chunker(settings: Settings, encoder: DenseEncoder, made: Mapping[str, Any]) -> Chunker | None:
    from openrag_core.retrieval.chunking import (  # noqa: PLC0415
        CHUNK_OVERLAP,
        CHUNK_SIZE,
        Chunker,
    )

    size, overlap = settings.chunk_size, settings.chunk_overlap
    if size is None and overlap is None:
        return None
    return Chunker(
        encoder.tokenizer,
        size=made.get("chunk_size", CHUNK_SIZE) if size is None else size,
        overlap=made.get("chunk_overlap", CHUNK_OVERLAP) if overlap is None else overlap,
    )


def _reranker(settings: Settings, retriever: Retriever, generator: Generator) -> Reranker | None:
    names = [name.strip() for name in settings.reranker.split("+")]
    if names == ["none"]:
        return None
    made = [_one_reranker(name, settings, retriever, generator) for name in names]
    if len(made) == 1:
        return made[0]
    from openrag_core.reranking.mixture import MixtureReranker  # noqa: PLC0415

    return MixtureReranker([(one, 1.0) for one in made])


def _one_reranker(
    name: str, settings: Settings, retriever: Retriever, generator: Generator
) -> Reranker:
    match name:
        case "maxsim":
            from openrag_core.reranking.maxsim import (  # noqa: PLC0415
                MaxSimReranker,
                TokenEncoder,
            )

            encoder = getattr(retriever, "encoder", None)
            encoder = getattr(encoder, "encoder", encoder)  # inside a cache
            if not isinstance(encoder, TokenEncoder):
                encoder = _encoder(settings)
            return MaxSimReranker(encoder)
        case "reflection":
            from openrag_core.reranking.reflection import (  # noqa: PLC0415
                Judge,
                ReflectionReranker,
            )

            if not isinstance(generator, Judge):
                raise ConfigError(
                    'reranker "reflection" needs a generator that judges passages: use "maxsim"'
                )
            return ReflectionReranker(generator)
        case "cohere":
            need("cohere", "cohere")
            from openrag_core.reranking.cohere import CohereReranker  # noqa: PLC0415

            return CohereReranker()
        case path_or_name:
            from openrag_core.reranking.cross_encoder import CrossEncoderReranker  # noqa: PLC0415

            return CrossEncoderReranker(path_or_name, device=settings.device)
