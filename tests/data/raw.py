"""Writes small scans in the raw formats, as the datasets' own tools would."""

import errno
import io
import json
import os
import signal
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from haskd_jax.data import Cloud

ROOM = np.array([4.0, 3.0, 2.5])  # a room with a corner at the origin, z up


def paint(points):
    """The colour of the room's surface at each point: smooth, and different everywhere."""
    phase = points @ np.array([[1.7, 0.6, 1.1], [0.4, 2.1, -0.9], [-1.3, 0.8, 1.9]])
    return np.rint(127.5 + 110 * np.sin(phase)).astype(np.uint8)


def room_cloud(count=4000, seed=0):
    """Points on the six sides of the room, [count, 3] float32, and which side each is on."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, ROOM, (count, 3))
    side = rng.integers(0, 6, count)
    rows = np.arange(count)
    points[rows, side // 2] = np.where(side % 2, ROOM[side // 2], 0)
    return points.astype(np.float32), side


def camera(position, target, up=(0.0, 0.0, 1.0)):
    """Camera-to-world, [4, 4]: x right, y down, z toward the target."""
    forward = np.subtract(target, position)
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    pose[:3, 3] = position
    return pose


def intrinsics(size, focal=0.8):
    """The camera matrix of an image of `size` (width, height)."""
    width, height = size
    return np.array(
        [[focal * width, 0, width / 2 - 0.5], [0, focal * width, height / 2 - 0.5], [0, 0, 1]]
    )


def render(pose, k, size):
    """What a camera in the room sees: [H, W, 3] uint8 colour and [H, W] float64 metres."""
    column, row = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    ray = np.stack([(column - k[0, 2]) / k[0, 0], (row - k[1, 2]) / k[1, 1], np.ones(column.shape)])
    ray = np.einsum("ij,jhw->hwi", pose[:3, :3], ray)
    wall = np.where(ray > 0, ROOM, 0.0)
    with np.errstate(divide="ignore"):
        depth = ((wall - pose[:3, 3]) / np.where(ray == 0, 1e-12, ray)).min(axis=-1)
    return paint(pose[:3, 3] + ray * depth[..., None]), depth


def walk(count):
    """Poses of a slow turn in the room."""
    angle = np.linspace(0, 1.2, count)
    eye = np.array([1.5, 1.2, 1.3])
    ahead = np.stack([np.cos(angle), np.sin(angle), np.full(count, -0.2)], axis=1)
    side = angle[:, None] * np.array([0.2, 0, 0])
    return np.stack([camera(eye + s, eye + a) for s, a in zip(side, ahead, strict=True)])


def encode(image, kind):
    """An image as the bytes of a file."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, kind, **({"quality": 95} if kind == "jpeg" else {}))
    return stream.getvalue()


def write_ply(path, columns, faces=None, layout="binary"):
    """Writes vertices (name -> array) and faces (lists of corners)."""
    kinds = {"f4": "float", "f8": "double", "u1": "uchar", "i4": "int", "u2": "ushort"}
    order = ">" if layout == "big" else "<"
    words = {"ascii": "ascii", "binary": "binary_little_endian", "big": "binary_big_endian"}
    count = len(next(iter(columns.values())))
    lines = ["ply", f"format {words[layout]} 1.0", f"element vertex {count}"]
    lines += [f"property {kinds[a.dtype.str[1:]]} {name}" for name, a in columns.items()]
    if faces is not None:
        lines += [f"element face {len(faces)}", "property list uchar int vertex_indices"]
    data = ("\n".join([*lines, "end_header"]) + "\n").encode()
    if layout == "ascii":
        for row in zip(*columns.values(), strict=True):
            data += (" ".join(repr(v.item()) for v in row) + "\n").encode()
        for face in faces or []:
            data += (" ".join(map(str, [len(face), *face])) + "\n").encode()
    else:
        fields = [(name, a.dtype.newbyteorder(order)) for name, a in columns.items()]
        table = np.empty(count, fields)
        for name, array in columns.items():
            table[name] = array
        data += table.tobytes()
        for face in faces or []:
            data += struct.pack(f"{order}B{len(face)}i", len(face), *face)
    path.write_bytes(data)


def vertices(points, **more):
    """The columns of a coloured PLY."""
    colour = paint(points.astype(np.float64))
    columns = {name: points[:, i].astype(np.float32) for i, name in enumerate("xyz")}
    columns |= {name: colour[:, i] for i, name in enumerate(("red", "green", "blue"))}
    return columns | more


def write_sens(
    path,
    poses,
    *,
    colour_size=(64, 48),
    depth_size=(32, 24),
    colour_kind=2,
    depth_kind=1,
    extrinsic=None,
    announced=None,
):
    """Writes a `.sens` of the room; returns the colours and depths (uint16 mm) that went in."""
    colour_k, depth_k = intrinsics(colour_size), intrinsics(depth_size)
    matrices = [np.eye(4) for _ in range(4)]
    matrices[0][:3, :3], matrices[2][:3, :3] = colour_k, depth_k
    if extrinsic is not None:
        matrices[1] = extrinsic
    data = struct.pack("<IQ", 4, 9) + b"StructIO!"
    data += b"".join(m.astype("<f4").tobytes() for m in matrices)
    data += struct.pack("<ii4If", colour_kind, depth_kind, *colour_size, *depth_size, 1000.0)
    data += struct.pack("<Q", announced or len(poses))
    colours, depths = [], []
    for i, pose in enumerate(poses):
        seen = pose if np.isfinite(pose).all() else np.eye(4)
        colour, _ = render(seen, colour_k, colour_size)
        depth = np.rint(render(seen, depth_k, depth_size)[1] * 1000).astype(np.uint16)
        kind = (None, "png", "jpeg")[colour_kind]
        first = encode(colour, kind) if kind else colour.tobytes()
        second = zlib.compress(depth.tobytes()) if depth_kind == 1 else depth.tobytes()
        data += pose.astype("<f4").tobytes()
        data += struct.pack("<4Q", i, i, len(first), len(second)) + first + second
        colours.append(colour)
        depths.append(depth)
    data += struct.pack("<Q", 0)  # no records of the inertial sensor
    path.write_bytes(data)
    return colours, depths


def write_frames(folder, poses, *, size=(64, 48), depth_size=None, k=None, unit=1000.0, names=None):
    """Writes a sequence as ScanNet's exporter does: color/ depth/ pose/ intrinsic/."""
    depth_size = depth_size or size
    for part in ("color", "depth", "pose", "intrinsic"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    wide = np.eye(4)
    wide[:3, :3] = intrinsics(size) if k is None else k
    np.savetxt(folder / "intrinsic" / "intrinsic_color.txt", wide)
    for i, pose in enumerate(poses):
        name = names[i] if names else str(i)
        seen = pose if np.isfinite(pose).all() else np.eye(4)
        colour, _ = render(seen, intrinsics(size), size)
        _, depth = render(seen, intrinsics(depth_size), depth_size)
        Image.fromarray(colour).save(folder / "color" / f"{name}.png")
        Image.fromarray(np.rint(depth * unit).astype(np.uint16)).save(
            folder / "depth" / f"{name}.png"
        )
        np.savetxt(folder / "pose" / f"{name}.txt", pose)


NYU40_OF_SIDE = np.array([1, 8, 1, 9, 2, 22])  # wall, door, wall, window, floor, ceiling (ignored)
CLASS_OF_SIDE = np.array([0, 7, 0, 8, 1, -1])


def write_scan(root, name, *, frames=6, count=4000, labels="ply", sens=True, faces=None, **options):
    """Writes one scan of ScanNet; returns points and sides."""
    folder = root / name
    folder.mkdir(parents=True)
    points, side = room_cloud(count)
    write_ply(folder / f"{name}_vh_clean_2.ply", vertices(points), faces)
    nyu40 = NYU40_OF_SIDE[side].astype(np.uint16)
    if labels == "ply":
        write_ply(folder / f"{name}_vh_clean_2.labels.ply", vertices(points, label=nyu40))
    elif labels == "segs":
        segs = {"segIndices": (10 * side).tolist()}
        (folder / f"{name}_vh_clean_2.0.010000.segs.json").write_text(json.dumps(segs))
        words = ["wall", "office door", "wall", "window", "floor"]
        groups = [
            {"objectId": i, "segments": [10 * i], "label": word} for i, word in enumerate(words)
        ]
        (folder / f"{name}.aggregation.json").write_text(json.dumps({"segGroups": groups}))
        ids = {"wall": 1, "office door": 8, "window": 9, "floor": 2}
        table = "id\traw_category\tnyu40id\n"
        table += "".join(f"{i}\t{word}\t{nyu}\n" for i, (word, nyu) in enumerate(ids.items()))
        (root / "scannetv2-labels.combined.tsv").write_text(table)
    if sens:
        write_sens(folder / f"{name}.sens", walk(frames), **options)
    return points, side


def write_split(root, split, names):
    """Writes a split list."""
    (root / f"scannetv2_{split}.txt").write_text("".join(f"{name}\n" for name in names))


def object_lines(count, seed, low=(0.0, 0, 0), high=(2.0, 1, 1)):
    """Lines `x y z r g b` of one S3DIS object."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(low, high, (count, 3))
    colour = rng.integers(0, 256, (count, 3))
    return [b"%.3f %.3f %.3f %d %d %d" % (*p, *c) for p, c in zip(points, colour, strict=True)]


def write_room(root, area, room, objects, *, aligned=False):
    """Writes an S3DIS room; `objects` maps `<class>_<n>` to lines."""
    folder = root / area / room / "Annotations"
    folder.mkdir(parents=True)
    for name, lines in objects.items():
        (folder / f"{name}.txt").write_bytes(b"\n".join(lines) + b"\n")
    if not aligned:
        text = f"## Global alignment angle per disjoint space in {area} ##\n{room} 90\n"
        (root / area / f"{area}_alignmentAngle.txt").write_text(text)
    return folder


def write_pcd(path, fields, layout="binary"):
    """Writes a PCD 0.7; `fields` maps names to [N] arrays."""
    kinds = {"f": "F", "u": "U", "i": "I"}
    arrays = list(fields.values())
    count = len(arrays[0])
    header = [
        "# .PCD v0.7 - Point Cloud Data file format",
        "VERSION 0.7",
        f"FIELDS {' '.join(fields)}",
        f"SIZE {' '.join(str(a.itemsize) for a in arrays)}",
        f"TYPE {' '.join(kinds[a.dtype.kind] for a in arrays)}",
        f"COUNT {' '.join('1' for _ in arrays)}",
        f"WIDTH {count}",
        "HEIGHT 1",
        "VIEWPOINT 0 0 0 1 0 0 0",
        f"POINTS {count}",
        f"DATA {layout}",
    ]
    data = ("\n".join(header) + "\n").encode()
    if layout == "ascii":
        rows = zip(*arrays, strict=True)
        data += "".join(" ".join(repr(v.item()) for v in row) + "\n" for row in rows).encode()
    elif layout == "binary":
        table = np.empty(count, [(name, a.dtype) for name, a in fields.items()])
        for name, array in fields.items():
            table[name] = array
        data += table.tobytes()
    else:
        plain = b"".join(a.tobytes() for a in arrays)
        packed = lzf(plain)
        data += struct.pack("<II", len(packed), len(plain)) + packed
    path.write_bytes(data)


def lzf(data):
    """A plain LibLZF compressor: the longest match among the last 8192 bytes, by hashing three."""
    out, literals, seen, i = bytearray(), bytearray(), {}, 0

    def flush():
        for begin in range(0, len(literals), 32):
            run = literals[begin : begin + 32]
            out.append(len(run) - 1)
            out.extend(run)
        literals.clear()

    while i < len(data):
        key = data[i : i + 3]
        begin = seen.get(key, -1)
        seen[key] = i
        length = 0
        if begin >= 0 and i - begin <= 8192 and len(key) == 3:
            while (
                i + length < len(data) and length < 264 and data[begin + length] == data[i + length]
            ):
                length += 1
        if length < 3:
            literals.append(data[i])
            i += 1
            continue
        flush()
        back, extra = i - begin - 1, length - 2
        if extra < 7:
            out.append(extra << 5 | back >> 8)
        else:
            out += bytes([7 << 5 | back >> 8, extra - 7])
        out.append(back & 255)
        i += length
    flush()
    return bytes(out)


def tree(root: Path):
    """Every file under a folder with its bytes, but for the lock."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


@dataclass(frozen=True)
class Reader:
    """Scenes that do what their name says."""

    names: tuple[str, ...]
    dataset: ClassVar[str] = "test"
    classes: ClassVar[tuple[str, ...]] = ()

    def scenes(self):
        return dict.fromkeys(self.names, "train")

    def recipe(self, name):
        return {}

    def read(self, name, writer):
        writer.add_cloud(Cloud(points=room_cloud(100)[0]))
        if name == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if name == "hungry":
            raise MemoryError
        if name == "odd":
            raise IndexError("7")
        if name == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
