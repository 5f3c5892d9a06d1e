"""The one exception family: every message states the rule, the value received, and the remedy."""


class SeerNetError(Exception):
    """Base of all errors that a user can act on; stages print it without a traceback."""


class ConfigError(SeerNetError):
    """A key or value in `params.yaml` is wrong."""


class DataError(SeerNetError):
    """The data set is missing, corrupt, or too small for what is asked."""


class ModelError(SeerNetError):
    """A network or a checkpoint cannot be built, loaded or traced."""


class BudgetError(SeerNetError):
    """A budget cannot be met by any policy of the search space."""


class PolicyError(SeerNetError):
    """A policy does not belong to the search space or to the network."""


class TrainingError(SeerNetError):
    """Training failed, for example because the loss is not a number."""


class WorkerError(SeerNetError):
    """A process that measures died, or the cluster of such processes went away.

    Attributes:
        lost: Places of the items that may have been at work then.
    """

    lost: tuple[int, ...] = ()


class ArtifactError(SeerNetError):
    """A file that an earlier stage writes is missing, truncated, or of another version."""


class ExportError(SeerNetError):
    """A network cannot be written as a deployable file, or the file does not do what it should."""
