"""Names that others wrote: a terminal shows them and does not obey them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from headstart.cli import main
from headstart.cli.rank import _show
from headstart.cli.rank_against import show
from headstart.compare.formats import grid
from headstart.compare.sheets import Sheet
from headstart.errors import RecordError
from headstart.transferability.published import read_tables
from headstart.transferability.ranking import Ranked, Ranking

EVIL = "\x1b[31mred\x1b]0;t\x07\u202e\nsecond\tline [/b][red]"
ESCAPED = r"\x1b[31mred\x1b]0;t\x07\u202e\nsecond\tline [/b][red]"


def evil_table(path: Path) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["dataset", "model", f"{EVIL}/accuracy", f"{EVIL}logme", "copy"])
        writer.writerows([EVIL, f"m{i}{EVIL}", i / 9, i, i] for i in range(5))
    return path


@pytest.mark.parametrize("how", ["table", "csv", "json"])
def test_names_command_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str) -> None:
    path = evil_table(tmp_path / "a.csv")
    show(None, [path], metric=f"{EVIL}/accuracy", how=how, plot=tmp_path / "a.svg")
    printed = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\u202e", "\t"} & set(printed)
    if how == "json":
        assert json.loads(printed)["datasets"][0]["dataset"] == EVIL  # data stay what they are
    else:
        assert ESCAPED.partition(" ")[0] in printed  # of which the rest may stand on the next line
        assert not any(line.startswith("second") for line in printed.splitlines())
    if how == "csv":
        rows = list(csv.DictReader(printed.splitlines()))
        assert (rows[0]["dataset"], rows[0]["score"]) == (ESCAPED, f"{ESCAPED}logme")
    assert not {"\x1b", "\x07"} & set((tmp_path / "a.svg").read_text())


def test_a_measured_column_is_no_markup() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(grid(Sheet("", ("a [/b]", "[red]x"), (("1", "2"),))))
    assert "a [/b]" in (text := console.export_text())
    assert "[red]x" in text


def test_a_mistake_is_one_line_whatever_the_names_hold(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('model,accuracy,logme\n"a\nb\x1b[1m",0.5,1\n"a\nb\x1b[1m",0.6,2\n')
    with pytest.raises(RecordError) as error:
        read_tables(path)
    assert str(error.value).endswith(
        r"lines 2 and 4 are the same model on the same data set (a\nb\x1b[1m, data); "
        "a column `seed` tells repeats apart."
    )


def test_a_ranking_is_shown_without_commands_of_its_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = Ranked(
        name=EVIL,
        overrides=(),
        backbone="test_resnet",
        library="timm",
        weights={},
        parameters=1,
        images_per_second=1.0,
        memory=1,
        seconds={},
        scores={"knn": 0.5, "leep": None},
        notes={"leep": EVIL},
        distance={"origin": EVIL, "note": EVIL},
        warning=f"{EVIL} may hurt",
    )
    _show(
        Ranking("r", "", (), "multiclass", EVIL, "f", 9, 10, "knn", "number of parameters", (one,)),
        tmp_path,
        how="table",
        plot=None,
    )
    printed = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\u202e", "\t"} & set(printed)
    assert printed.startswith(f"{ESCAPED}: 9 training images")
    for said in (f"no leep for {ESCAPED}: {ESCAPED}\n", f"source of {ESCAPED}: {ESCAPED}: {ESCAPED}\n"):
        assert said in printed
    assert f"warning: {ESCAPED} may hurt\n" in printed


def test_what_was_left_out_is_said_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    file = "/no/\x1b[1m\nfile"
    entry = r"""'test_resnet weights=file "weights.path=\'FILE\'"'""".replace("FILE", file)
    options = ["data=digits", "data.image_size=32", "data.train_size=120", "trainer.threads=1", "weights=scratch"]
    main(["rank", *options, "--scores", "centroids", "--bootstrap", "0", f"backbones=[test_vit,{entry}]"])
    said = capsys.readouterr().err
    assert "\x1b" not in said
    (line,) = (line for line in said.splitlines() if line.startswith("left out: test_resnet"))
    assert line.endswith(r"/no/\x1b[1m\nfile: there is no such file.")
