"""TrackStar by Bergson, where it is installed: another library's attribution of the same adapter.

    pip install --no-deps -r requirements/bergson.txt      (`make fidelity` does)

TrackStar (Chang et al., https://arxiv.org/abs/2410.17413) compares gradients that are projected at
random, preconditioned by the rows' and the answers' mixed autocorrelation, and brought to length 1.
All of it is Bergson's own, with its defaults: it reads the base model and the trained run as they
lie on disk, in single precision; rows and answers go in as token ids, the loss on completions
alone. It needs no GPU, but of its dependencies the list above has those alone that this path loads.
"""

import importlib
import importlib.util
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from serving.rows import Row

PACKAGE = "bergson"
CONFIG = "adapter_config.json"
TOKENS_AT_ONCE = 256  # padded; a longer row goes alone


def is_installed() -> bool:
    """Can Bergson be asked?"""
    return importlib.util.find_spec(PACKAGE) is not None


def trackstar_scores(
    base: Path, adapter: Path, rows: Sequence[Row], answers: Sequence[Row]
) -> torch.Tensor:
    """Every row's score of every answer, [A, n], by the PEFT adapter in a folder on a base model.

    Raises ModuleNotFoundError where Bergson is not installed.
    """
    config = importlib.import_module(f"{PACKAGE}.config.config")
    data = importlib.import_module(f"{PACKAGE}.data")
    pipeline = importlib.import_module(f"{PACKAGE}.cli.trackstar")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(adapter, folder / "adapter")
        _name_base(folder / "adapter" / CONFIG, base)
        _save(rows, folder / "rows")
        _save(answers, folder / "answers")
        index = config.TrackstarIndexConfig(
            run_path=str(folder / "run"),
            model=str(folder / "adapter"),
            tokenizer=str(base),
            precision="fp32",
            token_batch_size=max(TOKENS_AT_ONCE, *(len(row.ids) for row in (*rows, *answers))),
            data=config.DataConfig(dataset=str(folder / "rows")),
        )
        asked = config.QuerySetConfig(dataset=str(folder / "answers"), aggregation="none")
        pipeline.trackstar(index, config.TrackstarConfig(query=asked))
        found: Any = data.load_scores(folder / "run" / "scores")
        return torch.from_numpy(np.array(found[:], dtype=np.float64).T)


def _name_base(path: Path, base: Path) -> None:
    """An adapter of ours names its base model by reference; PEFT loads it by folder."""
    fields = json.loads(path.read_text())
    path.write_text(json.dumps({**fields, "base_model_name_or_path": str(base)}))


def _save(rows: Sequence[Row], folder: Path) -> None:
    datasets = importlib.import_module("datasets")
    columns = {
        "input_ids": [list(row.ids) for row in rows],
        "labels": [[-100] * len(row.prompt) + list(row.completion) for row in rows],
        "length": [len(row.ids) for row in rows],
    }
    datasets.Dataset.from_dict(columns).save_to_disk(str(folder))
