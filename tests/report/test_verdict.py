import dataclasses
from pathlib import Path

import numpy as np
import pytest

from haskd_jax.experiments.arms import ARMS
from haskd_jax.report.run_folder import Arm, Evaluation, Run
from haskd_jax.report.statistics import PairedDifference
from haskd_jax.report.verdict import STUDENTS, TEACHERS, findings, headline, signed

CLASSES = ("wall", "floor", "chair", "sofa")


def evaluation(miou, accuracy=0.7, views=0, parameters=100):
    confusion = np.diag([50, 30, 15, 5]).astype(np.int64)
    protocol = {"views": views}
    return Evaluation(
        protocol, CLASSES, confusion, (miou,) * 4, miou, accuracy, 0.5, parameters, 0.1
    )


def run(**arms):
    made = tuple(Arm(name, Path(name), (), scored, ()) for name, scored in arms.items())
    return Run(Path("run"), {"experiment": "synthrooms"}, made, None, None)


def pair(haskd, plain):
    return run(plain=evaluation(plain), haskd=evaluation(haskd))


@pytest.mark.parametrize(
    ("haskd", "plain", "said"),
    [
        (0.45, 0.41, "HAS-KD is 4.0 mIoU above the plain student. This is one seed"),
        (0.43, 0.412, "On this seed HAS-KD is 1.8 mIoU above the plain student: one seed"),
        (0.41, 0.414, "On this seed HAS-KD is 0.4 mIoU below the plain student: one seed"),
        (0.41, 0.4104, "On this seed HAS-KD is level with the plain student: one seed"),
        (0.35, 0.41, "On this seed HAS-KD is 6.0 mIoU below the plain student, and one seed"),
    ],
)
def test_headline_in_each_direction(haskd, plain, said):
    text = headline(pair(haskd, plain))
    assert text.startswith(said)
    assert "about 2 points" in text


@pytest.mark.parametrize(
    ("haskd", "plain", "said"),
    [(0.43, 0.42, "shows no gain."), (0.42, 0.43, "shows no loss."), (0.3, 0.4, "did harm.")],
)
def test_headline_says_what_one_seed_shows(haskd, plain, said):
    assert headline(pair(haskd, plain)).endswith(said)


def test_a_report_is_about_the_part_of_the_method_that_was_run():
    """The arms that the documentation recommends are not those of HAS-KD."""
    arms = run(plain=evaluation(0.41), asd=evaluation(0.45))
    assert headline(arms).startswith("ASD is 4.0 mIoU above the plain student.")
    assert "ASD costs nothing at inference" in " ".join(findings(arms))
    assert "ASD scores 45.0 mIoU" in findings(arms)[-1]
    arms = run(plain=evaluation(0.41), asd=evaluation(0.45), ihd=evaluation(0.40))
    assert headline(arms).startswith("On this seed IHD is 1.0 mIoU below the plain student")
    swept = [PairedDifference("", "ihd", 8, 0.032, 0.01, 0.022, 0.041)]
    assert headline(arms, swept).startswith("IHD is 3.2 mIoU above the plain student over 8")
    # What is still to come is waited for.
    arms = run(plain=evaluation(0.41), ihd=evaluation(0.45), haskd=None)
    assert "HAS-KD has not been evaluated" in headline(arms)
    # But a sweep is about its own arms, whatever else the folder of a seed holds.
    assert headline(arms, swept).startswith("IHD is 3.2 mIoU above the plain student over 8")


@pytest.mark.parametrize("arm", [name for name in STUDENTS if STUDENTS[name].islower()] + ["ihd"])
def test_any_student_may_be_what_a_report_is_about(arm):
    arms = run(plain=evaluation(0.41), **{arm: evaluation(0.45)})
    name = STUDENTS[arm][0].upper() + STUDENTS[arm][1:]
    assert headline(arms).startswith(f"{name} is 4.0 mIoU above the plain student.")
    assert any(text.startswith(f"{name} costs nothing") for text in findings(arms))
    swept = [PairedDifference("", arm, 8, 0.032, 0.01, 0.022, 0.041)]
    assert headline(arms, swept).startswith(f"{name} is 3.2 mIoU above the plain student over 8")


def test_every_student_but_the_plain_one_has_a_place():
    others = [name for name, arm in ARMS.items() if arm.role == "student" and name != "plain"]
    first = ["haskd", "ihd", "asd"]
    assert list(STUDENTS) == first + [name for name in others if name not in first]
    assert set(TEACHERS) == {name for name, arm in ARMS.items() if arm.role == "teacher"}


def test_how_far_a_seed_moves_is_said_where_it_was_measured():
    other = dataclasses.replace(pair(0.45, 0.41), info={"experiment": "scannet"})
    text = headline(other)
    assert text.startswith("On this seed HAS-KD is 4.0 mIoU above the plain student.")
    assert "2 points" not in text and "not measured" in text


@pytest.mark.parametrize(
    ("low", "mean", "high"), [(0.0001, 0.0002, 0.0003), (-0.05, 0.0002, 0.05), (0.0, 0.0, 0.0)]
)
def test_a_difference_of_nothing_is_not_called_one(low, mean, high):
    text = headline(pair(0.9, 0.1), [PairedDifference("", "haskd", 8, mean, 0.01, low, high)])
    assert text.startswith("HAS-KD and the plain student are not told apart over 8 paired seeds (")
    assert text.endswith(f"interval {signed(low)} to {signed(high)}).")


def test_headline_without_both():
    assert "the plain student has not been evaluated" in headline(run(haskd=evaluation(0.4)))


@pytest.mark.parametrize(
    ("low", "mean", "high", "said"),
    [
        (0.005, 0.018, 0.031, "1.8 mIoU above the plain student over 8 paired seeds"),
        (0.005, 0.018, 0.031, "(95 % interval +0.5 to +3.1): the gain is beyond chance."),
        (-0.01, 0.018, 0.046, "the interval holds zero, so no difference is shown."),
        (-0.03, -0.02, -0.01, "2.0 mIoU below the plain student over 8 paired seeds"),
        (-0.03, -0.02, -0.01, "the loss is beyond chance."),
    ],
)
def test_seeds_speak_before_one_run(low, mean, high, said):
    difference = PairedDifference("full labels", "haskd", 8, mean, 0.01, low, high)
    text = headline(pair(0.9, 0.1), [difference])
    assert said in text and text.startswith("Full labels: ")


@pytest.mark.parametrize(
    ("teacher", "plain", "said"),
    [
        (0.50, 0.40, "10.0 mIoU above the plain student: it has something to teach."),
        (0.41, 0.40, "1.0 mIoU above the plain student: it has little to teach."),
        (0.30, 0.40, "10.0 mIoU below the plain student: it has little to teach."),
    ],
)
def test_teacher(teacher, plain, said):
    arms = run(plain=evaluation(plain), teacher=evaluation(teacher, views=3))
    assert findings(arms)[0] == f"The teacher, which sees images, is {said}"
    blind = run(plain=evaluation(plain), teacher=evaluation(teacher))
    assert findings(blind)[0] == f"The teacher, which saw no image here, is {said}"
    uniform = run(plain=evaluation(plain), teacher_uniform=evaluation(teacher, views=3))
    assert findings(uniform)[0] == f"The teacher, which sees images, is {said}"


@pytest.mark.parametrize(
    ("miou", "accuracy", "said"),
    [
        (0.40, 0.70, "(more)"),
        (0.14, 0.70, "(hardly more: it has learnt little)"),
        (0.40, 0.45, "(hardly more: it has learnt little)"),
        (0.10, 0.50, "(no more: it has learnt nothing)"),
    ],
)
def test_majority(miou, accuracy, said):
    # Always "wall" is right on 50 of 100 points, an IoU of 0.5 in one of four classes.
    text = findings(run(plain=evaluation(miou, accuracy)))[-1]
    assert "would score 12.5 mIoU and 50.0 % accuracy" in text
    assert text.endswith(f"{said}.")


@pytest.mark.parametrize(
    ("points", "miou", "said"),
    [
        ([900, 100], 0.85, "(more)"),  # always the first scores 45.0: twice that is hardly reached
        ([900, 100], 0.455, "learnt little"),
        ([380] + [30] * 19, 0.038, "learnt little"),  # always the first scores 2.0
        ([380] + [30] * 19, 0.042, "(more)"),
        ([1000, 0], 1.0, None),
    ],
)
def test_majority_of_few_classes_and_of_many(points, miou, said):
    confusion = np.diag(points).astype(np.int64)
    classes = tuple(map(str, range(len(points))))
    found = dataclasses.replace(evaluation(miou, 0.95), classes=classes, confusion=confusion)
    text = findings(run(plain=found))[-1]
    assert (said in text) if said else ("Always answering" not in text)


def test_cost_at_inference():
    same = findings(pair(0.5, 0.4))
    assert any("costs nothing at inference" in text for text in same)
    larger = dataclasses.replace(evaluation(0.5), parameters=200)
    text = findings(run(plain=evaluation(0.4), haskd=larger))
    assert not any("costs nothing" in t for t in text)
    assert any("HAS-KD has 200 parameters, the plain student 100." in t for t in text)
