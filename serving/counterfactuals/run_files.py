"""The files of a trained run, and whether its weights are still the bytes that were trained."""

from pathlib import Path

from byline.canonical import sha256_hex
from byline.errors import ArtifactError

LINE = "run.json"
LOSSES = "losses.json"
WEIGHTS = "adapter_model.safetensors"
# Of the weights' bytes. Runs of earlier versions have none and pass: a hash written at a later
# reading would vouch for bytes that nobody checked, and to refuse would train older homes anew.
HASH = "adapter_model.sha256"


def unchanged_weights(folder: Path) -> bytes:
    """The bytes of a run's weights. Raises OSError, and ArtifactError where they changed."""
    data = (folder / WEIGHTS).read_bytes()
    recorded = folder / HASH
    if recorded.is_file() and recorded.read_text() != sha256_hex(data):
        raise ArtifactError(
            f"the weights in {folder} changed since they were trained: delete that folder and "
            "start again, and they are trained anew"
        )
    return data
