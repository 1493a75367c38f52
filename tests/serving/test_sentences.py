"""Sentence embeddings: the mean over a text's own tokens, whatever it is padded with."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel

from serving.fidelity import sentences
from serving.fidelity.sentences import embeddings, packaged_model
from tests.serving.tiny import VOCABULARY, write_model_folder


@pytest.fixture
def packaged(tmp_path: Path) -> Path:
    """A package's zip file with a tiny random model."""
    torch.manual_seed(2)
    config = BertConfig(
        vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, pad_token_id=0,
    )  # fmt: skip
    make: Any = BertModel
    folder = tmp_path / "model"
    write_model_folder(folder, make(config))
    settings = folder / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "pad_token": "unknown"}))
    path = tmp_path / "model.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
    return path


def test_an_embedding_does_not_depend_on_what_it_is_padded_with(packaged: Path) -> None:
    texts = ["w1 w2", "w3 w4 w5 w6 w7 w8", "w1 w2"]
    found = embeddings(packaged, texts)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(found[0], found[2])
    torch.testing.assert_close(found[:1], embeddings(packaged, texts[:1]), rtol=1e-4, atol=1e-5)
    assert (found[0] @ found[1]).item() < 0.999


def test_a_model_that_is_not_installed_is_none(
    packaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sentences, "PACKAGE", "no_such_package_anywhere")
    assert packaged_model() is None
    monkeypatch.setattr(sentences, "PACKAGE", "a_package_without_a_model")
    package = packaged.parent / "a_package_without_a_model"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(packaged.parent))
    assert packaged_model() is None
    packaged.rename(package / "model.zip")
    assert packaged_model() == package / "model.zip"
