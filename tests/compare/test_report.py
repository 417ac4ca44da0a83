"""The report: one safe file, with everything in it; and in a browser, without an error."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.compare.test_compare import ARMS, made

from headstart.cli import main
from headstart.compare.comparison import Comparison, compare_results
from headstart.compare.details import details_of
from headstart.compare.report.figures import pareto
from headstart.compare.report.page import render_page
from headstart.compare.report.plot import Scale, number, scale_over
from headstart.compare.sources import find_results
from headstart.data.pictures import thumbnail
from headstart.records.schema import RunRecord
from headstart.records.store import write_record
from headstart.records.tables import METRICS, PREDICTIONS, write_predictions, write_rows
from headstart.records.thumbnails import THUMBNAILS, write_thumbnails

HOSTILE = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)>"


def lay_out(
    count: int, *, classes: int = 4, images: int = 60, names: str = "class", sizes: int = 1
) -> list[RunRecord]:
    """Whole run folders of three arms, as runs would have left them, with predictions and pictures."""
    world = np.random.default_rng(0)
    targets = world.integers(0, classes, images)
    class_names = [f"{names} {i}" for i in range(classes)]
    records = []
    for i in range(count):
        of, seed, size = ARMS[i % 3], i // 3 // sizes, 100 * 4 ** (i // 3 % sizes)
        own = np.random.default_rng(i)
        skill = (2.0, 1.6, 0.8)[i % 3] + 0.2 * (i // 3 % sizes)
        scores = own.normal(size=(images, classes)) + skill * np.eye(classes)[targets]
        probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        predicted = probabilities.argmax(axis=1)
        counts = np.zeros((classes, classes), dtype=int)
        np.add.at(counts, (targets, predicted), 1)
        record = made(
            of, seed, float((predicted == targets).mean()), id=f"run-{i:04d}", seconds={"total": 10.0 + i % 3}
        )
        record.arm = f"{record.arm[:20]}-{size}"
        record.config["data"]["train_size"] = size
        record.data = {
            **record.data, "class_names": class_names, "sizes": {"train": size, "test": images},
            "class_counts": {"train": [size] * classes, "test": np.bincount(targets, minlength=classes).tolist()},
        }  # fmt: skip
        record.confusion = {"counts": counts.tolist()}
        folder = Path("outputs/runs") / record.id
        folder.mkdir(parents=True)
        write_record(folder, record)
        ids = [f"{name:04d}.png" for name in range(images)]
        write_predictions(
            folder / PREDICTIONS,
            ids=ids,
            targets=targets,
            predicted=predicted,
            probabilities=probabilities.astype(np.float32),
        )
        rows = [
            {"epoch": e, "step": 13 * e, "val/accuracy_micro": min(1.0, 0.2 + 0.1 * e * (skill / 2)), "seconds": e * 2.0}
            for e in range(1, 6)
        ]  # fmt: skip
        write_rows(folder / METRICS, rows)
        wrong = np.flatnonzero(predicted != targets)[:48]
        write_thumbnails(
            folder / THUMBNAILS,
            {ids[place]: thumbnail(own.integers(0, 256, (32, 32, 3), dtype=np.uint8), side=96) for place in wrong},
        )
        records.append(record)
    return records


def compared() -> Comparison:
    results, notes = find_results([Path("outputs")])
    return compare_results(results, notes=notes)


class Page(HTMLParser):
    """What is in a page: tags, and the scripts' texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._in_script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in_script = tag == "script"

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts.append(data)


def test_the_report_has_every_part(capsys: pytest.CaptureFixture[str]) -> None:
    records = lay_out(9)
    (Path("outputs/runs/broken")).mkdir()
    Path("outputs/runs/broken/run.json").write_text("{")
    failed = made(
        ARMS[0], 9, 0.0, id="run-failed", status="failed", metrics={}, error="Traceback\nboom: out of paper"
    )
    failed.arm, failed.config = records[0].arm, records[0].config
    Path("outputs/runs/run-failed").mkdir()
    write_record(Path("outputs/runs/run-failed"), failed)
    assert main(["compare", "outputs", "--report", "r.html"]) == 0
    assert "Report: r.html" in capsys.readouterr().out
    text = Path("r.html").read_text()
    page = Page(text)
    shown = html.unescape(text)
    for part in (
        "is better than training from scratch", "Gain over training from scratch", "Learning curves", "Result against cost",
        "Confusion matrices", "Classes that changed most", "right in this arm alone", "Paired with the baseline",
        "How each arm differs", "weights.source", "1 not completed", "boom: out of paper", "broken/run.json: is damaged",
        "How these figures were computed",
    ):  # fmt: skip
        assert part in shown, part
    assert sum(tag == "svg" for tag, _ in page.tags) > 6
    pictures = [attrs["src"] for tag, attrs in page.tags if tag == "img"]
    assert len(pictures) >= 8
    assert all(str(source).startswith("data:image/png;base64,") for source in pictures)
    tips = [str(attrs["data-tip"]) for _, attrs in page.tags if "data-tip" in attrs]
    assert any(re.search(r"strategy=full: \+0\.\d{3} \[.*3 pairs, better", tip) for tip in tips), tips[:3]
    assert any("step 13: 0." in tip for tip in tips)
    assert main(["compare", "outputs", "--report", "again.html"]) == 0
    assert Path("again.html").read_bytes() == Path("r.html").read_bytes()


def test_nothing_is_loaded_and_nothing_from_outside_runs() -> None:
    records = lay_out(6, names=HOSTILE)
    for record in records:
        record.config["data"] |= {"source": "image_folder", "path": f"/data/{HOSTILE}"}
        record.config["strategy"]["extra"] = HOSTILE + record.arm
        write_record(Path("outputs/runs") / record.id, record)
    broken = made(ARMS[0], 9, 0.0, id="run-failed", status="failed", metrics={}, error=HOSTILE)
    Path("outputs/runs/run-failed").mkdir()
    write_record(Path("outputs/runs/run-failed"), broken)
    comparison = compared()
    text = render_page(comparison, details_of(comparison))
    page = Page(text)
    assert HOSTILE not in text
    assert html.escape(HOSTILE, quote=False)[:20] in text
    assert sum(tag == "script" for tag, _ in page.tags) == 1
    assert "alert" not in page.scripts[0]
    for tag, attrs in page.tags:
        assert not any(name.startswith("on") for name in attrs), (tag, attrs)
        assert tag not in ("iframe", "object", "embed", "link", "base", "form"), tag
        for name in ("src", "href"):
            assert str(attrs.get(name) or "data:").startswith("data:image/"[:5])
    policy = next(str(attrs["content"]) for tag, attrs in page.tags if attrs.get("http-equiv"))
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe-inline" not in policy.partition("script-src")[2]
    assert not re.search(r"https?://", text)


def test_a_report_elsewhere_or_of_another_kind(capsys: pytest.CaptureFixture[str]) -> None:
    lay_out(3)
    assert main(["compare", "outputs", "--report", "r.pdf"]) == 2
    assert "--report r.pdf: must end in .html" in capsys.readouterr().err
    assert main(["compare", "outputs", "--report", "nowhere/r.html"]) == 2
    assert "there is no folder nowhere" in capsys.readouterr().err


def test_a_report_of_a_table() -> None:
    Path("t.csv").write_text("arm,dataset,seed,test/x\n" + "".join(f"{a},{d},{s},{v + s / 99}\n" for a, v in (("scratch", 0.1), ("p", 0.5)) for d in "abc" for s in range(3)))  # fmt: skip
    assert main(["compare", "t.csv", "--report", "r.html"]) == 0
    text = Path("r.html").read_text()
    assert "Over data sets" in text
    assert "Learning curves" not in text


def test_the_report_of_a_hundred_runs_is_small() -> None:
    lay_out(99, classes=10, images=200, sizes=3)
    began = time.monotonic()
    comparison = compared()
    text = render_page(comparison, details_of(comparison))
    assert time.monotonic() - began < 20
    assert len(text.encode()) < 5_000_000
    assert "By number of labels on" in text
    assert "All 99 runs" in text


def test_ticks_and_scales() -> None:
    assert Scale(0, 1, 0, 100).ticks() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert Scale(10, 1000, 0, 100, log=True).ticks() == pytest.approx([10, 100, 1000])
    assert Scale(12, 70, 0, 100, log=True).ticks() == pytest.approx([20, 50])
    assert Scale(10, 1000, 0, 100, log=True)(100) == 50
    assert Scale(25.4, 35.2, 0, 100, log=True).ticks() == pytest.approx([26, 28, 30, 32, 34])
    assert Scale(0, 0, 0, 100)(0) == 50
    scale = scale_over([0.5, 0.5], begin=0, end=10)
    assert scale.low < 0.5 < scale.high
    assert scale_over([], begin=0, end=10).ticks()
    assert [number(value) for value in (0, 0.25, 1000, 250_000, 0.0001)] == ["0", "0.25", "1,000", "2e5", "1e-4"]


def test_the_front_has_what_nothing_beats() -> None:
    lay_out(9)
    rows = list(compared().rows)
    front = pareto(rows, lower_is_better=False)
    for row in rows:
        beaten = any(
            (other.seconds or 0) <= (row.seconds or 0) and other.value.mean > row.value.mean  # type: ignore[union-attr]
            for other in rows
        )
        assert (row in front) != beaten


BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def browse(path: Path, script: str, *, width: int) -> dict[str, Any]:
    """Open a report in headless Chromium, run a script in it, and return what it says with all console errors."""
    probe = (
        "<script>window.__errors=[];addEventListener('error',e=>__errors.push(String(e.message)));"
        "addEventListener('securitypolicyviolation',e=>__errors.push('policy '+e.violatedDirective));</script>"
    )
    end = (
        "<script>addEventListener('load',()=>{let said={};try{said=(()=>{"
        + script
        + "})()}catch(e){__errors.push(String(e))}"
        "document.title='RESULT'+JSON.stringify({...said,errors:__errors})})</script>"
    )
    text = path.read_text()
    # the page's own policy would stop this test's scripts as well
    text = re.sub(r"script-src '[^']*'", "script-src 'unsafe-inline'", text)
    copy = path.with_name("probed.html")
    copy.write_text(text.replace("<title>", probe + "<title>", 1).replace("</body>", end + "</body>"))
    done = subprocess.run(
        [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900",
         "--virtual-time-budget=4000", "--dump-dom", copy.resolve().as_uri()],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    found = re.search(r"<title>RESULT(.*?)</title>", done.stdout, re.S)
    assert found, done.stderr[-2000:]
    said: dict[str, Any] = json.loads(html.unescape(found[1]))
    return said


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium here (on Debian: apt-get install chromium)")
@pytest.mark.parametrize("width", [390, 1280])
def test_in_a_browser(width: int) -> None:
    lay_out(99, classes=10, images=200, sizes=3)
    assert main(["compare", "outputs", "--report", "r.html"]) == 0
    said = browse(
        Path("r.html"),
        """
        const table=document.querySelector('#arms table'), head=table.tHead.rows[0].cells;
        const column=[...head].findIndex(h=>h.textContent.startsWith('test/'));
        const values=()=>[...table.tBodies[0].rows].map(r=>parseFloat(r.cells[column].textContent));
        head[column].querySelector('button').click(); const down=values();
        head[column].querySelector('button').click(); const up=values();
        head[0].querySelector('button').click(); const names=[...table.tBodies[0].rows].map(r=>r.cells[0].textContent);
        const marks=[...document.querySelectorAll('.mark[data-tip]')], tip=document.getElementById('tip');
        marks[0].dispatchEvent(new PointerEvent('pointerover',{bubbles:true})); const tipped=tip.hidden?'':tip.textContent;
        return {down, up, names, tipped, first: marks[0].dataset.tip,
          drawn:[...document.querySelectorAll('figure svg[role=img]')].map(s=>{const b=s.getBoundingClientRect();return b.width>100&&b.height>50&&s.querySelectorAll('path,rect').length>2}),
          pictures:[...document.querySelectorAll('img')].map(i=>i.complete&&i.naturalWidth>0),
          overflow:document.documentElement.scrollWidth-innerWidth,
          loaded:performance.timing.loadEventStart-performance.timing.navigationStart};
        """,
        width=width,
    )
    assert said["errors"] == []
    assert said["down"] == sorted(said["down"], reverse=True)
    assert said["up"] == sorted(said["up"])
    assert said["names"] == sorted(said["names"], key=str.lower)
    assert said["tipped"] == said["first"]
    assert len(said["drawn"]) > 8
    assert all(said["drawn"])
    assert len(said["pictures"]) > 8
    assert all(said["pictures"])
    assert said["overflow"] <= 0, "the page itself must not scroll sideways"
    assert said["loaded"] < 2000


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium here (on Debian: apt-get install chromium)")
def test_its_policy_lets_its_own_script_run() -> None:
    """With the policy as it is written: the digest in it must be that of the script."""
    lay_out(6)
    assert main(["compare", "outputs", "--report", "r.html"]) == 0
    done = subprocess.run(
        [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0",
         "--virtual-time-budget=2000", "--dump-dom", Path("r.html").resolve().as_uri()],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert 'id="tip"' in done.stdout
