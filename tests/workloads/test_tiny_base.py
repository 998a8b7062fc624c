"""The small base model that the finetune workload brings along: what it is, and how it is made."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_base_lib.cli import check, loss_of
from tiny_base_lib.recipe import WEIGHTS, Recipe, make

from finetune.model.tiny_base import FOLDER, SUMS, DamagedBase, sums_of, verified_folder
from tests.workloads.conftest import DEADLINE_S

MAX_BYTES = 1_000_000
SHORT = Recipe(steps=2)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(DEADLINE_S),
    pytest.mark.filterwarnings("default"),  # of the libraries, about one another
]


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base after two steps of pre-training."""
    folder = tmp_path_factory.mktemp("short")
    make(folder, SHORT)
    return folder


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The included base, to be changed."""
    return shutil.copytree(FOLDER, tmp_path / "tiny")


def test_what_is_included_is_what_is_listed() -> None:
    assert verified_folder() == FOLDER
    assert sums_of(FOLDER) == (FOLDER / SUMS).read_text()
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < MAX_BYTES


@pytest.mark.parametrize("name", [WEIGHTS, "tokenizer.json"])
def test_a_damaged_file_is_refused_by_name(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(DamagedBase, match=name):
        verified_folder(copy)
    (copy / name).unlink()
    with pytest.raises(DamagedBase, match=name):
        verified_folder(copy)


def test_it_follows_from_the_recipe_and_the_text_of_today(short: Path) -> None:
    """The catalogue, the text or the recipe changed since: `scripts/tiny_base make`. Everything
    but the weights is made again here, and is the same.
    """
    with safe_open(FOLDER / WEIGHTS, framework="pt") as stored:
        assert stored.metadata()["recipe"] == Recipe().digest()
    assert Recipe().digest() != SHORT.digest()
    for file in short.iterdir():
        if file.name != WEIGHTS:
            assert file.read_bytes() == (FOLDER / file.name).read_bytes(), file.name


def test_the_same_recipe_makes_the_same_base(
    short: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path, SHORT)

    assert check(tmp_path, short) == 0
    # The sums of a busy machine's threads may round otherwise; the check says so, with the losses.
    assert re.match("identical|the weights differ in rounding; loss", capsys.readouterr().out)


def test_another_rounding_passes_the_check_and_another_model_does_not(
    copy: Path, short: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = load_file(copy / WEIGHTS)
    torch.manual_seed(0)
    rounded = {k: w * (1 + 1e-3 * torch.randn(w.shape)).to(w.dtype) for k, w in weights.items()}
    save_file(rounded, copy / WEIGHTS, metadata={"format": "pt"})

    assert check(copy, FOLDER) == 0
    assert "differ in rounding" in capsys.readouterr().out
    assert check(short, FOLDER) == 1
    assert loss_of(short) > 2 * loss_of(FOLDER)


def test_another_tokenizer_does_not_pass(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / "tokenizer.json").write_text("{}")

    assert check(copy, FOLDER) == 1
    assert "tokenizer.json" in capsys.readouterr().err
