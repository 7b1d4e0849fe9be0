"""The viewer: scenes in the browser, on this machine alone."""

import math
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from haskd_jax.report.clouds import hanging
from haskd_jax.report.view_source import ViewScene, legend, open_source

Array = np.ndarray

HOST = "127.0.0.1"  # never the network: the viewer asks nobody who they are
_MOST_FRAMES = 60
_THUMBNAIL = 192  # pixels, of the longer side
_CHOSEN, _OTHER = (31, 111, 214), (140, 148, 158)
_CHOSEN_CAMERAS, _ALL_CAMERAS, _NO_CAMERAS = "Chosen", "All", "None"


class Viewer:
    """Serves scenes until it is stopped.

    Args:
        path: A run folder, a prepared root, or a PLY that `haskd predict` wrote.
        port: Where to serve; the next free one if it is taken.

    Raises:
        DataError: `path` is none of these, or damaged.
        ValueError: `port` is no port.
        ImportError: viser is not installed.
    """

    def __init__(self, path: str | Path, *, port: int = 8080):
        try:
            import viser
        except ImportError as error:
            raise ImportError("the viewer needs viser: pip install viser") from error
        if not 0 < port < 65536:
            raise ValueError(f"port: {port}, must be 1 to 65535")
        self._source = open_source(path)
        self._scene = self._source.load(self._source.names[0])
        self._shown = np.zeros(0, bool)
        self._origin = np.zeros(3)
        self._server = viser.ViserServer(host=HOST, port=port, label="haskd view", verbose=False)
        try:
            _keep_private(self._server)
            self._server.scene.set_up_direction("+z")
            self._add_controls()
            self._show_scene()
            self._server.on_client_connect(self._look_at_room)
        except BaseException:
            self._server.stop()
            raise

    @property
    def port(self) -> int:
        """Where it serves."""
        return self._server.get_port()

    @property
    def url(self) -> str:
        """What to open in a browser."""
        return f"http://{HOST}:{self.port}"

    def stop(self) -> None:
        """Stops serving."""
        self._server.stop()

    def __enter__(self) -> "Viewer":
        """The viewer itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stops serving."""
        self.stop()

    def _add_controls(self) -> None:
        gui = self._server.gui
        gui.add_markdown(f"`{self._source.title}`")
        names = self._source.names
        self._name = gui.add_dropdown("Scene", names, initial_value=names[0])
        layers = tuple(self._scene.layers)
        self._layer = gui.add_dropdown("Show", layers, initial_value=layers[0])
        self._ceiling = gui.add_checkbox("Hide the ceiling", initial_value=True)
        self._size = gui.add_slider("Point size, mm", 2.0, 80.0, 1.0, initial_value=20.0)
        self._cameras = gui.add_dropdown(
            "Cameras", (_CHOSEN_CAMERAS, _ALL_CAMERAS, _NO_CAMERAS), initial_value=_CHOSEN_CAMERAS
        )
        self._note = gui.add_markdown("")
        if self._source.classes:
            with gui.add_folder("Classes"):
                gui.add_html(_legend_html(self._source.classes))
        self._name.on_update(lambda _: self._change_scene())
        self._layer.on_update(lambda _: self._colour())
        self._ceiling.on_update(lambda _: self._show_cloud())
        self._size.on_update(lambda _: self._resize())
        self._cameras.on_update(lambda _: self._show_cameras())

    def _change_scene(self) -> None:
        self._scene = self._source.load(self._name.value)
        kept, layers = self._layer.value, tuple(self._scene.layers)
        self._layer.options = layers
        self._layer.value = kept if kept in layers else layers[0]  # type: ignore[misc]
        self._show_scene()
        for client in self._server.get_clients().values():
            self._look_at_room(client)

    def _show_scene(self) -> None:
        low, high = self._scene.points.min(axis=0), self._scene.points.max(axis=0)
        self._origin = np.array([*((low + high) / 2)[:2], low[2]], np.float64)
        frames = len(self._scene.frames)
        self._note.content = f"{len(self._scene.points):,} points, {frames} frames"
        self._show_cloud()
        self._show_cameras()

    def _show_cloud(self) -> None:
        hidden = np.zeros(len(self._scene.points), bool)
        if self._ceiling.value:
            hidden = hanging(self._scene.points, self._scene.normals)
        self._shown = ~hidden
        self._cloud = self._server.scene.add_point_cloud(
            "/cloud",
            points=(self._scene.points[self._shown] - self._origin).astype(np.float32),
            colors=self._scene.layers[self._layer.value][self._shown],
            point_size=self._size.value / 1000,
            point_shape="circle",
            precision="float32",
        )

    def _colour(self) -> None:
        layer = self._scene.layers.get(self._layer.value)
        if layer is not None and len(layer) == len(self._shown):
            self._cloud.colors = layer[self._shown]

    def _resize(self) -> None:
        self._cloud.point_size = self._size.value / 1000

    def _show_cameras(self) -> None:
        self._server.scene.remove_by_name("/cameras")
        for index in shown_frames(self._scene, self._cameras.value):
            self._add_camera(index)

    def _add_camera(self, index: int) -> None:
        import viser.transforms as vtf

        frames = self._scene.frames
        image = np.asarray(frames.colour[index])
        height, width = image.shape[:2]
        pose = np.asarray(frames.camera_to_world[index], np.float64)
        focal = float(frames.intrinsics[index][1, 1])
        stride = max(math.ceil(max(height, width) / _THUMBNAIL), 1)
        chosen = index in self._scene.chosen
        frustum = self._server.scene.add_camera_frustum(
            f"/cameras/{index}",
            fov=2 * math.atan(height / 2 / focal),
            aspect=width / height,
            scale=0.22 if chosen else 0.14,
            color=_CHOSEN if chosen else _OTHER,
            image=np.ascontiguousarray(image[::stride, ::stride]),
            wxyz=vtf.SO3.from_matrix(pose[:3, :3]).wxyz,
            position=pose[:3, 3] - self._origin,
        )

        @frustum.on_click
        def look_through(event: Any) -> None:
            event.client.camera.wxyz = frustum.wxyz
            event.client.camera.position = frustum.position

    def _look_at_room(self, client: Any) -> None:
        reach = float(np.ptp(self._scene.points, axis=0).max())
        client.camera.position = np.array([0.55, -0.55, 0.65]) * reach
        client.camera.look_at = np.array([0.0, 0.0, 0.15 * reach])


def _keep_private(server: Any) -> None:
    """Takes away viser's sharing, which would carry the scans through a server elsewhere."""
    server.gui.configure_theme(show_share_button=False)
    server.request_share_url = lambda verbose=True: None


def shown_frames(scene: ViewScene, which: str) -> tuple[int, ...]:
    """The frames whose cameras are drawn.

    Args:
        scene: The scene.
        which: "Chosen" (all, where none were chosen), "All" or "None".

    Returns:
        Their indices; of very many every n-th, and the chosen ones.
    """
    if which == _NO_CAMERAS:
        return ()
    if which == _CHOSEN_CAMERAS and scene.chosen:
        return tuple(index for index in scene.chosen if index < len(scene.frames))
    count = len(scene.frames)
    every = range(0, count, max(math.ceil(count / _MOST_FRAMES), 1))
    return tuple(sorted({*every, *(index for index in scene.chosen if index < count)}))


def _legend_html(classes: tuple[str, ...]) -> str:
    rows = "".join(
        f'<div><span style="display:inline-block;width:0.9em;height:0.9em;margin-right:0.6em;'
        f'border-radius:3px;background:rgb({r},{g},{b})"></span>{escape(name)}</div>'
        for name, (r, g, b) in legend(classes)
    )
    return f'<div style="padding:0.3em 1em;font-size:0.85em;line-height:1.6">{rows}</div>'
