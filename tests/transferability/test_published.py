"""Tables of scores: eight published ones, whose printed correlations do not all follow from their rows."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from headstart.cli.rank_against import show
from headstart.errors import ConfigError, RecordError
from headstart.transferability.against import Against, against_tables
from headstart.transferability.published import read_tables

TABLES = Path(__file__).parent / "tables" / "model_ranking.csv"
PRINTED = Path(__file__).parent / "tables" / "model_ranking_printed.csv"
WRONG = ("Aircraft", "OxfordIIITPets")
"""Data sets none of whose printed correlations follow from their rows."""
SCORES = ("hscore", "leep", "logme", "nce")


@pytest.fixture(scope="module")
def found() -> Against:
    return against_tables([TABLES], metric=None)


def test_printed_correlations_that_follow_from_their_rows(found: Against) -> None:
    with PRINTED.open(newline="") as file:
        printed = {(row["dataset"], row["statistic"]): row for row in csv.DictReader(file)}
    differences = {}
    for data in found.datasets:
        for one in data.agreements:
            if one.score in SCORES:
                tau = float(printed[data.dataset, "Weighted Tau"][one.score])
                pearson = float(printed[data.dataset, "Pearson Corr"][one.score])
                differences[data.dataset, one.score] = (abs(one.tau.value - tau), abs(one.pearson.value - pearson))  # type: ignore[operator]
    assert len(differences) == 32
    wrong = {key for key in differences if key[0] in WRONG} | {("DTD", "nce")}
    assert min(differences[key][0] for key in wrong) > 0.06
    assert min(differences[key][1] for key in wrong) > 0.1
    # LogME is printed to three digits: ties that the authors' numbers had not
    rounded = {key for key in differences if key[1] == "logme"} - wrong
    assert max(differences[key][0] for key in rounded) < 0.025
    assert max(differences[key][1] for key in rounded) < 0.01
    right = set(differences) - wrong - rounded
    assert len(right) == 17
    assert max(differences[key][0] for key in right) < 0.0006
    assert max(differences[key][1] for key in right) < 0.0025


def test_the_static_baseline_beats_every_score(found: Against) -> None:
    static = [round(one.tau.value, 2) for data in found.datasets for one in data.agreements if one.is_static]  # type: ignore[arg-type]
    by_name = dict(zip([data.dataset for data in found.datasets], static, strict=True))
    assert by_name == {
        "Aircraft": 0.63,
        "Caltech101": 0.82,
        "CIFAR10": 0.71,
        "CIFAR100": 0.72,
        "DTD": 0.79,
        "OxfordIIITPets": 0.68,
        "StanfordCars": 0.83,
        "SUN397": 0.81,
    }
    means = {one.score: round(one.tau.value, 3) for one in found.means}  # type: ignore[arg-type]
    assert means == {"hscore": 0.650, "leep": 0.419, "logme": 0.670, "nce": 0.687, "static": 0.749}
    assert list(means)[-1] == "static"
    gaps = {one.score: one.over_static for one in found.means}
    assert gaps["static"] is None
    assert min(one.regret.low for one in found.means) == 0  # type: ignore[type-var]
    assert gaps["leep"].high < 0  # type: ignore[union-attr, operator]
    assert gaps["nce"].value == pytest.approx(0.687 - 0.749, abs=0.001)  # type: ignore[union-attr]


def test_a_copied_column_and_impossible_values_are_named(found: Against) -> None:
    noted = {data.dataset: data.notes for data in found.datasets if data.notes}
    assert list(noted) == ["DTD"]
    assert any("nce is the same as logme in every row" in note for note in noted["DTD"])
    assert any("nce is above zero in 10 of 10 rows" in note for note in noted["DTD"])


def test_it_is_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert show(None, [TABLES], metric=None, how="table", plot=tmp_path / "a.png") == 0
    text = capsys.readouterr().out
    assert text.count("static*") == 9
    assert "No score is better than static beyond doubt: the best, nce" in text
    assert "Worse than static: leep." in text
    assert "nce is the same as logme" in text
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"


def test_plain_data_stands_alone(found: Against, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show(None, [TABLES], metric=None, how="json", plot=None)
    plain = json.loads(capsys.readouterr().out)
    assert [one["score"] for one in plain["mean"]] == ["hscore", "leep", "logme", "nce", "static"]
    assert plain["datasets"][0]["candidates"][1]["name"] == "Inception V3"
    show(None, [write(tmp_path / "a.csv", ONE.format(metric="accuracy"))], metric=None, how="csv", plot=None)
    assert list(csv.DictReader(capsys.readouterr().out.splitlines()))[1]["score"] == "static"
    rows = found.flat_rows()
    assert len(rows) == 8 * 5 + 5
    assert rows[-1]["tau"] == pytest.approx(0.749, abs=0.001)


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


ONE = "model,{metric},parameters,logme\n" + "".join(
    f"m{i},{value},{i + 1}e6,{score}\n"
    for i, (value, score) in enumerate([(0.5, 1), (0.6, 3), (0.7, 2), (0.8, 5), (0.9, 4)])
)


def test_one_set_is_measured_against_the_number_of_parameters(tmp_path: Path) -> None:
    found = against_tables([write(tmp_path / "a.csv", ONE.format(metric="accuracy"))], metric=None)
    assert found.static == "number of parameters"
    assert [one.score for one in found.datasets[0].agreements] == ["logme", "static"]
    assert found.datasets[0].agreements[1].tau.value == pytest.approx(1)
    assert found.means == ()


@pytest.mark.filterwarnings("error")
def test_the_largest_numbers_are_shown_drawn_and_valid_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "".join(f"{of},m{i},{i * 0.3e308},{i},x\n" for of in "ab" for i in range(6))
    path = write(tmp_path / "a.csv", f"dataset,model,accuracy,logme,kind\n{rows}")
    show(None, [path], metric=None, how="table", plot=tmp_path / "a.png")
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 180
    show(None, [path], metric=None, how="json", plot=None)
    plain = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name))
    assert plain["datasets"][0]["agreement"][0]["over_static"]["value"] == 0  # both are right
    turned = write(
        tmp_path / "b.csv", f"dataset,model,accuracy,logme,kind\n{rows}".replace("1.5e+308", "-1.5e+308")
    )
    show(None, [turned], metric=None, how="json", plot=None)
    assert json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name))


def test_a_set_without_any_baseline_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = ONE.format(metric="accuracy").replace("parameters", "steps")
    show(None, [write(tmp_path / "a.csv", text)], metric=None, how="table", plot=None)
    text = capsys.readouterr().out
    assert "static*" in text
    assert "there is none (one data set" in text
    assert "Highest tau: logme; the static baseline to hold it against is not there." in text


@pytest.mark.parametrize(
    "metric",
    [
        "log_loss",
        "test/rmse",
        "finetuned_mae",
        "test/nll",
        "test/error_rate",
        "test/top5_err",
        "test/Brier",
        "top1_error",
    ],
)
def test_less_may_be_better(tmp_path: Path, metric: str) -> None:
    path = write(tmp_path / "a.csv", ONE.format(metric=metric))
    found = against_tables([path], metric="top1_error" if metric == "top1_error" else None)
    assert found.lower_is_better
    assert found.datasets[0].agreements[1].tau.value == pytest.approx(-1)
    assert found.notes == ()


def test_a_name_that_does_not_tell_the_direction_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "a.csv", ONE.format(metric="test/goodness"))
    with pytest.raises(RecordError, match=r"test/goodness is no metric that is known here; name what .* --metric"):
        against_tables([path], metric=None)
    for how in ("table", "json", "csv"):
        show(None, [path], metric="test/goodness", how=how, plot=None)
        printed = capsys.readouterr()
        said = printed.err if how == "csv" else printed.out
        assert "test/goodness is no metric that is known here: higher is taken as better." in said
    assert against_tables([path], metric="test/goodness").datasets[0].agreements[1].tau.value == pytest.approx(1)


def test_repeats_are_averaged_and_counted(tmp_path: Path) -> None:
    rows = "model,seed,test/accuracy_micro,logme\na,0,0.5,1\na,1,0.7,1\nb,0,0.8,2\n"
    (table,) = read_tables(write(tmp_path / "a.csv", rows)).tables
    assert [(one.name, one.mean, len(one.repeats)) for one in table.measured] == [("a", 0.6, 2), ("b", 0.8, 1)]


def test_the_measured_column(tmp_path: Path) -> None:
    rows = "model,kind,score,val/accuracy_micro,finetuned_accuracy,test/f1_macro\na,x,1,.1,.2,.3\nb,y,2,.1,.2,.3\n"
    path = write(tmp_path / "a.csv", rows)
    assert read_tables(path).metric == "finetuned_accuracy"
    assert read_tables(path, metric="test/f1_macro").metric == "test/f1_macro"
    # a metric is no score, nor are words
    assert list(read_tables(path).tables[0].scores) == ["score"]


def test_blank_lines_are_passed_over(tmp_path: Path) -> None:
    text = "\n \nmodel,accuracy,logme\na,.5,1\n\nb,.6,2\n  \nc,.7,3\n , ,\n"
    (table,) = read_tables(write(tmp_path / "a.csv", text)).tables
    assert [(one.name, one.mean) for one in table.measured] == [("a", 0.5), ("b", 0.6), ("c", 0.7)]


def test_other_metrics_and_budgets_are_no_scores(tmp_path: Path) -> None:
    columns = (
        "model,finetuned_accuracy,finetuned_log_loss,learning_rate,seconds,images,logme,knn_accuracy,logme_low"
    )
    rows = f"{columns},place\n" + "".join(f"m{i},0.{i},1.{i},{i},{i},{i},{i},{i},{i},{i}\n" for i in range(1, 6))
    path = write(tmp_path / "a.csv", rows)
    assert list(read_tables(path).tables[0].scores) == ["logme", "knn_accuracy"]
    plain = write(tmp_path / "b.csv", rows.replace("finetuned_", ""))
    assert list(read_tables(plain).tables[0].scores) == ["logme", "knn_accuracy"]


def test_the_rows_of_a_ranking_hold_its_scores_alone(tmp_path: Path) -> None:
    from headstart.transferability.listing import csv_of
    from headstart.transferability.ranking import Ranked, Ranking

    candidates = tuple(
        Ranked(
            f"m{i}",
            (),
            "resnet18",
            "timm",
            {},
            i,
            1.0,
            1,
            {},
            {"knn": i / 9, "static": i},
            {"knn": (0, 1)},
            {"knn": (1, 2)},
        )
        for i in range(1, 4)
    )
    text = csv_of(Ranking("r", "", (), "multiclass", "digits", "f", 9, 10, "knn", "parameters", candidates))
    first, *rows = text.splitlines()
    path = write(
        tmp_path / "a.csv", "\n".join([f"{first},accuracy", *(f"{row},0.{i}" for i, row in enumerate(rows))])
    )
    assert list(read_tables(path).tables[0].scores) == ["knn", "static"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model,logme\na,1\n", "name it by --metric. There are model, logme."),
        ("name,accuracy,logme\na,1,1\n", "has no column `model`; there are name, accuracy, logme."),
        ("model,accuracy\na,1\n", "has no column of scores beside accuracy"),
        ("model,accuracy,logme\na,1,1\nb,good,1\n", "line 3: accuracy is 'good', not a finite number."),
        ("model,accuracy,logme\na,1,1\na,2,1\n", "lines 2 and 3 are the same model on the same data set (a, data)"),
        ("model,seed,accuracy,logme\na,0,1,1\na,1,2,2\n", "line 3: logme of a is not what its earlier rows say."),
        ("model,accuracy,logme\na,1\n", "line 2 has not 3 cells"),
        ("model,accuracy,logme\n", "has no rows"),
        ("model,accuracy,logme\n  \n", "has no rows"),
        ('model,accuracy,logme\n\n  \n,,\n"a",1,1\n"b ",1,"\n2"\nc,good,1\n', "line 8: accuracy is 'good'"),
        ("model,accuracy,logme\na,1,1\n\nb,1\n", "line 4 has not 3 cells"),
        ("dataset,model,accuracy,logme\na,m,1,1\nA,n,1,1\n", "data sets a and A are the same by name"),
        ("dataset,model,accuracy,logme\nc10,m,1,1\nC-10,n,1,1\n", "data sets c10 and C-10 are the same by name"),
        ("dataset,model,accuracy,logme\n,m,1,1\ndata,n,1,1\n", "data sets data and data are the same by name"),
        (
            "dataset,model,accuracy,logme\na,m,1,\na,n,2,\nb,m,1,\nb,n,2,\nb,x,,3\n",
            "no row with a value of accuracy has a score (logme).",
        ),
        ("model,accuracy,static\na,1,1\n", "no row with a value of accuracy has a score (static)."),
        ("model,model,accuracy\na,a,1\n", "must name every column, each once"),
    ],
)
def test_what_cannot_be_read_is_said_in_a_line(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path / "a.csv", text)
    with pytest.raises(RecordError) as error:
        read_tables(path)
    assert str(error.value).startswith(f"{path}: ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_mistakes_of_the_command_line(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="there is no such file"):
        show(None, [tmp_path / "no.csv"], metric=None, how="table", plot=None)
    with pytest.raises(RecordError, match="Did you mean 'finetuned_accuracy'"):
        show(None, [TABLES], metric="finetuned_acuracy", how="table", plot=None)
    with pytest.raises(RecordError, match="--metric model: that column holds no numbers"):
        show(None, [TABLES], metric="model", how="table", plot=None)
    with pytest.raises(RecordError, match="say which ranking by --ranking"):
        show(None, [tmp_path], metric=None, how="table", plot=None)
    with pytest.raises(RecordError, match="--elsewhere"):
        show(None, [TABLES], metric=None, how="table", plot=None, elsewhere=[TABLES])
    with pytest.raises(ConfigError, match="a picture must end in"):
        show(None, [TABLES], metric=None, how="table", plot=tmp_path / "a.txt")
    with pytest.raises(RecordError, match="data set Aircraft is in several files"):
        show(None, [TABLES, TABLES], metric=None, how="table", plot=None)
    other = write(tmp_path / "b.csv", "dataset,model,finetuned_accuracy,logme\nair-craft,m,1,1\n")
    with pytest.raises(RecordError, match="data set Aircraft or air-craft is in several files"):
        show(None, [TABLES, other], metric=None, how="table", plot=None)
