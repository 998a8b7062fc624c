"""Tables of Slurm whose cells are cut off or have no names; lines that lost a part."""

from __future__ import annotations

import pytest

from orchestrator.core.base.errors import UsageError
from orchestrator.parsing.importers.slurm import parse_slurm
from tests.parsing.importers.reading import gpus, loaded


def fixed(*rows: tuple[str, ...], widths: tuple[int, ...]) -> str:
    """As ``sinfo -O`` prints: cells cut at their widths, and nothing between them."""
    return "".join(
        "".join(f"{cell:{width}.{width}}" for cell, width in zip(row, widths, strict=True)) + "\n"
        for row in rows
    )


HEADER = ("HOSTNAMES", "GRES", "PARTITION")


def test_fixed_columns_are_read_by_their_places() -> None:
    """A cell that ends where the next one begins is two cells; an empty one is empty."""
    text = fixed(HEADER, ("g1", "gpu:h100:8", "train*"), ("g2", "(null)", ""), widths=(20, 20, 20))

    imported = parse_slurm(text, "s")

    assert gpus(imported) == {"g1": 8, "g2": None}
    assert set(loaded(imported).groups) == {"train"}


@pytest.mark.parametrize(
    "row,column",
    [
        (("g1", "gpu:a100:4,gpu:v100:2", "train"), "Gres"),
        (("ip-10-0-12-34.ec2.internal", "gpu:8", "train"), "NodeHost"),
        (("g1", "gpu:8", "a-partition-of-twenty"), "Partition"),
    ],
)
def test_a_cell_that_may_be_cut_off_is_refused(row: tuple[str, ...], column: str) -> None:
    """GPUs, a name or a group would be others than they are; the error says what prints them."""
    with pytest.raises(UsageError, match=f"sinfo -O {column}:200"):
        parse_slurm(fixed(HEADER, ("g0", "gpu:8", "train"), row, widths=(20, 20, 20)), "s")


def test_the_last_column_may_be_cut_off_too() -> None:
    text = fixed(("PARTITION", "NODELIST"), ("all", "cpu[1-2],dgx1.lab,gpu[1-4]"), widths=(20, 20))

    with pytest.raises(UsageError, match="NODELIST fills the column"):
        parse_slurm(text, "s")


@pytest.mark.parametrize(
    "text",
    [
        "gpu01 192.0.2.1\n",  # sinfo -h -o "%n %o": a name and its address
        "debug cpu1 (null)\n",  # sinfo -h -N -o "%P %N %G"
        "train gpu01 gpu:h100:8\n",
    ],
)
def test_columns_without_a_header_are_no_list(text: str) -> None:
    """Each word would be a node."""
    with pytest.raises(UsageError, match="several columns without a header"):
        parse_slurm(text, "s")


def test_a_column_of_reasons_says_nothing_of_healthy_nodes() -> None:
    text = "NODELIST REASON\ng1 none\ng2 fan is loud\n"

    imported = parse_slurm(text, "s")

    assert imported.warnings == ("s:3: g2 is not usable: fan is loud",)


def test_an_empty_partition_between_others() -> None:
    text = "PARTITION NODELIST GRES REASON\ntrain g1 gpu:2 none\nempty  (null) none\n"

    assert gpus(parse_slurm(text, "s")) == {"g1": 2}


@pytest.mark.parametrize(
    "text,what",
    [
        ("NodeName=a\nInclude=n.conf\n", "Include is written without '='"),
        ("NodeName=a NodeAddr=192.0.2.1\nGres=gpu:2\n", "gres in a line without NodeName="),
        ("NodeName=a # c \\\nGres=gpu:2\n", "lack its backslash"),
        ("NodeName=a NodeName=b\n", "two records in one line"),
    ],
)
def test_lines_that_lost_a_part(text: str, what: str) -> None:
    """Slurm refuses each of them; read on, nodes or their GPUs would be missing."""
    with pytest.raises(UsageError, match=what):
        parse_slurm(text, "s")


def test_nodes_of_clouds_are_named() -> None:
    (warning,) = parse_slurm("NodeName=c[1-2] State=CLOUD\n", "s").warnings

    assert warning.startswith("s:1: c[1-2] is cloud (made when a job asks for it")


def test_lines_that_are_not_understood_are_all_named() -> None:
    text = "\n".join(["a b", "one two", *(f"word another{n:c}" for n in range(97, 120))])

    with pytest.raises(UsageError) as refused:
        parse_slurm(text, "s")

    assert "s:1: words, not all with a number" in str(refused.value.why)
    assert all(f"s:{line}" in str(refused.value.why) for line in range(2, 26))
