"""Where images have most to add to a scene: where a student alone, which sees none, is unsure."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32

from haskd_jax import views
from haskd_jax.data import Scene
from haskd_jax.train.networks import Network
from haskd_jax.train.prediction import Weights, predict_scene

Array = np.ndarray


@dataclass(frozen=True)
class Informant:
    """How much information is wanted at the points of a scene, see `views.information`.

    Attributes:
        network: A student.
        weights: Its parameters and running statistics.
        digest: What its weights are known by.
        weight: How much more is wanted where it knows nothing than where it is sure.
    """

    network: Network
    weights: Weights
    digest: str
    weight: float

    @property
    def record(self) -> dict[str, Any]:
        """What decides its answers, as a selection keeps it."""
        return {"weight": self.weight, "student": self.digest}

    def __call__(self, scene: Scene) -> Float32[Array, " N"]:
        """How much is wanted at each point of a scene."""
        probabilities = predict_scene(self.network, *self.weights, scene)
        wanted = views.information(jnp.log(probabilities), weight=self.weight)
        return np.asarray(wanted)
