"""Bad input of every kind gets a sentence: never a traceback, never a result that is not sound."""

from __future__ import annotations

import copy
import csv
import io
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.conftest import tiny_config

from headstart.cli import main
from headstart.cli.options import all_keys, group_choices
from headstart.compare.csv_results import read_csv_results
from headstart.config.checks import check
from headstart.config.compose import checked as checked_node
from headstart.config.compose import compose_node, configs
from headstart.config.plain import from_plain, read_config, to_plain
from headstart.config.schema.data import CsvConfig
from headstart.data.class_subset import of_classes
from headstart.data.opening import chosen_source
from headstart.data.source import Source
from headstart.data.splitting import split_source
from headstart.errors import HeadstartError, RecordError
from headstart.experiment import run
from headstart.printable import printable
from headstart.records.examples import read_examples
from headstart.records.schema import RunRecord
from headstart.records.store import read_record
from headstart.reproduce.bundle import unpack
from headstart.reproduce.changes import changes
from headstart.reproduce.requirements import requirements_of
from headstart.reproduce.tolerance import check_metrics
from headstart.reproduce.verdict import judge
from headstart.reproduce.words import verdict_lines

full = pytest.mark.parametrize("cases", [60, pytest.param(10_000, marks=pytest.mark.slow)])
sparse = pytest.mark.parametrize("cases", [200, pytest.param(10_000, marks=pytest.mark.slow)])
"""Where few of the cases come out as something that is accepted."""


def fuzz(cases: int, check: Callable[..., None], *given_: st.SearchStrategy[Any]) -> None:
    """Try a check on so many cases, the same ones every time."""
    settings(
        max_examples=cases, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )(given(*given_)(check))()


def said(error: HeadstartError) -> str:
    """The sentence of a mistake, which is one."""
    text = str(error)
    assert text.strip()
    assert "Traceback" not in text
    return text


odd_text = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["", "null", "nan", "inf", "-1", "0", "1e309", "1e-400", "9" * 400, "true", "[]", "{}", "[1,2", "{a:1}", "${seed}",
         "${oc.env:HOME}", "!!python/name:os", "'", '"', "\\", "\x00", "a=b", "[null]", "[[[]]]", "~", "???", "0x10",
         "1_000", "٣", "auto", "scratch", "2024-01-01", "[1,2,3]", "[0.5,0.5]", "test_vit", "head", "stem"]
    ),
    st.integers().map(str),
    st.floats().map(str),
)  # fmt: skip
json_value = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from(["nan", "../x"])
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=6,
)


# --- configs

KEYS = sorted(all_keys())
GROUPS = (
    "strategy",
    "optimizer",
    "schedule",
    "data",
    "weights",
    "head",
    "logger",
    "launcher",
    "search",
    "experiment",
)
override = st.one_of(
    st.tuples(st.sampled_from(KEYS), odd_text).map("=".join),
    st.sampled_from(GROUPS).flatmap(
        lambda group: st.sampled_from(group_choices(group)).map(lambda name: f"{group}={name}")
    ),
    st.tuples(st.sampled_from(["", "+", "~", "++"]), st.sampled_from(KEYS), odd_text).map(
        lambda p: f"{p[0]}{p[1]}={p[2]}"
    ),
    st.text(max_size=20),
)


@full
def test_composing(cases: int) -> None:
    accepted = 0

    def one(overrides: list[str]) -> None:
        nonlocal accepted
        try:
            config = checked_node(compose_node(["backbone.name=test_resnet", *overrides]))
        except HeadstartError as error:
            said(error)
            return
        accepted += 1
        plain = to_plain(config)
        assert to_plain(from_plain(yaml.safe_load(yaml.safe_dump(plain, allow_unicode=True)))) == plain

    with configs():
        fuzz(cases, one, st.lists(override, min_size=1, max_size=3))
    assert accepted > cases / 20


@full
def test_a_saved_config(cases: int) -> None:
    plain = to_plain(tiny_config())

    def one(data: Any) -> None:
        changed = mutated(data, plain)
        path = Path("config.yaml")
        path.write_text(yaml.safe_dump(changed, allow_unicode=True), encoding="utf-8")
        try:
            check(read_config(path))
        except HeadstartError as error:
            said(error)

    fuzz(cases, one, st.data())


# --- data


@dataclass
class Numbers:
    """Examples that are nothing but their labels."""

    ids: list[str]
    targets: Any

    encoded = False

    def content(self, index: int) -> bytes:
        return self.ids[index].encode()

    def where(self, index: int) -> str:
        return self.ids[index]


size = st.one_of(st.none(), st.integers(0, 60), st.floats(0, 1.2).filter(lambda x: not 1 < x < 1.0001))


@sparse
def test_splits_and_subsets(cases: int) -> None:
    config_of_all = tiny_config()
    base = config_of_all.data
    made = 0

    def one(data: Any) -> None:
        nonlocal made
        count = data.draw(st.integers(1, 4))
        several = data.draw(st.booleans())
        given_splits = data.draw(st.sampled_from([("train",), ("train", "test"), ("train", "val", "test")]))
        splits: dict[str, Any] = {}
        for name in given_splits:
            n = data.draw(st.integers(0, 40))
            if several:
                rows = data.draw(
                    st.lists(st.lists(st.integers(0, 1), min_size=count, max_size=count), min_size=n, max_size=n)
                )
                targets = np.asarray(rows, dtype=np.int64).reshape(n, count)
            else:
                targets = np.asarray(
                    data.draw(st.lists(st.integers(0, count - 1), min_size=n, max_size=n)), dtype=np.int64
                )
            splits[name] = Numbers([f"{name}/{i}" for i in range(n)], targets)
        source = Source(tuple("abcd"[:count]), "multilabel" if several else "multiclass", splits)
        config = copy.copy(base)
        config.train_size, config.val_size, config.test_size = (data.draw(size) for _ in range(3))
        config.shots = data.draw(st.one_of(st.none(), st.integers(0, 5)))
        config.refit_on_val = data.draw(st.booleans())
        config.split_seed = data.draw(st.integers(0, 3))
        if data.draw(st.integers(0, 5)) == 5:
            config.num_folds, config.fold = data.draw(st.integers(2, 6)), data.draw(st.integers(0, 6))
        if data.draw(st.integers(0, 5)) == 4:
            config.test_size = "rest"
        if data.draw(st.integers(0, 3)) == 3:
            source.groups = {
                name: [f"{name}{data.draw(st.integers(0, 5))}" for _ in e.ids] for name, e in source.splits.items()
            }
        wanted = data.draw(
            st.one_of(st.none(), st.lists(st.one_of(st.sampled_from("abcde"), st.integers(-1, 4)), max_size=4))
        )
        try:
            check(replace(config_of_all, data=config))
            if wanted is not None:
                source = of_classes(source, wanted)
            usable = {name: list(range(len(examples.ids))) for name, examples in source.splits.items()}
            found = split_source(source, config, usable)
        except HeadstartError as error:
            said(error)
            return
        made += 1
        ids = {name: list(split.ids) for name, split in found.items()}
        assert all(len(set(names)) == len(names) and names for names in ids.values())
        assert not set(ids["test"]) & (set(ids["train"]) | set(ids["val"]))
        if not config.refit_on_val:
            assert not set(ids["train"]) & set(ids["val"])
        if source.groups:
            group_of = {
                i: g for name, e in source.splits.items() for i, g in zip(e.ids, source.groups[name], strict=True)
            }
            held = {name: {group_of[i] for i in names} for name, names in ids.items()}
            assert not held["test"] & (held["train"] | held["val"])
        for name, split in found.items():
            by_id = dict(zip(split.ids, split.targets.tolist(), strict=True))
            own = {
                i: t
                for e in source.splits.values()
                for i, t in zip(e.ids, np.asarray(e.targets).tolist(), strict=True)
            }
            assert by_id == {i: own[i] for i in ids[name]}

    fuzz(cases, one, st.data())
    assert made > cases / 20


odd_cell = st.one_of(
    st.sampled_from(["", "a", "b", "1", "2", "1.5", "nan", "inf", "0", "a|b", "|", " a ", "train", "val", "test", "TEST", "é", "1e400"]),
    st.text(max_size=4),
)  # fmt: skip
odd_image = st.one_of(
    st.sampled_from([f"{i}.png" for i in range(6)]),
    st.sampled_from(["", ".", "..", "./0.png", "/dev/zero", "no.png", "~/x.png", "t.csv"]),
    st.text(max_size=4),
)


@full
def test_tables_of_images(cases: int) -> None:
    """A table is read as what it says, or refused with a line; then it is split like any other source."""
    for i in range(6):
        Image.new("RGB", (2, 2), (i, 0, 0)).save(f"{i}.png")
    path, read, split = Path("t.csv"), 0, 0

    def one(data: Any) -> None:
        nonlocal read, split
        columns = data.draw(
            st.lists(st.sampled_from(["path", "label", "split", "who", "x", ""]), min_size=1, max_size=5)
        )
        if data.draw(st.integers(0, 9)):
            columns = [
                "path",
                "label",
                *(name for name in dict.fromkeys(columns) if name not in ("path", "label", "")),
            ]
        sane = data.draw(st.booleans())
        if sane:
            columns = ["path", "label", *(["split"] if data.draw(st.booleans()) else [])]
        count = data.draw(st.integers(3 if sane else 0, 6))
        rows = []
        for i in range(count):
            row = [data.draw(odd_cell) for _ in columns]
            if sane and columns[:2] == ["path", "label"]:
                row = [f"{i}.png", data.draw(st.sampled_from(["a", "b", "1", "0.5", "2"])), *row[2:]]
                row = [
                    data.draw(st.sampled_from(["train", "Val", "test"])) if n == "split" else c
                    for n, c in zip(columns, row, strict=True)
                ]
            elif columns[0] == "path":
                row[0] = data.draw(odd_image)
            rows.append(row)
        text = io.StringIO()
        writer = csv.writer(text, delimiter=data.draw(st.sampled_from(",;\t")))
        writer.writerows([columns, *rows])
        content = text.getvalue().encode("utf-8", "replace")
        if data.draw(st.integers(0, 9)) == 9:
            content = data.draw(st.binary(max_size=100))
        path.write_bytes(content)
        config = CsvConfig(path=str(path))
        if not sane or data.draw(st.booleans()):
            config = CsvConfig(
                path=str(path),
                label_column=data.draw(st.sampled_from([None, "label", "label", ["label", "x"], "who", "none"])),
                label_separator=data.draw(st.sampled_from([None, None, "|"])),
                split_column=data.draw(st.sampled_from([None, None, "none", "split", "x"])),
                group_column=data.draw(st.sampled_from([None, None, None, "who"])),
                task=data.draw(
                    st.sampled_from(["auto", "auto", "multiclass", "regression", "binary", "multilabel"])
                ),
            )
        try:
            check(replace(whole, data=config))
            source = chosen_source(config)
        except HeadstartError as error:
            said(error)
            return
        read += 1
        ids = [name for examples in source.splits.values() for name in examples.ids]
        assert len(set(ids)) == len(ids) == len(rows)
        for examples in source.splits.values():
            assert np.isfinite(examples.targets).all()
        try:
            found = split_source(source, config, {name: range(len(e.ids)) for name, e in source.splits.items()})
        except HeadstartError as error:
            said(error)
            return
        split += 1
        assert sorted(name for part in found.values() for name in part.ids) == sorted(ids)

    whole = tiny_config()
    fuzz(cases, one, st.data())
    assert read > cases / 20
    assert split > cases / 500


@full
def test_split_files(cases: int) -> None:
    """What a file says is what is done, or it is refused with a line."""
    path, made = Path("split.csv"), 0
    examples: Any = {
        name: Numbers([f"{name}/{i}" for i in range(4)], np.arange(4, dtype=np.int64) % 2)
        for name in ("train", "test")
    }
    source = Source(("a", "b"), "multiclass", examples)
    usable = {"train": [0, 1, 2, 3], "test": [0, 1, 3]}
    word = st.one_of(
        st.sampled_from(["train", "val", "test", "Valid", "", "train,val", "val,train", "dev"]), st.text(max_size=3)
    )

    def one(data: Any) -> None:
        nonlocal made
        ids = data.draw(st.permutations([name for part in examples.values() for name in part.ids]))
        if not data.draw(st.integers(0, 4)):
            ids = [*ids[:5], data.draw(st.sampled_from([*ids, "", "x"]))]
        words = [
            data.draw(word if not data.draw(st.integers(0, 9)) else st.sampled_from(["train", "val", "test"]))
            for _ in ids
        ]
        kept = data.draw(st.integers(0, len(ids)))
        frame = pd.DataFrame({"id": ids[:kept], "split": words[:kept]})
        if data.draw(st.booleans()):
            frame.to_csv(path, index=False)
        else:
            frame.to_csv(path, index=False, sep=";", encoding="utf-8-sig")
        config = replace(tiny_config_data, split_file=str(path), refit_on_val=data.draw(st.booleans()))
        try:
            found = split_source(source, config, usable)
        except HeadstartError as error:
            said(error)
            return
        made += 1
        for name, written in zip(ids[:kept], words[:kept], strict=True):
            names = {split for split, part in found.items() if name in part.ids}
            expected = {"": set(), "Valid": {"val"}, "train,val": {"val"}, "val,train": {"val"}}.get(
                written, {written}
            )
            assert names - ({"train"} if config.refit_on_val and "val" in expected else set()) == expected

    tiny_config_data = replace(tiny_config().data, train_size=None, test_size=None)
    fuzz(cases, one, st.data())
    assert made > cases / 20


# --- records


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run and its bundle."""
    root = tmp_path_factory.mktemp("fuzzed")
    folder, _ = run(tiny_config(f"output_dir={root}"), command=["test"])
    folder.rename(root / "run")
    assert main(["bundle", str(root / "run"), "-o", str(root / "run.zip"), "--weights", "none"]) == 0
    return root


def mutated(data: Any, plain: Any) -> Any:
    """Plain data with up to three places changed: another value, a key gone, a key more."""
    changed = copy.deepcopy(plain)
    for _ in range(data.draw(st.integers(1, 3))):
        node, path = changed, []
        while isinstance(node, dict | list) and node and (not path or data.draw(st.integers(0, 3))):
            keys = sorted(node) if isinstance(node, dict) else list(range(len(node)))
            path.append((node, data.draw(st.sampled_from(keys))))
            node = path[-1][0][path[-1][1]]
        if not path:
            continue
        parent, key = path[-1]
        how = data.draw(st.integers(0, 3))
        if how == 0 and isinstance(parent, dict):
            del parent[key]
        elif how == 1 and isinstance(parent, dict):
            parent[data.draw(st.text(max_size=8))] = data.draw(json_value)
        else:
            parent[key] = data.draw(json_value)
    return changed


@full
def test_records(made: Path, cases: int) -> None:
    """What is read is compared, judged and put into words as well."""
    whole = read_record(made / "run")
    examples = read_examples(made / "run" / "examples.parquet")
    Path("run").mkdir()
    accepted = 0

    def one(data: Any) -> None:
        nonlocal accepted
        text = json.dumps(mutated(data, whole.to_dict()))
        if not data.draw(st.integers(0, 20)):
            text = text[: data.draw(st.integers(0, len(text)))]
        Path("run/run.json").write_text(text)
        try:
            record = read_record(Path("run"))
        except RecordError as error:
            said(error)
            return
        accepted += 1
        for before, now in ((record, whole), (whole, record)):
            found = changes(before, now, folder=made / "run", config=before.config, examples=examples)
            verdict = judge(
                before, now, folder_before=made / "run", folder_now=made / "run", siblings=[record, whole],
                weights_before=before.final_weights,
            )  # fmt: skip
            printable("\n".join(verdict_lines(verdict, found)))
            check_metrics(before, now, siblings=[])
        for line in requirements_of(record.environment).splitlines():
            assert line.startswith("#") or line.count("==") == 1
        json.dumps(record.to_dict())

    fuzz(cases, one, st.data())
    assert accepted > cases / 20


@full
def test_records_of_other_versions(cases: int) -> None:
    def one(value: Any) -> None:
        try:
            RunRecord.from_dict(value)
        except RecordError as error:
            said(error)

    version = st.fixed_dictionaries({"schema_version": st.one_of(st.integers(-2, 5), json_value)})
    fuzz(
        cases,
        one,
        st.one_of(
            json_value,
            st.tuples(version, json_value).map(lambda p: {**(p[1] if isinstance(p[1], dict) else {}), **p[0]}),
        ),
    )


# --- tables of results


cell = st.one_of(odd_text, st.sampled_from(["completed", "failed", "full", "0.5", "3"]))
column = st.one_of(
    st.sampled_from(
        ["arm", "dataset", "seed", "split_seed", "status", "test/accuracy_micro", "train_examples", "steps"]
    ),
    st.text(max_size=6),
)


@sparse
def test_tables_of_results(cases: int) -> None:
    path = Path("results.csv")
    accepted = 0

    def one(data: Any) -> None:
        nonlocal accepted
        if data.draw(st.integers(0, 5)):
            columns = data.draw(st.lists(column, min_size=1, max_size=5))
            rows = data.draw(st.lists(st.lists(cell, min_size=len(columns), max_size=len(columns)), max_size=4))
            if data.draw(st.booleans()):
                columns, rows = ["arm", "test/accuracy_micro", *columns], [["a", "0.5", *row] for row in rows]
            path.write_text(
                "\n".join(",".join(row) for row in [columns, *rows]) + "\n",
                encoding="utf-8",
                errors="surrogatepass",
            )
        else:
            path.write_bytes(data.draw(st.binary(max_size=200)))
        try:
            results = read_csv_results(path, metric=data.draw(st.sampled_from([None, "test/accuracy_micro"])))
        except HeadstartError as error:
            said(error)
            return
        accepted += 1
        for result in results:
            assert all(value is None or math.isfinite(value) for value in result.metrics.values())

    fuzz(cases, one, st.data())
    assert accepted > cases / 50


# --- bundles


@full
def test_bundles(made: Path, cases: int) -> None:
    """Bytes of a bundle changed anywhere: it is what it was, or it is refused; nothing is left of it."""
    content = (made / "run.zip").read_bytes()
    path = Path("bad.zip")
    Path("in").mkdir()

    def one(data: Any) -> None:
        changed = bytearray(content)
        for _ in range(data.draw(st.integers(1, 4))):
            # half of them in the directory at the end
            start = len(changed) - 1500 if data.draw(st.booleans()) and len(changed) > 1500 else 0
            place = data.draw(st.integers(start, max(start, len(changed) - 1)))
            how = data.draw(st.integers(0, 3))
            if how == 0:
                changed[place : place + 1] = bytes([data.draw(st.integers(0, 255))])
            elif how == 1:
                changed[place:place] = data.draw(st.binary(max_size=20))
            elif how == 2:
                del changed[place : place + data.draw(st.integers(1, 2000))]
            else:
                end = data.draw(st.integers(place, min(len(changed), place + 64)))
                changed[place:end] = bytes(end - place)
        path.write_bytes(changed)
        try:
            folder = unpack(path, into=Path("in"))
        except RecordError as error:
            said(error)
            assert not list(Path("in").iterdir())
            return
        for file in folder.rglob("*"):
            original = made / "run" / file.relative_to(folder)
            if original.is_file() and file.name != "run.json":
                assert file.read_bytes() == original.read_bytes()
        shutil.rmtree(folder)

    fuzz(cases, one, st.data())
    assert sorted(entry.name for entry in Path.cwd().iterdir()) == ["bad.zip", "in"]
