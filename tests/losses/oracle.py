"""What every loss of haskd_jax.losses means, in plain NumPy f64.

Nothing here imports the package. One voxel at a time, sums written out; voxels that do not count
are skipped, not masked.
"""

import itertools

import numpy as np


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    largest = logits.max()
    return logits - largest - np.log(np.exp(logits - largest).sum())


def kl(log_p, log_q):
    return sum(np.exp(p) * (p - q) for p, q in zip(log_p, log_q, strict=True) if np.exp(p) > 0)


def cross_entropy(logits, label, class_weights, smoothing):
    weighted = -np.asarray(class_weights, np.float64) * log_softmax(logits)
    return (1 - smoothing) * weighted[label] + smoothing * weighted.mean()


def kl_divergence(student, teacher, temperature):
    log_q, log_p = log_softmax(student / temperature), log_softmax(teacher / temperature)
    return temperature**2 * kl(log_p, log_q)


def decoupled_kl_divergence(student, teacher, label, temperature, alpha, beta):
    """In probabilities, as the paper writes it."""
    target = int(np.argmax(teacher)) if label < 0 else label
    q, p = (np.exp(log_softmax(logits / temperature)) for logits in (student, teacher))
    q_others, p_others = np.delete(q, target), np.delete(p, target)
    if not q_others.size:
        return 0.0
    q_rest, p_rest = q_others.sum(), p_others.sum()
    tckd = p[target] * np.log(p[target] / q[target]) + p_rest * np.log(p_rest / q_rest)
    nckd = (p_others / p_rest * np.log((p_others / p_rest) / (q_others / q_rest))).sum()
    return temperature**2 * (alpha * tckd + beta * nckd)


def cosine(a, b):
    norms = np.sqrt((a * a).sum()) * np.sqrt((b * b).sum())
    return (a * b).sum() / norms if norms > 0 else 0.0


def relational(student, teacher, edges):
    """One value per edge (i, j)."""
    return [
        (cosine(student[i], student[j]) - cosine(teacher[i], teacher[j])) ** 2 for i, j in edges
    ]


def confidence(logits):
    log_p = log_softmax(logits)
    if len(log_p) == 1:
        return 1.0
    return 1 + (np.exp(log_p) * log_p).sum() / np.log(len(log_p))


def jaccard_loss(target, mistakes):
    """1 - IoU of a class whose voxels are `target`, if `mistakes` are predicted wrongly."""
    predicted = target ^ mistakes
    union = (predicted | target).sum()
    return 1 - (predicted & target).sum() / union if union else 0.0


def lovasz_extension(target, errors):
    """The integral over t in [0, 1] of the loss of the mistakes {error > t}."""
    steps = np.concatenate([[0.0], np.unique(errors)])
    return sum(
        (high - low) * jaccard_loss(target, errors > low) for low, high in itertools.pairwise(steps)
    )


def jaccard_slopes(target, errors):
    """What each voxel adds to the loss where they join the mistakes, largest error first."""
    mistakes, slopes, before = np.zeros(len(errors), bool), np.zeros(len(errors)), 0.0
    for i in np.argsort(-np.asarray(errors, np.float64), kind="stable"):
        mistakes[i] = True
        after = jaccard_loss(target, mistakes)
        slopes[i], before = after - before, after
    return slopes


def lovasz_softmax(logits, labels):
    """Over voxels that all count and have labels."""
    values = []
    for c in sorted(set(labels)):
        p = np.array([np.exp(log_softmax(row))[c] for row in logits])
        target = np.asarray(labels) == c
        values.append(lovasz_extension(target, np.where(target, 1 - p, p)))
    return np.mean(values) if values else 0.0


def adept_divergence(student, experts, omega, label, temperature, unlabelled):
    """One voxel; `experts` [M, C]. None if the voxel does not count."""
    if label < 0:
        if unlabelled == "ignore":
            return None
        shares = [np.exp(log_softmax(row)) * omega[m] for m, row in enumerate(experts)]
        label = int(np.argmax(np.sum(shares, axis=0)))
    return sum(
        omega[m, label] * kl_divergence(student, row, temperature) for m, row in enumerate(experts)
    )


def adeptness(iou, mode, temperature, student_iou=None, margin=0.0, counts=None, shrinkage=1000.0):
    """One class at a time."""
    num_experts, num_classes = iou.shape
    rows = [*iou] if student_iou is None else [*iou, student_iou]
    table = np.array(rows, np.float64)
    known = [
        c
        for c in range(num_classes)
        if not np.isnan(table[:, c]).any() and (counts is None or counts[c] > 0)
    ]
    if counts is not None and known:
        r = np.array([counts[c] / (counts[c] + shrinkage) for c in known])
        given = table[:, known]
        row_mean = (given * r).sum(1) / r.sum()
        class_mean = given.mean(0)
        grand_mean = (class_mean * r).sum() / r.sum()
        expected = row_mean[:, None] + class_mean[None] - grand_mean
        table[:, known] = r * given + (1 - r) * expected
    omega = np.full((num_experts, num_classes), 1 / num_experts)
    for c in known:
        scores = table[:num_experts, c]
        may = np.full(num_experts, True)
        if student_iou is not None:
            may = scores > table[num_experts, c] + margin
        omega[:, c] = 0
        if not may.any():
            continue
        if mode == "hard":
            omega[int(np.argmax(np.where(may, scores, -np.inf))), c] = 1
        else:
            shares = np.where(may, np.exp((scores - scores.max()) / temperature), 0)
            omega[:, c] = shares / shares.sum()
    return omega
