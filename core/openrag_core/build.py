"""Settings -> a ready pipeline: the only place where ports meet their adapters."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import TYPE_CHECKING, Any

from openrag_core._extras import need
from openrag_core.calibration import FILE, CalibratedGate, read_gate
from openrag_core.chat_generator import ChatGenerator
from openrag_core.condenser import MAX_NEW_TOKENS, ChatCondenser
from openrag_core.conversation import ChatModel, Condenser
from openrag_core.errors import ConfigError
from openrag_core.gate import Gate
from openrag_core.pipeline import OpenRAG
from openrag_core.ports import ChainRetriever, Generator, Reranker, Retriever
from openrag_core.search import SearchOptions
from openrag_core.settings import Settings
from openrag_core.weights import BUNDLED, BUNDLED_ADAPTER, ENCODER, checkpoint_folder

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

__all__ = ["Settings", "build", "find_models", "open_index", "open_store"]

RERANKERS = ("maxsim", "reflection", "cohere", "none")
"""Those that have a name of their own; any other one is a cross-encoder's."""


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
        condenser: Makes questions of a conversation stand alone, instead of the model itself (the
            chat model of a `ChatGenerator`), or of the dense model that it was made from where it
            knows reflection tokens.

    Raises:
        MissingExtraError: A part needs a package that is not installed.
        OpenRAGError: A part cannot be made; the message says why.
    """
    settings = _settings(settings)
    if retriever is not None:
        _check_search(settings, retriever)
    if generator is None:
        need("model", "torch", "transformers")
    if retriever is None and generator is None:
        find_models(settings)
    gate = _gate(settings)  # before anything that takes long
    retriever = open_index(settings) if retriever is None else retriever
    if generator is None:
        generator = own = _generator(settings)
        condenser = _condenser(settings, own) if condenser is None else condenser
    elif condenser is None and isinstance(generator, ChatGenerator):
        condenser = ChatCondenser(generator.chat)
    ranks = settings.hops not in {1, "auto"} and isinstance(retriever, ChainRetriever)
    if reranker is None and not (ranks and settings.reranker == Settings().reranker):
        reranker = _reranker(settings, retriever, generator)
    if settings.hops != 1 and not isinstance(retriever, ChainRetriever):
        from openrag_core.retrieval.multihop import MultihopRetriever  # noqa: PLC0415

        retriever = MultihopRetriever(retriever, reranker=reranker, beam_width=settings.beam_width)
    return OpenRAG(
        generator=generator,
        retriever=retriever,
        reranker=reranker,
        gate=gate,
        evidence=settings.evidence,
        hops=settings.hops,
        top_k=settings.top_k,
        fetch_k=max(settings.fetch_k, settings.top_k),
        weights=settings.weights,
        min_relevance=settings.min_relevance,
        min_support=settings.min_support,
        condenser=condenser,
        speculative=settings.speculative,
    )


def check_pipeline(rag: object) -> OpenRAG:
    """The pipeline that a face was given.

    Raises:
        ConfigError: It is none.
    """
    if isinstance(rag, OpenRAG):
        return rag
    raise ConfigError(
        f"expected a pipeline, such as openrag_core.build.build() makes; got {type(rag).__name__}"
    )


def find_models(settings: Settings) -> None:
    """Find every model that the settings name, before any of them is loaded.

    Those on a model hub are fetched. `build` does so where it makes all parts itself; where an
    index is opened for it, call this before.

    Raises:
        CheckpointError: One is no folder here, and no hub gave it.
    """
    for named in (settings.model, settings.base, settings.encoder, settings.splade):
        if named is not None and named != BUNDLED:
            checkpoint_folder(named)
    for name in _reranker_names(settings):
        if name not in RERANKERS:
            checkpoint_folder(name, what="reranker", otherwise=" or ".join(RERANKERS))


def _check_search(settings: Settings, retriever: Retriever) -> None:
    """Refuse filters and tenants that the given retriever would never hear of.

    Raises:
        ConfigError: There are some.
    """
    for name, own in (("search", "options"), ("tenant", "tenant")):
        wanted, given = getattr(settings, name), getattr(retriever, own, None)
        if wanted not in (None, SearchOptions()) and wanted != given:
            raise ConfigError(
                f"{name}={wanted!r} would be lost: the retriever that was given searches in its "
                f"own way. Give {name} to it, such as by open_index(settings)"
            )


def _gate(settings: Settings) -> Gate | CalibratedGate:
    if not settings.calibrated:
        return Gate.of(settings.gate, settings.threshold)
    bundled = settings.model == BUNDLED
    return read_gate(
        settings.calibration
        or (BUNDLED_ADAPTER if bundled else checkpoint_folder(settings.model)) / FILE,
        min_accuracy=settings.min_accuracy,
        max_retrieval_rate=settings.max_retrieval_rate,
    )


def _generator(settings: Settings) -> TransformersGenerator:
    from openrag_core.model import TransformersGenerator, load  # noqa: PLC0415

    model, tokenizer = load(settings.model, base=settings.base, **_loading(settings))
    return TransformersGenerator(
        model,
        tokenizer,
        max_new_tokens=settings.max_new_tokens,
        max_batch_tokens=settings.max_batch_tokens,
        instruction=settings.instruction,
    )


def _loading(settings: Settings) -> dict[str, Any]:
    return {
        "dtype": settings.dtype,
        "device": settings.device,
        "device_map": settings.device_map,
        "load_in_4bit": settings.load_in_4bit,
    }


def _condenser(settings: Settings, generator: TransformersGenerator) -> Condenser:
    """The model itself, or the dense one that it was made from, which was trained to chat."""
    from openrag_core.model import BaseChat, TransformersChat  # noqa: PLC0415
    from openrag_core.model.checkpoints.bundled import has_bundled_base  # noqa: PLC0415

    chat: ChatModel = TransformersChat(generator, max_new_tokens=MAX_NEW_TOKENS)
    if generator.reflection_trained:
        chat = BaseChat(
            settings.model,
            base=settings.base,
            max_new_tokens=MAX_NEW_TOKENS,
            max_batch_tokens=settings.max_batch_tokens,
            **_loading(settings),
        )
    return ChatCondenser(chat, cautious=has_bundled_base(generator.model))  # which is small


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
        encoder = _dense(settings) if encoder is None else encoder
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


def _chunker(settings: Settings, encoder: DenseEncoder, made: Mapping[str, Any]) -> Chunker:
    from openrag_core.retrieval.chunking import (  # noqa: PLC0415
        CHUNK_OVERLAP,
        CHUNK_SIZE,
        Chunker,
    )

    size, overlap = settings.chunk_size, settings.chunk_overlap
    inner = getattr(encoder, "encoder", encoder)  # in a cache
    most = getattr(inner, "max_tokens", None) or inf
    if size is not None and size > most and not made:
        raise ConfigError(
            f"chunk_size={size}, and the encoder {encoder.name} reads {most} tokens: what stands "
            "after them would not be found by meaning. Give at most that, or another encoder"
        )
    return Chunker(
        encoder.tokenizer,
        size=made.get("chunk_size", min(CHUNK_SIZE, most)) if size is None else size,
        overlap=made.get("chunk_overlap", CHUNK_OVERLAP) if overlap is None else overlap,
    )


def _reranker(settings: Settings, retriever: Retriever, generator: Generator) -> Reranker | None:
    names = _reranker_names(settings)
    if names == ["none"]:
        return None
    made = [_one_reranker(name, settings, retriever, generator) for name in names]
    if len(made) == 1:
        return made[0]
    from openrag_core.reranking.mixture import MixtureReranker  # noqa: PLC0415

    return MixtureReranker([(one, 1.0) for one in made])


def _reranker_names(settings: Settings) -> list[str]:
    return [name.strip() for name in str(settings.reranker).split("+")]


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
