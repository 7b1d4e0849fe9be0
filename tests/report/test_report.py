import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest

from haskd_jax.data import DataError
from haskd_jax.files import write_json
from haskd_jax.report import write_report
from haskd_jax.report.run_folder import read_run
from haskd_jax.report.view_source import open_source
from tests.report import fake

VOID = {"meta", "img", "br", "path", "circle", "rect", "polyline"}
TITLES = (
    "Results",
    "Rooms the arms had not seen",
    "Class by class",
    "What is taken for what",
    "The frames the teacher sees",
    "Which expert is heard on what",
    "Training",
    "What was run",
)


class Reader(HTMLParser):
    """Collects what the tests ask for, and checks that elements are closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.addresses, self.tags = [], [], []
        self.text, self.headings, self.rows = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [v for k, v in attrs if k in ("src", "href", "srcset", "data", "action")]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("style", "script"):
            return
        self.text.append(data)
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
        if {"td", "th"} & set(self.open) and self.rows:
            self.rows[-1][-1] += data + " "


def read(path):
    text = path.read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert not reader.open
    reader.words = re.sub(r"\s+", " ", " ".join(reader.text))
    reader.source = text
    return reader


@pytest.fixture(scope="module")
def report(finished, tmp_path_factory):
    return read(write_report(finished, tmp_path_factory.mktemp("out") / "report.html"))


def edit(path, **changes):
    value = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, value | changes)


def test_every_section_is_there(report):
    assert tuple(report.headings) == TITLES
    assert 'class="absent"' not in report.source


def test_needs_no_other_file(report):
    assert report.addresses
    assert all(a.startswith(("data:image/webp;base64,", "#")) for a in report.addresses)
    assert not {"link", "iframe", "object", "embed"} & set(report.tags)
    assert "url(" not in report.source and "@import" not in report.source


def test_links_lead_to_sections(report):
    targets = {a[1:] for a in report.addresses if a.startswith("#")}
    assert targets == set(re.findall(r'<section id="([^"]+)"', report.source))


def test_table_holds_the_numbers_of_the_files(report, finished):
    titles = {"plain": "Plain student", "teacher": "Teacher", "haskd": "HAS-KD student"}
    values = {
        arm: json.loads((finished / arm / "evaluation.json").read_text(encoding="utf-8"))
        for arm in titles
    }
    for arm, title in titles.items():
        row = next(r for r in report.rows if r and r[0].strip() == title and len(r) == 8)
        for cell, key in zip(row[1:4], ("miou", "accuracy", "mean_accuracy"), strict=True):
            numbers = cell.replace("\N{MINUS SIGN}", "-").split()
            assert float(numbers[0]) == round(100 * values[arm][key], 1)
            if arm != "plain":
                change = 100 * (values[arm][key] - values["plain"][key])
                assert float(numbers[1]) == pytest.approx(change, abs=0.051)
        assert row[4].strip() == f"{values[arm]['parameters']:,}"
        assert row[5].strip() == f"{values[arm]['seconds_per_scene']:.3g} s"
        assert row[6].strip() == "3 min 6 s"
        assert row[7].strip() == ("yes" if arm == "teacher" else "no")


def test_confusions_are_shares_of_the_rows(report, finished):
    value = json.loads((finished / "haskd" / "evaluation.json").read_text(encoding="utf-8"))
    confusion = np.array(value["confusion"])
    wall = 100 * confusion[0] / confusion[0].sum()
    row = next(r for r in report.rows if len(r) == fake.C + 1 and r[0].strip() == "wall")
    shown = [float(cell) if cell.strip() else 0.0 for cell in row[1:]]
    np.testing.assert_array_equal(shown, wall.round())


def test_pictures_and_frames(report):
    # Scan, truth, and answer and errors of three arms, from two sides; two scenes of 2 x 3 frames.
    assert report.tags.count("img") == 2 * (2 + 2 * 3) + 2 * 6
    assert "frame 0" in report.words and "quality" in report.words


def test_what_was_run(report):
    assert "python -m haskd_jax.experiments.synthrooms small" in report.words
    assert "AMD EPYC, 2 cores, Linux" in report.words
    assert "optimizer.peak" in report.words and "0.004" in report.words
    assert "split test, scenes 40, labels all, unit points" in report.words


def test_everything_is_escaped(run):
    nasty = "<script>alert(1)</script>&"
    arm = "a<b>&'\""
    shutil.move(run / "plain", run / arm)
    changes = {key: nasty for key in ("experiment", "command", "commit", "machine")}
    edit(run / "run.json", arms=[arm, "teacher", "haskd"], config={nasty: nasty}, **changes)
    names = [nasty, *fake.CLASSES[1:]]
    for folder in (arm, "teacher", "haskd"):
        protocol = {"dataset": nasty, "split": nasty, "views": 0, "step": nasty}
        edit(run / folder / "evaluation.json", classes=names, protocol=protocol)
    selection = json.loads((run / "selection.json").read_text(encoding="utf-8"))
    scenes = {nasty: next(iter(selection["scenes"].values()))}
    write_json(run / "selection.json", selection | {"method": nasty, "scenes": scenes})
    result = read(write_report(run))
    assert result.tags.count("script") == 1
    assert "<b>&'" not in result.source
    assert result.words.count(nasty) > 10


def test_an_empty_run_says_what_is_missing(tmp_path):
    run = {"format": "haskd-run", "version": 1, "experiment": "scannet", "arms": ["plain"]}
    write_json(tmp_path / "run.json", run)
    result = read(write_report(tmp_path))
    assert tuple(result.headings) == TITLES
    assert result.source.count('class="absent"') == 7
    assert "No verdict yet: HAS-KD and the plain student have not been evaluated." in result.words


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("selection.json", "No frames were selected in this run."),
        ("teacher/evaluation.json", "No teacher was evaluated"),
        ("plain/evaluation.json", "The plain student was not evaluated"),
        ("haskd/metrics.jsonl", "No arm of this run was taught by snapshots"),
    ],
)
def test_missing_pieces_are_left_out(run, missing, said):
    (run / missing).unlink()
    assert said in read(write_report(run)).words


def test_frames_of_another_teacher_are_shown_where_there_are_none_of_iof(run):
    selection = json.loads((run / "selection.json").read_text(encoding="utf-8"))
    (run / "selection.json").unlink()
    write_json(run / "selection_uniform.json", selection | {"method": "uniform"})
    result = read(write_report(run))
    assert "No frames were selected" not in result.words
    # Two scenes of three frames, beside which there is nothing to show.
    assert result.tags.count("img") == 2 * 3
    assert "uniform sampling of as many frames" not in result.words


def test_only_scenes_that_the_record_lists_are_drawn(pictured):
    """Other predictions in the folder are of other scores, or are being written."""
    edit(pictured / "plain" / "evaluation.json", scenes=["scene9000_01"])
    result = read(write_report(pictured))
    assert "No arm of this run stored predictions of a scene." in result.words
    stored = pictured / "plain" / "predictions"
    shutil.copy(stored / "scene9000_00.npy", stored / ".partial-9-scene9000_00.npy")
    edit(pictured / "plain" / "evaluation.json", scenes=["scene9000_00"])
    assert read_run(pictured).pictured_scenes() == ("scene9000_00",)


@pytest.mark.parametrize(("asked", "drawn"), [(None, 4), (1, 4), (5, 5)])
def test_as_many_rooms_are_drawn_as_the_run_asked_for(run, monkeypatch, asked, drawn):
    """Six were stored; how many of them are left out is said."""
    monkeypatch.setattr("haskd_jax.report.scenes._room", lambda run, name: f"<p>room {name}</p>")
    names = [f"s{i}" for i in range(6)]
    (run / "plain" / "predictions").mkdir()
    for name in names:
        np.save(run / "plain" / "predictions" / f"{name}.npy", np.zeros(1, np.int16))
    edit(run / "plain" / "evaluation.json", scenes=names)
    edit(run / "run.json", config={} if asked is None else {"pictures": asked})
    words = read(write_report(run)).words
    assert re.findall(r"room (s\d)", words) == names[:drawn]
    assert f"{drawn} of 6 scenes with predictions" in words


def test_classes_that_only_answers_have_are_not_shown(run):
    """The rows that are shown average to the mIoU."""
    path = run / "plain" / "evaluation.json"
    confusion = np.array(json.loads(path.read_text(encoding="utf-8"))["confusion"])
    gone = fake.CLASSES.index("curtain")
    confusion[gone], confusion[0, gone] = 0, 50
    hit = np.diag(confusion)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - hit
    iou = [float(h / u) if u else None for h, u in zip(hit, union, strict=True)]
    assert iou[gone] == 0.0  # as the record has it
    edit(path, confusion=confusion.tolist(), iou=iou)
    edit(run / "run.json", arms=["plain"])
    page = write_report(run).read_text(encoding="utf-8")
    shown = [float(value) for value in re.findall(r"</i></span><b>([\d.]+)</b>", page)]
    occurring = np.array(iou, float)[confusion.sum(axis=1) > 0]
    assert len(shown) == len(occurring)
    assert np.mean(shown) == pytest.approx(100 * occurring.mean(), abs=0.05)
    assert re.search(r"Not in this split: [^<]*curtain", page)


def test_prepared_scenes_that_moved_away(pictured):
    edit(pictured / "run.json", prepared=str(pictured / "gone"))
    result = read(write_report(pictured))
    assert "The prepared scenes of this run are not where it says" in result.words
    assert "img" not in result.tags


def test_a_split_without_labels_has_no_scores(run):
    edit(run / "haskd" / "evaluation.json", miou=None, accuracy=None, mean_accuracy=None)
    result = read(write_report(run))
    assert "not evaluated" in result.words
    assert "No verdict yet: HAS-KD has not been evaluated." in result.words


def test_arms_that_were_not_measured_alike_are_called_out(run):
    path = run / "haskd" / "evaluation.json"
    protocol = json.loads(path.read_text(encoding="utf-8"))["protocol"]
    edit(path, protocol=protocol | {"tta": 13})
    words = read(write_report(run)).words
    assert "The arms were not measured alike (tta differs): their scores do not compare." in words
    # As many scenes, but others.
    edit(path, protocol=protocol | {"scans": "another digest"})
    words = read(write_report(run)).words
    assert "(scans differs)" in words and "another digest" not in words


def test_who_was_helped_by_an_encoder_is_said(run):
    encoder = "image encoder trained before on 960 labelled frames"
    for arm in ("teacher", "haskd"):
        path = run / arm / "evaluation.json"
        protocol = json.loads(path.read_text(encoding="utf-8"))["protocol"]
        edit(path, protocol=protocol | {"encoder": encoder})
    words = read(write_report(run)).words
    assert f"With an {encoder}: Teacher, HAS-KD student." in words
    assert "not measured alike" not in words


def test_a_line_that_was_being_written_is_left_out(run):
    path = run / "plain" / "metrics.jsonl"
    path.write_text(path.read_text(encoding="utf-8") + '{"step": 610, "lo', encoding="utf-8")
    assert tuple(read(write_report(run)).headings) == TITLES


def broken_json(path):
    path.write_text("{", encoding="utf-8")


def broken_confusion(path):
    edit(path, confusion=[[1, 2]])


def broken_share(path):
    edit(path, miou=43.1)


def lacking(path):
    value = json.loads(path.read_text(encoding="utf-8"))
    del value["accuracy"]
    write_json(path, value)


def broken_line(path):
    path.write_text('{"step": 1}\nnonsense\n{"step": 2}\n', encoding="utf-8")


def without_scenes(path):
    edit(path, scenes=40)


def other_version(path):
    edit(path, version=2)


def other_indices(path):
    edit(path, scenes={"a": {"frames": 3, "indices": [3]}})


def other_scene(path):
    np.save(path, np.zeros(5, np.int16))


def truncated(path):
    path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("run.json", broken_json, "not readable as JSON"),
        ("run.json", other_version, "version 2, this package reads 1"),
        ("plain/evaluation.json", broken_json, "not readable as JSON"),
        ("plain/evaluation.json", broken_confusion, "evaluate again"),
        ("plain/evaluation.json", broken_share, "miou: 43.1, expected a share from 0 to 1"),
        ("plain/evaluation.json", lacking, "lacks 'accuracy': remove it and evaluate again"),
        ("plain/evaluation.json", other_version, "version 2"),
        ("plain/evaluation.json", without_scenes, "scenes: 40, expected a list of names"),
        ("plain/metrics.jsonl", broken_line, "line 2"),
        ("selection.json", other_indices, "indices [3] of 3 frames: remove it and select again"),
        ("plain/predictions/scene9000_00.npy", other_scene, "remove it and evaluate again"),
        ("plain/predictions/scene9000_00.npy", truncated, "remove it and evaluate again"),
    ],
)
def test_damage_is_named_with_its_file(pictured, name, damage, said):
    run = pictured
    damage(run / name)
    with pytest.raises(DataError, match=re.escape(said)) as caught:
        write_report(run)
    assert caught.value.file == str(run / name)
    assert not (run / "report.html").exists()


def test_arms_of_other_classes_are_refused(run):
    edit(run / "haskd" / "evaluation.json", classes=[*fake.CLASSES[:-1], "lamp"])
    with pytest.raises(DataError, match="classes are not those of plain"):
        write_report(run)


def test_predictions_of_no_class_are_refused(pictured):
    path = pictured / "plain" / "predictions" / "scene9000_00.npy"
    predicted = np.load(path)
    predicted[3] = fake.C
    np.save(path, predicted)
    for read_it in (write_report, lambda run: open_source(run).load("scene9000_00")):
        with pytest.raises(DataError, match=f"class {fake.C} of {fake.C}") as caught:
            read_it(pictured)
        assert caught.value.file == str(path)


def test_arms_outside_the_folder_are_refused(run):
    edit(run / "run.json", arms=["../elsewhere"])
    with pytest.raises(DataError, match="plain folder names"):
        write_report(run)


def test_nothing_half_written(run, monkeypatch):
    (run / "report.html").write_text("old", encoding="utf-8")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_report(run)
    assert (run / "report.html").read_text(encoding="utf-8") == "old"
    assert not list(run.glob(".partial-*"))


def test_a_sweep_is_shown_and_speaks_first(run):
    fake.write_results(run, {"plain": 0.48, "haskd": 0.50})
    result = read(write_report(run))
    assert result.headings[1] == "Over seeds"
    assert re.search(
        r"Full labels: HAS-KD is \d\.\d mIoU above .* over 8 paired seeds", result.words
    )
    assert "Setting: 20 % of the rooms" in result.words
    assert "HAS-KD minus plain, class by class" in result.words


def test_a_sweep_is_about_its_seeds_whatever_the_folder_held_before(run):
    fake.write_results(run, {"plain": 0.48, "haskd": 0.50})
    shutil.copytree(run, run / "seed_0", ignore=shutil.ignore_patterns("results.csv", "seed_0"))
    edit(run / "run.json", machine="an old one")
    edit(run / "seed_0" / "run.json", machine="that of the sweep")
    words = read(write_report(run)).words
    assert "that of the sweep" in words and "an old one" not in words
