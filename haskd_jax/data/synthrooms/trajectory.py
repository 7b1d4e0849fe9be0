"""How a person carries a camera through a room."""

from dataclasses import dataclass

import numpy as np

from haskd_jax.data.synthrooms.layout import Room
from haskd_jax.data.synthrooms.style import Style

Array = np.ndarray
Rng = np.random.Generator

_FROM_WALLS = 0.45  # metres


@dataclass(frozen=True)
class Walk:
    """A camera's way.

    Attributes:
        camera_to_world: [F, 4, 4] float64; the camera looks along +z, x right, y down.
        turning: [F, 2] how far the view moves in the image during an exposure, radians to the
            right and down.
    """

    camera_to_world: Array
    turning: Array


def walk(rng: Rng, room: Room, style: Style, frames: int) -> Walk:
    """Walks through a room.

    Half of the frames sweep the room from two places; in the others the person lingers at things,
    stares at blank wall or at the floor, and turns quickly from one to the next.

    Args:
        rng: All randomness.
        room: The room.
        style: Height, pitch and shake.
        frames: How many frames F.

    Returns:
        The poses.

    Example:
        >>> from haskd_jax.data.synthrooms.layout import furnish
        >>> from haskd_jax.data.synthrooms.style import STYLES
        >>> rng = np.random.default_rng(0)
        >>> walk(rng, furnish(rng, STYLES["a"]), STYLES["a"], 20).camera_to_world.shape
        (20, 4, 4)
    """
    eyes, targets = [], []
    first, second = frames * 3 // 10, frames // 4
    for count in (first, second):
        eye, target = _sweep(rng, room, style, count)
        eyes.append(eye)
        targets.append(target)
        left = (frames - first - second) // 2
        if count == second:
            left = frames - first - second - left
        while left > 0:
            count = min(left, int(rng.integers(2, 6)))
            eye, target = _linger(rng, room, style, count)
            eyes.append(eye)
            targets.append(target)
            left -= count
    eye, target = np.concatenate(eyes), np.concatenate(targets)
    forward = target - eye
    yaw = np.arctan2(forward[:, 1], forward[:, 0])
    pitch = np.arctan2(forward[:, 2], np.hypot(forward[:, 0], forward[:, 1]))
    shake = np.deg2rad(style.shake) * rng.normal(size=(frames, 3))
    poses = look(eye, yaw + shake[:, 0], pitch + shake[:, 1], 2 * shake[:, 2])
    # One frame in six is taken in motion; a turn to the next thing always is.
    step = np.angle(np.exp(1j * np.diff(yaw, prepend=yaw[0])))
    moving = rng.random(frames) < 1 / 6
    turning = rng.normal(size=(frames, 2)) * np.where(moving, 0.03, 0.004)[:, None]
    turning[:, 0] += np.clip(-0.04 * step, -0.05, 0.05)
    return Walk(poses, turning)


def look(eye: Array, yaw: Array, pitch: Array, roll: Array) -> Array:
    """Poses of cameras.

    Args:
        eye: [F, 3] metres.
        yaw: [F] radians about z, 0 along x.
        pitch: [F] radians, upwards.
        roll: [F] radians about the line of sight.

    Returns:
        [F, 4, 4] camera-to-world.

    Example:
        >>> look(np.zeros((1, 3)), *np.zeros((3, 1)))[0, :3, 2].tolist()
        [1.0, 0.0, 0.0]
    """
    zero = np.zeros_like(yaw)
    forward = np.stack(
        [np.cos(pitch) * np.cos(yaw), np.cos(pitch) * np.sin(yaw), np.sin(pitch)], axis=1
    )
    right = np.stack([np.sin(yaw), -np.cos(yaw), zero], axis=1)
    down = np.cross(forward, right)
    c, s = np.cos(roll)[:, None], np.sin(roll)[:, None]
    poses = np.tile(np.eye(4), (len(yaw), 1, 1))
    poses[:, :3, 0] = c * right + s * down
    poses[:, :3, 1] = c * down - s * right
    poses[:, :3, 2] = forward
    poses[:, :3, 3] = eye
    return poses


def _stand(rng: Rng, room: Room, style: Style, tries: int = 30) -> Array:
    """A place where a person may hold the camera."""
    width, depth, _ = room.size
    for _ in range(tries):
        x = rng.uniform(_FROM_WALLS, width - _FROM_WALLS)
        y = rng.uniform(_FROM_WALLS, depth - _FROM_WALLS)
        free = all(
            x < b[0] - 0.2 or x > b[1] + 0.2 or y < b[2] - 0.2 or y > b[3] + 0.2 for b in room.tall
        )
        if free:
            break
    else:
        x, y = width / 2, depth / 2
    return np.array([x, y, rng.uniform(*style.eye)])


def _sweep(rng: Rng, room: Room, style: Style, count: int) -> tuple[Array, Array]:
    """Turns once around, strolling; in orbits the camera looks over the room from its edge."""
    here, there = _stand(rng, room, style), _stand(rng, room, style)
    share = np.linspace(0, 1, count)[:, None]
    eye = here + share * (there - here) * 0.5
    turn = rng.uniform(0, 2 * np.pi) + rng.choice([-1, 1]) * np.linspace(0, 2 * np.pi, count)
    if rng.random() < style.orbit:
        middle = np.array([*room.size[:2], 0]) / 2
        half = middle[:2] - _FROM_WALLS
        edge = np.stack([np.cos(turn), np.sin(turn)], axis=1) * half + middle[:2]
        blocked = np.zeros(count, bool)
        for x0, x1, y0, y1 in room.tall:
            blocked |= (
                (edge[:, 0] > x0 - 0.2)
                & (edge[:, 0] < x1 + 0.2)
                & (edge[:, 1] > y0 - 0.2)
                & (edge[:, 1] < y1 + 0.2)
            )
        eye[:, :2] = np.where(blocked[:, None], eye[:, :2], edge)
        turn = turn + np.pi
    pitch = -np.deg2rad(rng.uniform(*style.pitch, count))
    ahead = np.stack([np.cos(turn), np.sin(turn), np.tan(pitch)], axis=1)
    return eye, eye + ahead


def _linger(rng: Rng, room: Room, style: Style, count: int) -> tuple[Array, Array]:
    """Looks at one thing for a while: a piece of furniture, a blank wall, the floor."""
    eye = _stand(rng, room, style)
    kind = rng.random()
    if kind < 0.66 and len(room.sights):
        target = room.sights[rng.integers(len(room.sights))]
        away = eye[:2] - target[:2]
        distance = np.hypot(*away)
        if distance > 1.8:  # step nearer, unless something tall is in the way
            nearer = target[:2] + away * (1.8 / distance)
            if not any(
                b[0] - 0.2 < nearer[0] < b[1] + 0.2 and b[2] - 0.2 < nearer[1] < b[3] + 0.2
                for b in room.tall
            ):
                eye[:2] = nearer
    elif kind < 0.86:
        yaw = rng.integers(4) * np.pi / 2 + rng.normal() * 0.2
        target = eye + np.array([np.cos(yaw), np.sin(yaw), rng.uniform(-0.3, 0.4)])
    else:
        target = eye + np.array([*rng.normal(size=2) * 0.5, -1.0])
    sway = rng.normal(size=(2, count, 3)) * 0.03
    eyes = eye + sway[0]
    eyes[:, :2] = eyes[:, :2].clip(0.25, np.array(room.size[:2]) - 0.25)
    return eyes, target + sway[1]
