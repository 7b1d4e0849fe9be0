"""Networks in Flax NNX: students from voxels to logits, the multi-modal teacher, the expert bank.

All students follow one protocol, `features, logits = student(grid, maps, features)`; see `Student`
for what a network of one's own must do, and `functional` for plain pytrees of parameters.
"""

from haskd_jax.models.batch_norm import BatchNorm
from haskd_jax.models.experts import (
    Draw,
    ExpertBank,
    add_expert,
    all_experts,
    bank_adeptness,
    empty_bank,
    expert,
    rotate,
)
from haskd_jax.models.images import (
    IMAGE_STRIDE,
    ImageEncoder,
    ImageEncoderConfig,
    ViewPooling,
    pool_levels,
)
from haskd_jax.models.layers import Conv, ConvNormRelu, Head, Linear, LinearNorm, ResidualBlock
from haskd_jax.models.minkunet import MINKUNET, MinkUNet, MinkUNetConfig
from haskd_jax.models.spvcnn import SPVCNN
from haskd_jax.models.student import FusingStudent, Student, functional
from haskd_jax.models.teacher import Teacher, TeacherOutput, drop_views

__all__ = [
    "IMAGE_STRIDE",
    "MINKUNET",
    "SPVCNN",
    "BatchNorm",
    "Conv",
    "ConvNormRelu",
    "Draw",
    "ExpertBank",
    "FusingStudent",
    "Head",
    "ImageEncoder",
    "ImageEncoderConfig",
    "Linear",
    "LinearNorm",
    "MinkUNet",
    "MinkUNetConfig",
    "ResidualBlock",
    "Student",
    "Teacher",
    "TeacherOutput",
    "ViewPooling",
    "add_expert",
    "all_experts",
    "bank_adeptness",
    "drop_views",
    "empty_bank",
    "expert",
    "functional",
    "pool_levels",
    "rotate",
]
