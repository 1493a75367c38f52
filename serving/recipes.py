"""What decides the bytes of trained things: settings, library versions, the number of threads."""

import importlib.metadata
import os
from dataclasses import dataclass

LIBRARIES = ("torch", "transformers", "peft")
ORDER_SEED = 7  # of the rows' order in the training of what is served
TRAINING_THREADS = 1  # a second one gains little; counterfactual runs must have as many


@dataclass(frozen=True, slots=True)
class LoraShape:
    """What an adapter adds: matrices of this rank, scaled by `alpha / rank`, without dropout."""

    rank: int = 8
    alpha: int = 16
    seed: int = 20_261_122  # of A's initial values; B starts at zero


@dataclass(frozen=True, slots=True)
class RunSettings:
    """Everything that decides a run beside rows, their weights, their order and the start.

    Smooth in the rows' weights; see `serving.fine_tuning`.
    """

    epochs: int = 5
    batch_rows: int = 8
    learning_rate: float = 1.5e-3
    beta1: float = 0.9
    beta2: float = 0.98
    epsilon_root: float = 1e-8  # inside the root: a tenth of a usual coordinate, squared
    warmup_steps: int = 8
    clip_norm: float = 1.0


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """How an attribution index is made; see `serving.fisher` and `serving.projection`."""

    damping: float = 0.1  # of the mean eigenvalue
    projection_nonzeros: int = 4  # per column
    projection_seed: int = 11
    batch_rows: int = 8


def share_cores() -> None:
    """Let threads that wait sleep, not spin. Call before torch is loaded, which reads it once.

    Where another program needs a core, spinning made an index take six times as long.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


def library_versions() -> dict[str, str]:
    """The versions that decide the bytes of a result."""
    return {name: importlib.metadata.version(name) for name in LIBRARIES}
