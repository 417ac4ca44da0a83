"""Stages: a job that starts from the weights of another, one job per layer group, and the curve over them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import TINY

from headstart.cli import main
from headstart.compare.comparison import compare_results
from headstart.compare.curve import draw_curve, lines_of
from headstart.compare.sources import find_results
from headstart.config.compose import compose
from headstart.errors import ConfigError, RecordError
from headstart.experiment import run
from headstart.records.schema import RunRecord
from headstart.records.store import find_runs
from headstart.records.sweeps import JobState, read_sweep
from headstart.sweep.expand import Jobs, expand
from headstart.sweep.launch import launch as launch_sweep

HEAD = "# @package _global_\ndefaults:\n  - override /weights: scratch\nsweep:\n"


def write(name: str, body: str) -> None:
    Path("conf/experiment").mkdir(parents=True, exist_ok=True)
    Path(f"conf/experiment/{name}.yaml").write_text(HEAD + body)


def tiny(*words: str) -> list[str]:
    return [*words, *(text for text in TINY if not text.startswith("weights="))]


def launch(jobs: Jobs) -> tuple[Path, list[JobState], dict[str, RunRecord]]:
    launched = launch_sweep(jobs, command=["test"])
    records = {record.id: record for _, record in find_runs([launched.folder])[0]}
    return launched.folder, [launched.states[job.id] for job in launched.sweep.jobs], records


CHAIN = """  list:
    - {name: source, data.classes: [0, 1, 2]}
    - {name: target, data.classes: [5, 6, 7], weights: run, weights.path: "stage:source"}
    - {name: frozen, data.classes: [5, 6, 7], weights: run, weights.path: "stage:source", weights.first_k: 2,
       strategy: freeze_first_k, strategy.k: 2}
  grid:
    seed: [0, 1]
"""


def test_a_chain_of_runs() -> None:
    write("chain", CHAIN)
    jobs = expand(tiny("experiment=chain"))
    assert [(job.name, job.needs) for job in jobs.jobs] == [
        ("source", None), ("source", None), ("target", 0), ("target", 1), ("frozen", 0), ("frozen", 1),
    ]  # fmt: skip
    assert [" ".join(job.varied) for job in jobs.jobs[:3]] == ["source seed=0", "source seed=1", "target seed=0"]
    folder, outcomes, records = launch(jobs)
    assert [outcome.status for outcome in outcomes] == ["completed"] * 6
    source, target, frozen = (records[str(outcomes[i].run)] for i in (1, 3, 5))
    assert target.weights["origin"] == "run"
    assert target.weights["name"] == source.id  # the second names the first
    assert target.seed == source.seed == 1
    weights = {
        r.id: load_file(folder.parents[1] / "runs" / r.id / "checkpoints" / "last.safetensors")
        for r in records.values()
    }
    best = load_file(folder.parents[1] / "runs" / source.id / "checkpoints" / "best.safetensors")
    group = {name: "stem" for name in best if name.startswith(("backbone.conv1", "backbone.bn1"))}
    group |= {name: "block.0" for name in best if name.startswith("backbone.layer1")}
    assert len(group) > 10
    assert all(torch.equal(weights[frozen.id][name], best[name]) for name in group)
    assert not torch.equal(
        weights[frozen.id]["backbone.layer4.0.conv1.weight"], best["backbone.layer4.0.conv1.weight"]
    )
    saved = compose(["weights=run", f"weights.path={folder.parents[1] / 'runs' / source.id}"])
    assert saved.weights.path == target.config["weights"]["path"]  # type: ignore[attr-defined]
    rows = read_sweep(folder).jobs
    ids = [row.id for row in rows]
    assert [row.needs and ids.index(row.needs) for row in rows] == [None, None, 0, 1, 0, 1]
    assert len({row.key for row in rows}) == 6
    assert rows[1].key == source.job_key  # what needs no other job has its record's key already
    _, again, _ = launch(expand(tiny("experiment=chain")))
    assert [state.run for state in again] == [state.run for state in outcomes], "nothing is run twice"


def test_a_stage_that_fails_takes_its_followers_along_and_nothing_else() -> None:
    write(
        "broken",
        """  list:
    - {name: source, optimizer: sgd, optimizer.lr: 1.0e+12, trainer.max_epochs: 2}
    - {name: target, weights: run, weights.path: "stage:source"}
    - {name: alone}
""",
    )
    _, outcomes, _ = launch(expand(tiny("experiment=broken")))
    assert [outcome.status for outcome in outcomes] == ["failed", "failed", "completed"]
    assert outcomes[1].error == "the job whose weights it needs has not completed"
    assert outcomes[1].run is None


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('  list:\n    - {name: a}\n    - {weights: run, weights.path: "stage:aa"}\n', "no job before this one has that name. Did you mean 'a'?"),
        ('  list:\n    - {weights: run, weights.path: "stage:a"}\n    - {name: a}\n', "no job before this one has that name."),
        ('  list:\n    - {name: a}\n    - {name: a, seed: 3}\n    - {weights: run, weights.path: "stage:a"}\n', "several jobs have that name"),
    ],
)  # fmt: skip
def test_a_stage_that_is_not_there(body: str, said: str) -> None:
    write("wrong", body)
    with pytest.raises(ConfigError) as caught:
        expand(tiny("experiment=wrong"))
    assert said in str(caught.value)


def test_a_stage_outside_a_sweep() -> None:
    config = compose(tiny("weights=run", "weights.path='stage:a'"))
    with pytest.raises(ConfigError, match="add -m"):
        run(config)


def test_a_follower_is_checked_before_the_first_job() -> None:
    write("deep", '  list:\n    - {name: a}\n    - {weights: run, weights.path: "stage:a", weights.first_k: 9}\n')
    with pytest.raises(ConfigError, match=r"weights\.first_k=9: the backbone has 5 layer groups"):
        launch_sweep(expand(tiny("experiment=deep")), command=["test"])
    assert not Path("outputs").exists()


LAYERS = """  list:
    - {name: base}
    - {name: copied, weights: run, weights.path: "stage:base", weights.first_k: each_group(), strategy: freeze_first_k, strategy.k: each_group()}
    - {name: random, strategy: freeze_first_k, strategy.k: each_group()}
  grid:
    seed: [0]
  curve: [weights.first_k, strategy.k]
"""


@pytest.mark.slow
def test_one_job_per_layer_group_and_their_curve(capsys: pytest.CaptureFixture[str]) -> None:
    write("layers", LAYERS)
    words = tiny("experiment=layers")
    jobs = expand(words)
    counted = [job for job in jobs.jobs if job.name == "copied"]
    assert [(j.config.weights.first_k, j.config.strategy.k) for j in counted] == [  # type: ignore[attr-defined]
        (k, k) for k in (1, 2, 3, 4, 5)
    ]
    assert {" ".join(job.varied) for job in counted[:1]} == {"copied weights.first_k=1"}
    assert len(jobs.jobs) == 1 + 5 + 5
    assert main(["train", "-m", *words, "data.train_size=40", "data.test_size=40"]) == 0
    shown = capsys.readouterr().out
    (folder,) = Path("outputs/sweeps").iterdir()
    assert f"Curve: {folder.resolve() / 'curve.png'}" in shown or f"Curve: {folder / 'curve.png'}" in shown
    assert (folder / "curve.png").read_bytes().startswith(b"\x89PNG")
    records = [record for _, record in find_runs([folder])[0]]
    comparison = compare_results(find_results([folder])[0])
    lines = lines_of(folder, comparison)
    assert list(lines) == ["copied", "random"]
    assert [point.x for point in lines["random"]] == [1, 2, 3, 4, 5]
    base = {r.seed: r for r in records if r.config["strategy"]["name"] == "full"}
    third = [r for r in records if r.config["weights"].get("first_k") == 3]
    gains = [r.metrics["test/accuracy_micro"] - base[r.seed].metrics["test/accuracy_micro"] for r in third]  # type: ignore[operator]
    assert lines["copied"][2].gain.mean == pytest.approx(sum(gains))
    draw_curve(lines, Path("again.svg"), axis="n", metric="accuracy")
    assert b"copied" in Path("again.svg").read_bytes()
    assert main(["compare", str(folder), "--curve", "mine.pdf"]) == 0
    assert Path("mine.pdf").read_bytes().startswith(b"%PDF")


def test_no_curve_no_picture(capsys: pytest.CaptureFixture[str]) -> None:
    write("plain", "  list:\n    - {seed: 0}\n")
    folder = launch(expand(tiny("experiment=plain")))[0]
    with pytest.raises(RecordError, match="this sweep has no curve"):
        lines_of(folder, compare_results(find_results([folder])[0]))


def test_layer_groups_of_a_backbone_that_has_none() -> None:
    write("none", "  list:\n    - {strategy: freeze_first_k, strategy.k: each_group()}\n")
    with pytest.raises(ConfigError, match="timm has no layer groups for pit_ti_224"):
        expand([*tiny("experiment=none"), "backbone.name=pit_ti_224"])


PAIR = """  list:
    - {{name: a, {first}}}
    - {{name: b, weights: run, weights.path: "stage:a"{second}}}
"""


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (
            "backbone.name: test_vit, data.image_size: 160",
            "",
            "that job's backbone is test_vit, this one's tf_efficientnet_lite0",
        ),
        ("strategy: adapter", "", "that job trains additions beside its backbone (strategy=adapter)"),
        ("strategy: linear_probe", "", "that job's backbone is random and frozen; there is nothing to take over"),
        (
            "head: mlp",
            ", regularizer: [co_tuning]",
            "co_tuning needs that job's head to be linear, with head.pool=auto",
        ),
    ],
)
def test_a_stage_that_cannot_be_started_from(first: str, second: str, said: str) -> None:
    write("pair", PAIR.format(first=first, second=second))
    words = [word for word in tiny("experiment=pair") if not first.startswith(word.partition("=")[0])]
    with pytest.raises(ConfigError) as caught:
        expand([word for word in words if word.partition("=")[0] != "data.image_size"])
    assert said in str(caught.value)
