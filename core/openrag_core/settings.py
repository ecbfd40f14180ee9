"""Everything that a pipeline is made from, with a sentence for each; the defaults work offline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral
from os import PathLike
from os.path import expanduser
from pathlib import Path
from typing import Any, Literal

from openrag_core.calibration import check_target
from openrag_core.checks import check_types
from openrag_core.errors import ConfigError
from openrag_core.gate import Gate
from openrag_core.records import EvidenceMode, GateMode, Hops, check_evidence, check_hops
from openrag_core.reflection import ScoreWeights, check_weights
from openrag_core.search import SearchOptions
from openrag_core.verdict import Minima
from openrag_core.weights import BUNDLED

Dtype = Literal["float32", "bfloat16", "float16", "auto"]
"""Of a generator's weights; "auto" is that of its files."""
_AT_LEAST_ONE = (
    "max_new_tokens",
    "max_batch_tokens",
    "qdrant_timeout",
    "beam_width",
    "top_k",
    "fetch_k",
    "qdrant_grpc_port",
    "shard_number",
    "replication_factor",
    "write_consistency_factor",
)
_PATHS = ("index", "encoder_cache", "calibration")
_MODELS = ("model", "base", "encoder", "splade", "reranker")
_NAMES = ("qdrant_url", "collection", "tenant", "device", "device_map", "language")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that a pipeline is made from; the defaults work offline.

    A path or the folder of a model may begin with "~", the home folder.

    Raises:
        ConfigError: A value is of another type or outside its range. What only one part knows, such
            as the length of pieces, is checked when that is made: before anything large is loaded.
    """

    model: str = BUNDLED
    """Generator: "bundled", a checkpoint folder, or a name on a model hub."""
    base: str | None = None
    """Dense model that an adapter-only checkpoint belongs to, if it was moved."""
    dtype: Dtype | None = None
    """Of the generator's weights; by default bfloat16 where the device has it."""
    device: str | None = None
    """Of the generator and of encoders and rerankers that are not bundled, such as "cpu" or "cuda";
    by default the GPU where there is one."""
    device_map: str | Mapping[str, Any] | None = None
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
    encoder_backend: Literal["torch", "openvino"] = "torch"
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
    threshold: float | None = None
    """Of "f_ret", "f_minp" and "f_meanp", in [0, 1]; by default 0.5."""
    min_accuracy: float | None = None
    """In place of gate and threshold: how often answers shall be right; see `CalibratedGate`."""
    max_retrieval_rate: float | None = None
    """In place of gate and threshold: how often passages may be looked up."""
    calibration: Path | None = None
    """The fitted gate that these two need; by default gate.json in the checkpoint's folder."""
    speculative: bool | None = None
    """Whether to retrieve while the gate decides; by default for indexes in this process."""
    weights: ScoreWeights | None = None
    """Of the parts of a candidate's score; see `OpenRAG.weights`."""
    evidence: EvidenceMode = "each"
    """"each": one answer per passage; "joint": one answer from all of them together."""
    hops: Hops = 1
    """Passages in a chain that an answer is written from, or "auto"; see `OpenRAG.hops`."""
    beam_width: int = 8
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
        self._check_paths()
        self._check_names()
        check_hops(self.hops)
        Gate.of(self.gate, self.threshold)
        self._check_target()
        check_evidence(self.evidence)
        check_weights(self.weights)
        self._check_numbers()
        check_types(self)

    def _check_paths(self) -> None:
        for name in _PATHS:
            value = getattr(self, name)
            if isinstance(value, str | PathLike) and str(value).strip():
                object.__setattr__(self, name, Path(expanduser(value)))  # a string will do
            elif value is not None or name == "index":
                raise ConfigError(f"{name} must be a path, got {value!r}")

    def _check_names(self) -> None:
        for name in _MODELS:
            value = getattr(self, name)
            if value is None and name in {"base", "splade"}:
                continue
            parts = str(value).split("+") if name == "reranker" else [str(value)]
            if not isinstance(value, str | PathLike) or not all(map(str.strip, parts)):
                raise ConfigError(f"{name} must be a name or a folder, got {value!r}")
            parts = [expanduser(part.strip()) for part in parts]
            object.__setattr__(self, name, "+".join(parts))  # a path will do
        if self.device is not None:
            object.__setattr__(self, "device", str(self.device))  # torch's own will do
        for name in _NAMES:
            if not str(getattr(self, name)).strip():
                raise ConfigError(f"{name} must not be empty: name one, or leave it out")

    def _check_numbers(self) -> None:
        for name in _AT_LEAST_ONE:
            value = getattr(self, name)
            if value is not None and (not isinstance(value, Integral) or value < 1):
                raise ConfigError(f"{name} must be a whole number, at least 1; got {value!r}")
        Minima(self.min_relevance or 0.0, self.min_support or 0.0)  # refuses what is none

    def _check_target(self) -> None:
        check_target(self.min_accuracy, self.max_retrieval_rate)
        if self.calibrated and self.gate != "always":
            raise ConfigError(
                f"gate={self.gate!r} and a target (min_accuracy, max_retrieval_rate) contradict "
                "each other: the fitted gate knows its own signal and threshold"
            )
        if self.calibration is not None and not self.calibrated:
            raise ConfigError(
                f"calibration={str(self.calibration)!r} does nothing without a target: give "
                "min_accuracy (such as 0.8) or max_retrieval_rate (such as 0.5) with it"
            )

    @property
    def calibrated(self) -> bool:
        """Whether a target is given in place of a threshold."""
        return self.min_accuracy is not None or self.max_retrieval_rate is not None
