"""The picture of a ranking: what is drawn, where, and that no name covers another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from headstart.errors import ConfigError
from headstart.records import pictures
from headstart.transferability import picture
from headstart.transferability.picture import draw_ranking, pareto_front
from headstart.transferability.place_labels import Wanted, place_labels
from headstart.transferability.ranking import Ranked, Ranking


def candidate(
    name: str, merit: float | None, *, speed: float = 100.0, parameters: int = 10**6, **more: Any
) -> Ranked:
    scores = {"logme": merit, "static": float(parameters)}
    return Ranked(name, (), name, "timm", {}, parameters, speed, 1, {}, scores, **more)


def ranking(*candidates: Ranked, by: str = "logme") -> Ranking:
    return Ranking(
        id="r", created="", command=(), task="multiclass", dataset="cifar$10", fingerprint="", images=1, outputs=10,
        by=by, static="number of parameters", candidates=candidates,
    )  # fmt: skip


def drawn(made: Ranking, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Figure, list[str]]:
    """The figure that was written, and all that is written in it."""
    kept: list[Figure] = []

    def keep(figure: Figure, path: Path) -> None:
        kept.append(figure)
        pictures.write_picture(figure, path)

    monkeypatch.setattr(picture, "write_picture", keep)
    draw_ranking(made, folder / "ranking.png")
    assert (folder / "ranking.png").read_bytes().startswith(b"\x89PNG")
    axes = kept[0].axes
    return kept[0], [text.get_text() for one in axes for text in one.texts]


def box_of(label: Any, canvas: FigureCanvasAgg) -> Any:
    """Where a name stands, without its line."""
    label.update_positions(canvas.get_renderer())
    return Text.get_window_extent(label, canvas.get_renderer())


def test_each_candidate_stands_at_its_cost_and_merit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = ranking(
        candidate("best", 0.9, speed=10, parameters=8 * 10**6, intervals={"logme": (0.8, 0.95)}),
        candidate("fast", 0.7, speed=1000, parameters=2 * 10**6),
        candidate("beaten", 0.5, speed=50, warning="transfer is likely to hurt"),
        candidate("unknown", None),
    )
    figure, texts = drawn(made, tmp_path, monkeypatch)
    merit, static = figure.axes
    places = [tuple(one.get_offsets()[0]) for one in merit.collections]
    assert places == [(100.0, 0.9), (1.0, 0.7), (20.0, 0.5)]
    assert [tuple(one.get_offsets()[0])[1] for one in static.collections] == [8e6, 2e6, 1e6, 1e6]
    areas = [float(one.get_sizes()[0]) for one in merit.collections]
    assert areas[0] > areas[1]
    colours = [tuple(one.get_facecolor()[0][:3]) for one in merit.collections]
    assert colours[0] == colours[1] != colours[2]
    assert (merit.get_xscale(), static.get_yscale()) == ("log", "log")
    front, interval = merit.lines
    assert np.array_equal(front.get_xydata(), [(1.0, 0.7), (100.0, 0.9)])
    assert np.array_equal(interval.get_xydata(), [(100.0, 0.8), (100.0, 0.95)])
    assert texts.count("best") == texts.count("fast") == texts.count("beaten") == 2
    assert texts.count("unknown") == 1
    assert any("number of parameters" in text for text in texts)
    assert "1 without a score" in merit.get_title()
    assert r"1 image of cifar\$10" in merit.get_title()


def test_the_static_baseline_alone_is_one_panel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure, _ = drawn(ranking(candidate("a", 1.0), by="static"), tmp_path, monkeypatch)
    assert len(figure.axes) == 1


def test_one_candidate_and_none_with_a_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, texts = drawn(ranking(candidate("x" * 80, 0.3)), tmp_path, monkeypatch)
    short = next(text for text in texts if text.startswith("xx"))
    assert len(short) < 40
    none = ranking(candidate("a", None), candidate("b", float("nan")))
    _, texts = drawn(none, tmp_path, monkeypatch)
    assert "no candidate has this score" in texts


def test_sixty_candidates_and_no_text_over_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    made = [
        candidate(f"a_backbone_of_some_length_{i}", float(m), speed=float(s), parameters=int(p))
        for i, (m, s, p) in enumerate(
            zip(
                np.sort(rng.normal(size=60))[::-1],
                10 ** rng.uniform(0, 3, 60),
                10 ** rng.uniform(5, 8, 60),
                strict=True,
            )
        )
    ]
    made[40] = replace(made[40], warning="transfer is likely to hurt")
    figure, texts = drawn(ranking(*made), tmp_path, monkeypatch)
    assert {"1 a_backbone_of_some_length_0", "41 a_backbone_of_some_length_40", "60"} <= set(texts)
    canvas = FigureCanvasAgg(figure)
    for axes in figure.axes:
        labels = [text for text in axes.texts if text.get_text().split()[0].isdecimal()]
        boxes = [box_of(text, canvas) for text in labels]
        assert len(boxes) > 50
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_what_finds_no_room_is_counted() -> None:
    figure = Figure(figsize=(1, 1))
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    long = Wanted("a name that is wider than all there is", 0.5, 0.5, 2, "black", 12, short="7")
    assert place_labels(axes, [long]) == 0
    assert [text.get_text() for text in axes.texts] == ["7"]
    assert place_labels(axes, [replace(long, short="")]) == 1
    assert place_labels(axes, [Wanted("7", 0.5, 0.5, 2, "black", 12)], lines=[(0, 0, 1, 1)]) == 1


def test_the_front_is_what_nothing_beats() -> None:
    rng = np.random.default_rng(1)
    points = [(float(a), float(b)) for a, b in rng.integers(0, 8, (40, 2))]
    front = pareto_front(points)
    for i, (cost, merit) in enumerate(points):
        beaten = any(c <= cost and m >= merit and (c, m) != (cost, merit) for c, m in points)
        if not beaten:
            assert (cost, merit) in {points[j] for j in front}
        elif i in front:
            raise AssertionError(f"{points[i]} is beaten")
    assert pareto_front([]) == []


def test_other_kinds_of_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must end in"):
        draw_ranking(ranking(candidate("a", 1.0)), tmp_path / "x.gif")
    draw_ranking(ranking(candidate("a", 1.0)), tmp_path / "x.svg")
    assert (tmp_path / "x.svg").read_text().lstrip().startswith("<?xml")


def test_names_of_markers_on_one_place_stand_apart() -> None:
    figure = Figure(figsize=(6, 4))
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    assert place_labels(axes, [Wanted(f"candidate {i}", 0.5, 0.5, 3, "black", 8) for i in range(6)]) == 0
    boxes = [box_of(text, canvas) for text in axes.texts]
    assert len(boxes) == 6
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
