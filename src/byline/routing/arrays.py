"""What a fitted router consists of: numbers only, so that it is stored without a pickle."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class RouterArrays:
    """What a fitted router consists of. The last class is general talk."""

    adapters: tuple[str, ...]
    floor: float
    columns: NDArray[np.float32]  # hashed column x class
    bias: NDArray[np.float32]  # class
    words: NDArray[np.str_]
    word_weights: NDArray[np.float32]  # word x class
