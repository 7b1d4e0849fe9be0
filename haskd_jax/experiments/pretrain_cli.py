"""`haskd pretrain`: a teacher's image encoder, trained by itself, from the command line."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from haskd_jax.data import list_scenes
from haskd_jax.data.few_labels import read_scene_list
from haskd_jax.experiments.trained import check_folder
from haskd_jax.guarded import guarded
from haskd_jax.train.config import ImageTrainingConfig


def pretrain(
    data: tyro.conf.Positional[Path],
    out: Path,
    images: Annotated[ImageTrainingConfig, tyro.conf.arg(name="")],
    split: str = "train",
    scenes: Path | None = None,
    held_back: int = 0,
) -> int:
    """Trains an image encoder on the labelled frames of prepared scenes.

    Teachers of the same shape then use it as it is: `haskd train scannet small --encoder OUT`. The
    same command goes on where it was ended.

    Args:
        data: The prepared root.
        out: Folder of the encoder.
        images: How.
        split: Which of the scenes.
        scenes: A list of scenes, one a line, in place of the whole split. Give the scenes whose
            labels the experiment may see, and never those that it is evaluated on.
        held_back: The last so many of them are not learnt from; the encoder is scored on them.
    """
    from rich.console import Console

    from haskd_jax.data.workers import locked
    from haskd_jax.experiments.progress import bar
    from haskd_jax.train.image_training import train_encoder
    from haskd_jax.train.stopping import Stopped

    check_folder(out)
    names = list_scenes(data, split)
    if scenes is not None:
        chosen = read_scene_list(scenes, names)
        names = tuple(name for name in names if name in chosen)
    if not 0 <= held_back < len(names):
        raise ValueError(f"held_back: {held_back} of {len(names)} scenes, expected fewer of them")
    console = Console()
    learnt, others = names[: len(names) - held_back], names[len(names) - held_back :]
    out.mkdir(parents=True, exist_ok=True)
    try:
        with locked(out), bar(console, "image encoder", images.steps) as show:
            found = train_encoder(images, data, learnt, out, held_back=others, show=show)
    except Stopped as stopped:
        console.print(str(stopped), soft_wrap=True)
        return 143
    except FloatingPointError as error:
        print(f"haskd pretrain: {error}", file=sys.stderr)
        return 1
    text = f"{out}: {found['steps']} steps on {found['frames']} frames"
    if "miou" in found:
        text += f"; 2D mIoU on {held_back} scenes held back: {100 * found['miou']:.1f}"
    console.print(text, soft_wrap=True, highlight=False)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `haskd pretrain`.

    Args:
        arguments: After `pretrain`; those of the command line by default.

    Returns:
        The exit code.
    """
    return guarded("pretrain", lambda: tyro.cli(pretrain, prog="haskd pretrain", args=arguments))


if __name__ == "__main__":
    raise SystemExit(main())
