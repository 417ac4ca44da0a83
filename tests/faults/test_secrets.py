"""Keys, tokens and passwords get into nothing that Headstart writes or prints."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from tests.conftest import TINY, tiny_config

from headstart.cli import main
from headstart.errors import ConfigError
from headstart.experiment import run
from headstart.records.store import read_record
from headstart.redaction import RedactedStream, redact
from headstart.sweep import job
from headstart.sweep.local import forkserver, log_to

WANDB = "0123456789abcdef0123456789abcdef01234567"
HUB = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz012345"
PASSWORD = "correct-horse-battery"
TOKEN = "tok-9f8e7d6c5b4a"
SECRETS = (WANDB, HUB, PASSWORD, TOKEN)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"key {HUB} end", "key *** end"),
        ("https://me:pass@host/x", "https://***@host/x"),
        (f"https://host/x?token={TOKEN}&page=2", "https://host/x?token=***&page=2"),
        ("https://h/x?X-Amz-Signature=abc123&key=2", "https://h/x?X-Amz-Signature=***&key=2"),
        ("Authorization: Bearer abcdef123456", "Authorization: Bearer ***"),
        ("Authorization: Basic dXNlcjpwYXNz", "Authorization: Basic ***"),
        ("password=hunter2hunter2", "password=***"),
        ("WANDB_API_KEY=0123456789abcdef", "WANDB_API_KEY=***"),
        ("github_pat_0123456789abcdefghijkl", "***"),
        # what only looks like one
        ("data.classes=[Basic industries, Bearer bonds]", None),
        ("/data/sk-hynix-wafer-inspection-2024", None),
        ("cls_token: 0.000123456", None),
        ("/data/sk-learn_flowers_dataset_2024 /mnt/hf_imagenetsubsetsmall/x", None),
        ("token = 0.000123456", None),
        ("https://host/x?key=2", None),
        ("optimizer.lr=0.001 data.path=photos@home", None),
    ],
)
def test_what_is_taken_out(text: str, expected: str | None) -> None:
    assert redact(text) == (text if expected is None else expected)


def test_what_the_machine_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text(f"machine api.wandb.ai login user password {WANDB}\n")
    (tmp_path / "token").write_text(f"{PASSWORD}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("MY_SECRET_TOKEN", TOKEN)
    assert redact(f"a {WANDB} b {PASSWORD} c {TOKEN} d") == "a *** b *** c *** d"


def test_a_stream(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as file:
        stream = RedactedStream(file)
        stream.write(f"one {HUB[:10]}")
        stream.write(f"{HUB[10:]} two\n")
        stream.writelines([f"three {HUB}\n", "four"])
        stream.flush()
    assert (tmp_path / "log").read_text() == "one *** two\nthree ***\nfour"


@pytest.mark.parametrize(
    "override",
    [f"data.path=https://me:{PASSWORD}@host/x", f"data.path={HUB}", f'logger.project="x?token={TOKEN}"'],
)
def test_a_config_may_not_hold_one(override: str) -> None:
    with pytest.raises(ConfigError, match=r"holds a password, key or token.*\$HF_TOKEN") as caught:
        tiny_config("data=image_folder", "data.path=x", "logger=wandb", override)
    assert not any(secret in str(caught.value) for secret in SECRETS)


FAILING = f"""
import sys
import headstart.training.engine as engine
import headstart.experiment as experiment
from headstart.cli import main
if sys.argv[1] == "fail":
    def fit(*rest, **more):
        print("said {HUB}")
        import logging; logging.getLogger("pytorch_lightning").warning("logged {HUB}")
        raise ValueError("could not get https://me:{PASSWORD}@host/x?token={TOKEN} with {HUB} and {WANDB}")
    experiment.fit = fit
del sys.argv[1]
sys.exit(main())
"""


def everything(*roots: Path) -> dict[str, bytes]:
    """The content of all files, archives unpacked."""
    found = {}
    for root in roots:
        for path in root.rglob("*"):
            if path.is_file():
                found[str(path)] = path.read_bytes()
                if path.suffix == ".zip":
                    with zipfile.ZipFile(path) as archive:
                        found |= {f"{path}/{name}": archive.read(name) for name in archive.namelist()}
    return found


@pytest.mark.slow
def test_nothing_that_is_written_or_printed_holds_one(tmp_path: Path) -> None:
    """A run, a failed run, a sweep, W&B's own folder, a report and a bundle, with keys all about."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "netrc").write_text(f"machine api.wandb.ai login user password {WANDB}\n")
    (home / "netrc").chmod(0o600)
    environment = {
        **os.environ, "WANDB_API_KEY": WANDB, "HF_TOKEN": HUB, "STORE_PASSWORD": PASSWORD, "NETRC": str(home / "netrc"),
        "WANDB_MODE": "offline", "WANDB_SILENT": "true", "SOME_TOKEN": TOKEN,
    }  # fmt: skip
    small = [word for word in TINY if not word.startswith("logger")]
    printed = ""
    for how, words, status in (
        ("run", ["train", *small, "logger=wandb"], 0),
        ("fail", ["train", *small, "logger=wandb"], None),
        ("run", ["train", "-m", *small, "logger=csv", "seed=0,1"], 0),
        ("run", ["compare", "outputs", "--report", "outputs/report.html"], 0),
        ("run", ["train", *small, "logger=none", f"data.path={HUB}"], 2),
        ("run", ["reproduce", f"https://me:{PASSWORD}@host/run"], 2),
    ):
        done = subprocess.run(
            [sys.executable, "-c", FAILING, how, *words],
            check=False,
            capture_output=True,
            text=True,
            env=environment,
        )
        printed += done.stdout + done.stderr
        assert status is None or done.returncode == status, done.stdout + done.stderr
        if how == "fail":
            assert "ValueError: could not get https://***@host/x" in done.stderr
            # the message itself came from Python, before Headstart
            printed = printed.replace(f"said {HUB}", "").replace(f"logged {HUB}", "")
    runs = [path for path in Path("outputs/runs").iterdir() if read_record(path).status == "completed"]
    for i, path in enumerate(runs):
        done = subprocess.run(
            [sys.executable, "-m", "headstart", "bundle", str(path), "-o", f"outputs/bundle{i}.zip"],
            check=True, capture_output=True, text=True, env=environment,
        )  # fmt: skip
        printed += done.stdout + done.stderr
    (failed,) = [path for path in Path("outputs/runs").iterdir() if read_record(path).status == "failed"]
    assert "https://***@host/x?token=*** with *** and ***" in str(read_record(failed).error)
    files = everything(Path("outputs"), *Path().glob("wandb"))
    assert len(files) > 40
    for secret in SECRETS:
        assert secret not in printed
        holding = [name for name, content in files.items() if secret.encode() in content]
        assert not holding, f"{secret} is in {holding}"


def test_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line is kept: what in it is secret is not."""
    folder, _ = run(tiny_config(), command=["headstart", f"--url=https://me:{PASSWORD}@host", f"token={TOKEN}"])
    record = json.loads((folder / "run.json").read_text())
    assert record["command"] == ["headstart", "--url=https://***@host", "token=***"]
    assert main(["bundle", str(folder), "-o", "result.zip"]) == 0
    assert PASSWORD.encode() not in b"".join(everything(Path.cwd()).values())
    shutil.rmtree(folder)


def _log_in_a_job() -> None:
    """In a job's process: what a library logs that was imported before the job began."""
    log_to(Path("sweep"), ["job"])

    def perform(*rest: object, **more: object) -> str:
        print(f"printed {HUB}")
        print("unfinished", end="")
        logging.getLogger("pytorch_lightning").warning(f"logged {HUB}")
        raise OSError(f"raised {HUB}")

    job.perform = perform  # type: ignore[assignment]
    job.perform_in("sweep", ["job"], "outputs")


def test_a_job_log() -> None:
    process = forkserver().Process(target=_log_in_a_job)
    process.start()
    process.join()
    assert process.exitcode == 1
    text = Path("sweep/jobs/job/log.txt").read_text()
    for said in ("printed ***", "unfinished", "logged ***", "OSError: raised ***"):
        assert said in text
    assert HUB not in text
