"""Every error that this package raises on purpose.

- OpenRAGError
    - ConfigError: a setting is outside its range, two settings contradict each other, or a part
      does not give what it was asked for
    - QuestionError: there is no question to answer, or it does not fit into the model
    - ReflectionError: a reflection token has no usable probability
    - MissingExtraError: a package that this feature needs is not installed
    - CheckpointError: a model checkpoint cannot be loaded
        - WeightsNotInstalledError: the embedded default weights are not on this machine
    - GenerationError: the model could not write
    - DocumentError: a file cannot be turned into passages
    - FilterError: a filter asks for a field or an operator that there is not
    - PassageIndexError: the passage index cannot be used
        - IndexNotFoundError: nothing has been indexed there yet
        - IndexMismatchError: the index was made with another encoder or schema
        - IndexLockedError: another process holds the local index
        - IndexUnreachableError: the Qdrant server does not answer
    - RerankerError: the reranking service refused or did not answer
    - TrainingDataError: questions or rows to train on cannot be used
    - EvaluationError: examples, or a folder of results, cannot be used
    - CriticError: the critic did not answer, or not in the form that was asked for
    - ChatModelError: a chat model that judges or writes questions fails again and again
"""


class OpenRAGError(Exception):
    """Base of the tree; catch it to catch them all."""


class ConfigError(OpenRAGError, ValueError):
    """A setting is outside its range, two contradict each other, or a part gives something else."""


class QuestionError(OpenRAGError, ValueError):
    """There is no question to answer, or it does not fit into the model."""


class ReflectionError(OpenRAGError, ValueError):
    """A reflection token has no usable probability."""


class MissingExtraError(OpenRAGError, ImportError):
    """A package that this feature needs is not installed."""


class CheckpointError(OpenRAGError):
    """A model checkpoint cannot be loaded."""


class WeightsNotInstalledError(CheckpointError):
    """The embedded default weights are not on this machine."""


class GenerationError(OpenRAGError):
    """The model could not write: its numbers are none, or the memory is too small."""


class DocumentError(OpenRAGError):
    """A file cannot be turned into passages."""


class FilterError(OpenRAGError, ValueError):
    """A filter asks for a field or an operator that there is not."""


class PassageIndexError(OpenRAGError):
    """The passage index cannot be used."""


class IndexNotFoundError(PassageIndexError):
    """Nothing has been indexed there yet."""


class IndexMismatchError(PassageIndexError):
    """The index was made with another encoder or schema."""


class IndexLockedError(PassageIndexError):
    """Another process holds the local index."""


class IndexUnreachableError(PassageIndexError):
    """The Qdrant server does not answer."""


class RerankerError(OpenRAGError):
    """The reranking service refused or did not answer."""


class TrainingDataError(OpenRAGError):
    """Questions or rows to train on cannot be used."""


class EvaluationError(OpenRAGError):
    """Examples, or a folder of results, cannot be used."""


class CriticError(OpenRAGError):
    """The critic did not answer, or not in the form that was asked for."""


class ChatModelError(OpenRAGError):
    """A chat model that judges or writes questions fails again and again."""
