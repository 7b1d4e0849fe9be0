"""Values and gradients against PyTorch's own losses, where it is installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from haskd_jax import losses

from .common import ALPHA, BETA, SMOOTHING, TEMPERATURE, scene

torch = pytest.importorskip("torch", reason="PyTorch is the oracle here, and is not installed")
F = torch.nn.functional

GIVEN = scene(50)
V, C = GIVEN.rows["student"].shape
LABELS = np.maximum(GIVEN.labels, 0)


def torch_cross_entropy(s, t, f, g):
    weight = torch.tensor(GIVEN.class_weights)
    labels = torch.tensor(GIVEN.labels).long()
    options = {"ignore_index": -1, "reduction": "none", "label_smoothing": SMOOTHING}
    return F.cross_entropy(s, labels, weight=weight, **options)


def torch_kl(s, t, f, g):
    log_q, p = (s / TEMPERATURE).log_softmax(-1), (t / TEMPERATURE).softmax(-1)
    return F.kl_div(log_q, p, reduction="none").sum(-1) * TEMPERATURE**2


def torch_decoupled(s, t, f, g):
    """Of the binary distributions and of those that leave the target out."""
    target = F.one_hot(torch.tensor(LABELS).long(), C).bool()

    def parts(logits):
        p = (logits / TEMPERATURE).softmax(-1)
        binary = torch.stack([p[target], 1 - p[target]], -1)
        return binary, (logits[~target].reshape(V, C - 1) / TEMPERATURE).log_softmax(-1)

    (binary_q, others_q), (binary_p, others_p) = parts(s), parts(t)
    tckd = F.kl_div(binary_q.log(), binary_p, reduction="none").sum(-1)
    nckd = F.kl_div(others_q, others_p.exp(), reduction="none").sum(-1)
    return TEMPERATURE**2 * (ALPHA * tckd + BETA * nckd)


def torch_cosine(s, t, f, g):
    return 1 - F.cosine_similarity(f @ torch.tensor(GIVEN.projection), g, dim=-1)


def torch_lovasz(s, t, f, g):
    """By differences of the Jaccard loss along the sorted errors."""
    p, labels = s.softmax(-1), torch.tensor(LABELS)
    values = []
    for c in labels.unique():
        target = labels == c
        errors, order = torch.where(target, 1 - p[:, c], p[:, c]).sort(descending=True)
        hit = target[order].double()
        losses = 1 - (hit.sum() - hit.cumsum(0)) / (hit.sum() + (1 - hit).cumsum(0))
        values.append((errors * losses.diff(prepend=torch.zeros(1).double())).sum())
    return torch.stack(values).mean()[None]


CASES = {
    torch_cross_entropy: lambda s, t, f, g: losses.cross_entropy(
        s, GIVEN.labels, class_weights=jnp.asarray(GIVEN.class_weights), label_smoothing=SMOOTHING
    ),
    torch_kl: lambda s, t, f, g: losses.kl_divergence(s, t, temperature=TEMPERATURE),
    torch_decoupled: lambda s, t, f, g: losses.decoupled_kl_divergence(
        s, t, LABELS, temperature=TEMPERATURE, target_weight=ALPHA, non_target_weight=BETA
    ),
    torch_cosine: lambda s, t, f, g: losses.feature_cosine(
        f, g, projection=jnp.asarray(GIVEN.projection)
    ),
    torch_lovasz: lambda s, t, f, g: losses.lovasz_softmax(s, LABELS)[None],
}


@pytest.mark.parametrize("reference", CASES, ids=lambda function: function.__name__)
def test_agrees_with_torch(reference):
    names = "student", "teacher", "student_features", "teacher_features"
    arrays = [GIVEN.rows[name] for name in names]
    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
    desired = reference(*tensors)
    cotangent = np.random.default_rng(0).normal(size=desired.shape)
    (desired * torch.tensor(cotangent)).sum().backward()
    with jax.enable_x64(True):
        values, pull = jax.vjp(CASES[reference], *map(jnp.asarray, arrays))
        grads = pull(jnp.asarray(cotangent))
    np.testing.assert_allclose(values, desired.detach().numpy(), rtol=1e-9, atol=1e-12)
    for index in (0, 2):  # the student's; the teacher's is cut
        if tensors[index].grad is not None:
            desired_grad = tensors[index].grad.numpy()
            np.testing.assert_allclose(grads[index], desired_grad, rtol=1e-7, atol=1e-10)
