"""The result in words, right whichever way it falls."""

from collections.abc import Container, Sequence

from haskd_jax.report.run_folder import Evaluation, Run
from haskd_jax.report.statistics import PairedDifference, majority

REFERENCE = "plain"
# Those that may have seen images; the first that was evaluated speaks for them.
TEACHERS = ("teacher", "teacher_uniform", "teacher_random")
# Whom a report may be about, by preference, and what people call the way in which it was taught.
STUDENTS = {
    "haskd": "HAS-KD",
    "ihd": "IHD",
    "asd": "ASD",
    "cyclic": "the cyclic schedule",
    "ihd_uniform": "IHD without IOF",
    "ihd_cyclic": "IHD with a cyclic schedule",
    "ihd_points": "IHD without images",
    "mean_snapshots": "self-distillation without adeptness",
    "smoothing": "label smoothing",
}
# How far one seed moves by itself, mIoU points, and the experiment of which that was measured.
SEED_NOISE, _MEASURED = 2.0, "synthrooms"
# Of what is between the most frequent class and no error: who closes less has learnt little.
_LITTLE = 0.02


def points(share: float) -> str:
    """A share from 0 to 1 as people read scores: of a hundred, one decimal.

    Example:
        >>> points(0.4137)
        '41.4'
    """
    return f"{100 * share:.1f}"


def signed(share: float) -> str:
    """A difference of two shares: of a hundred, with its sign.

    Example:
        >>> signed(-0.0042).encode("ascii", "replace"), signed(0.018), signed(-0.0001)
        (b'?0.4', '+1.8', '0.0')
    """
    text = f"{100 * share:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")


def compare(name: str, score: float, other: str, other_score: float) -> str:
    """One clause on two mIoU, as far as they are printed.

    Args:
        name: Subject of the clause.
        score: Its mIoU, 0 to 1.
        other: What it is compared with.
        other_score: Its mIoU.

    Returns:
        The clause, without a full stop.

    Example:
        >>> compare("HAS-KD", 0.431, "the plain student", 0.413)
        'HAS-KD is 1.8 mIoU above the plain student'
        >>> compare("HAS-KD", 0.40, "the plain student", 0.4001)
        'HAS-KD is level with the plain student'
    """
    difference = 100 * (score - other_score)
    size = f"{abs(difference):.1f}"
    if float(size) == 0:
        return f"{name} is level with {other}"
    return f"{name} is {size} mIoU {'above' if difference > 0 else 'below'} {other}"


def student_of(arms: Container[str]) -> str:
    """The student that a report is about: of HAS-KD, or of what comes nearest to it.

    Args:
        arms: Names of those of the run, evaluated or not yet.

    Returns:
        The name of an arm; that of HAS-KD where there is none of them.

    Example:
        >>> student_of({"plain", "asd", "ihd"}), student_of({"plain"})
        ('ihd', 'haskd')
    """
    return next((name for name in STUDENTS if name in arms), "haskd")


def headline(run: Run, differences: Sequence[PairedDifference] = ()) -> str:
    """The one sentence to take away.

    Args:
        run: The run.
        differences: Of a sweep over seeds, if there was one; it counts for more than one run.

    Returns:
        The sentence.
    """
    compared = [d for d in differences if d.low is not None]
    name = student_of({d.arm for d in compared} or {arm.name for arm in run.arms})
    if swept := [d for d in compared if d.arm == name]:
        return " ".join(_over_seeds(d) for d in swept)
    student, plain = _evaluation(run, name), _evaluation(run, REFERENCE)
    if not student or not plain:
        missing = [n for n, e in ((STUDENTS[name], student), ("the plain student", plain)) if not e]
        verb = "has" if len(missing) == 1 else "have"
        return f"No verdict yet: {' and '.join(missing)} {verb} not been evaluated."
    difference = 100 * (student.miou - plain.miou)
    text = compare(STUDENTS[name], student.miou, "the plain student", plain.miou)
    if run.info.get("experiment") != _MEASURED:
        return f"On this seed {text}. How far another seed would move that was not measured here."
    noise = f"one seed of a run this small moves by about {SEED_NOISE:.0f} points"
    if abs(difference) < SEED_NOISE:
        which = "no gain" if difference >= 0 else "no loss"
        return f"On this seed {text}: {noise}, so this alone shows {which}."
    if difference < 0:
        return f"On this seed {text}, and {noise}: here distillation did harm."
    return f"{begun(text)}. This is one seed; {noise}."


def begun(text: str) -> str:
    """A text as a sentence begins.

    Example:
        >>> begun("label smoothing")
        'Label smoothing'
    """
    return text[:1].upper() + text[1:]


def _over_seeds(d: PairedDifference) -> str:
    assert d.low is not None and d.high is not None
    text = compare(STUDENTS[d.arm], d.mean, "the plain student", 0.0)
    where = f"{begun(d.setting)}: " if d.setting else ""
    over = f"over {d.seeds} paired seeds (95 % interval {signed(d.low)} to {signed(d.high)})"
    if signed(d.mean) == "0.0":  # it has no side, and how far the interval reaches is all there is
        pair = f"{STUDENTS[d.arm]} and the plain student"
        return f"{where}{pair if where else begun(pair)} are not told apart {over}."
    if not d.excludes_zero:
        tail = "the interval holds zero, so no difference is shown"
    else:
        tail = "the gain is beyond chance" if d.mean > 0 else "the loss is beyond chance"
    return f"{where}{text if where else begun(text)} {over}: {tail}."


def findings(run: Run) -> list[str]:
    """The other comparisons a reader should know of, one sentence each.

    Args:
        run: The run.

    Returns:
        Sentences, none where nothing was evaluated.
    """
    sentences = []
    plain = _evaluation(run, REFERENCE)
    teacher = next((found for name in TEACHERS if (found := _evaluation(run, name))), None)
    name = student_of({arm.name for arm in run.arms})
    student = _evaluation(run, name)
    if teacher and plain:
        clause = compare("The teacher", teacher.miou, "the plain student", plain.miou)
        ahead = teacher.miou - plain.miou >= SEED_NOISE / 100
        sees = ", which sees images," if teacher.needs_images else ", which saw no image here,"
        clause = clause.replace("The teacher", f"The teacher{sees}", 1)
        sentences.append(f"{clause}: it has {'something' if ahead else 'little'} to teach.")
    elif plain:
        sentences.append("No teacher was evaluated, so what images add is not known.")
    if student and plain and student.parameters and plain.parameters:
        if student.parameters == plain.parameters and not student.needs_images:
            cost = "costs nothing at inference: as many parameters as the plain student"
            sentences.append(f"{begun(STUDENTS[name])} {cost}, and no images.")
        else:
            sentences.append(
                f"{begun(STUDENTS[name])} has {student.parameters:,} parameters, the plain student "
                f"{plain.parameters:,}."
            )
    return sentences + _against_majority(run)


def _against_majority(run: Run) -> list[str]:
    """What the students know beyond the most frequent class; one sentence for arms of one split."""
    clauses: dict[str, list[str]] = {}
    student = student_of({arm.name for arm in run.arms})
    for arm in run.evaluated:
        evaluation = arm.evaluation
        assert evaluation
        base = majority(evaluation.confusion)
        if base is None or arm.name not in (REFERENCE, student):
            continue
        if base.miou == 1:  # of one class: always answering it is never wrong
            continue
        head = (
            f"Always answering \N{LEFT DOUBLE QUOTATION MARK}{evaluation.classes[base.index]}"
            f"\N{RIGHT DOUBLE QUOTATION MARK} would score {points(base.miou)} mIoU and "
            f"{points(base.accuracy)} % accuracy"
        )
        closed = (evaluation.miou - base.miou) / (1 - base.miou)
        if closed >= _LITTLE and evaluation.accuracy > base.accuracy:
            judgement = "more"
        elif evaluation.miou > base.miou:
            judgement = "hardly more: it has learnt little"
        else:
            judgement = "no more: it has learnt nothing"
        name = "the plain student" if arm.name == REFERENCE else STUDENTS[student]
        score = f"{points(evaluation.miou)} mIoU and {points(evaluation.accuracy)} %"
        clauses.setdefault(head, []).append(f"{name} scores {score} ({judgement})")
    return [f"{head}; {', '.join(parts)}." for head, parts in clauses.items()]


def _evaluation(run: Run, name: str) -> Evaluation | None:
    return next((arm.evaluation for arm in run.arms if arm.name == name), None)
