"""Where everything of a recipe lies on the block, and how each beam sees it from each pose.

Block frame (m): x across the face, y down it, z into the block. Field positions are `instrument.geometry`'s.
The stage is moved for a pose only, never for a slice: planes are reached by pattern, picture centre and focus.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from instrument.geometry import Pose, PoseName, Site, View, holder_point, pose, stage_for
from instrument.process import spot
from instrument.settings import Beam, CleaningCrossSection, Line, Rectangle, StagePosition
from workflows.recipe import Block, Fiducial, Recipe
from workflows.recipe_fields import Box
from workflows.recipe_rules import fiducial_z, last_plane

#: The ruler (night.md 1): where its lines begin beside the middle, their width and depth, m.
RULER_START_M, RULER_WIDTH_M, RULER_DEPTH_M = 2e-6, 0.4e-6, 0.6e-6
#: The lines of the mark are this share of its size wide.
MARK_WIDTH = 1 / 8
#: What a trim or a first trench begins before the bare edge, so that its ragged front goes too, m.
BEFORE_EDGE_M = 3e-6
#: Each current points elsewhere until there is a mark (night.md 13): a finer one is left this much more to take, m.
CURRENTS_OFF_M = 0.6e-6
Point = tuple[float, float, float]


@dataclass(frozen=True)
class Mark:
    """A fiducial: its centre (x, y, z; m, block), size and line width (m)."""

    centre: Point
    size: float
    line_width: float


@dataclass(frozen=True)
class Ruler:
    """The two buried lines: half their distance at z = 0, z range, rows (y) on the face in which they lie; m."""

    half_at_zero: float
    start: float
    end: float
    top: float
    bottom: float

    def half_at(self, z: float) -> float:
        """Return half the grooves' distance (m) on the plane z (m)."""
        return self.half_at_zero + z


@dataclass(frozen=True)
class FrontCut:
    """A cut towards the trimmed plane: current (A), line from and to (z, m), thickness taken (m)."""

    current: float
    start: float
    end: float
    removed: float


def front_cuts(block: Block) -> tuple[FrontCut, ...]:
    """Return the trim's cuts, one for each trench current, then the polish; each leaves the next what it rounds."""
    cuts: list[FrontCut] = []
    stands, line = 0.0, -BEFORE_EDGE_M
    for current in block.trench.currents:
        end = block.trim - 0.5 * spot(current, block.voltage) - CURRENTS_OFF_M
        if end > stands:
            cuts.append(FrontCut(current, line, end, end - stands + (CURRENTS_OFF_M if cuts else 0.0)))
            stands = line = end
    left = block.trim - stands
    cuts.append(FrontCut(block.polish.current, min(line, block.trim), block.trim, left + CURRENTS_OFF_M))
    return tuple(cuts)


class Layout:
    """A recipe's geometry on one site.

    Parameters
    ----------
    recipe, site : what is cut where; `site` says where the block's origin is on the holder
    marks : (x, z) of the fiducial and its spare on a block that somebody else made (m)
    """

    def __init__(self, recipe: Recipe, site: Site, marks: Sequence[tuple[float, float]] = ()) -> None:
        self.recipe = recipe
        self._clicked = tuple(marks)
        self.site = site
        self.pretilt = site.pretilt

    @classmethod
    def at(cls, recipe: Recipe, taught: Site | None, marks: Sequence[tuple[float, float]] = ()) -> Layout:
        """Return the layout on a taught site; without one, on a block that lies at the middle of its holder."""
        return cls(recipe, taught or Site(sx=0.0, sy=0.0, sz=0.0, pretilt=recipe.sample.pretilt), marks)

    def moved(self, dx: float, dy: float, dz: float) -> Layout:
        """Return the layout for a block that lies off by these block coordinates (m)."""
        sx, sy, sz = map(float, holder_point(self.site, np.array((dx, dy, dz))))
        return Layout(self.recipe, self.site.replace(sx=sx, sy=sy, sz=sz), self._clicked)

    # -- the block ----------------------------------------------------------------------------------------------------

    @cached_property
    def face(self) -> tuple[float, float]:
        """Width and depth along the ion beam of the face (m)."""
        return self.recipe.face or (100e-6, 100e-6)

    @property
    def trim(self) -> float:
        """The plane z (m) to which the front is trimmed and polished."""
        return self.recipe.block.trim if self.recipe.block is not None else 0.0

    @property
    def cap_height(self) -> float:
        """Height (m) of the protective cap."""
        protect = self.recipe.protect
        if protect is not None:
            return protect.thickness
        adopt = self.recipe.adopt
        return adopt.cap or 0.0 if adopt is not None else 0.0

    @property
    def starts(self) -> float:
        """The plane z (m) on which the face stands before it is sliced."""
        return self.recipe.starts

    @cached_property
    def cap(self) -> Box:
        """The cap's (x0, z0, x1, z1) on the top surface (m)."""
        protect = self.recipe.protect
        if protect is None:
            return (-self.face[0] / 2, 0.0, self.face[0] / 2, last_plane(self.recipe))
        front = protect.front(self.trim)
        return (-protect.area[0] / 2, front, protect.area[0] / 2, front + protect.area[1])

    @cached_property
    def ruler(self) -> Ruler | None:
        """The ruler, None where the recipe has none."""
        protect = self.recipe.protect
        if protect is None or protect.ruler == "none":
            return None
        x1, z0, z1 = self.cap[2], self.cap[1], self.cap[3]
        length = min(z1 - z0, x1 - RULER_START_M - 2 * RULER_WIDTH_M)
        top = -protect.thickness / 2
        depth = min(RULER_DEPTH_M, 0.5 * protect.thickness / 2)
        return Ruler(half_at_zero=RULER_START_M - z0, start=z0, end=z0 + length, top=top, bottom=top + depth)

    @cached_property
    def marks(self) -> tuple[Mark, ...]:
        """The fiducial and its spare, in the order in which they are used; on others' blocks as they were clicked."""
        block, protect, adopt = self.recipe.block, self.recipe.protect, self.recipe.adopt
        if adopt is not None and adopt.made is None:
            mark = adopt.fiducial or Fiducial()
            height = mark.cap[2] if mark.place == "behind" and mark.cap is not None else self.cap_height
            return tuple(Mark((x, -height, z), mark.size, mark.size * MARK_WIDTH) for x, z in self._clicked)
        if block is None or protect is None:
            return ()
        wanted: Fiducial = block.fiducial
        front, rear = fiducial_z(self.recipe)
        own = wanted.place == "behind" and wanted.cap is not None
        height = wanted.cap[2] if own and wanted.cap is not None else protect.thickness
        width = wanted.cap[0] if wanted.cap is not None and own else wanted.size
        offset = (width + wanted.gap) / 2 if wanted.spare else 0.0
        middles = (-offset, offset) if wanted.spare else (0.0,)
        return tuple(Mark((x, -height, (front + rear) / 2), wanted.size, wanted.size * MARK_WIDTH) for x in middles)

    @cached_property
    def image(self) -> Box:
        """The pictures' (x0, y0, x1, y1) on the face (m)."""
        slicing = self.recipe.slicing
        if slicing is not None:
            return slicing.image.box
        return (-self.face[0] / 2, 0.0, self.face[0] / 2, self.face[1])

    # -- poses --------------------------------------------------------------------------------------------------------

    def pose(self, name: PoseName, rocking: float = 0.0) -> Pose:
        """Return a pose; a rocking pose with no angle is that of a cut, and that without over-tilt the milling pose."""
        over, column = self.over_tilt, self.site.column
        if name in (PoseName.ROCK_PLUS, PoseName.ROCK_MINUS) and rocking <= 0:
            name = PoseName.CUT
        if name is PoseName.CUT and over <= 0:
            name = PoseName.MILL
        at = pose(name, self.pretilt, rocking=rocking, over_tilt=over, column=column)
        return at.replace(r=at.r + self.site.turned)

    @property
    def over_tilt(self) -> float:
        """Angle (rad) by which cuts of the face are tilted against its taper."""
        return self.recipe.block.polish.over_tilt if self.recipe.block is not None else 0.0

    def stage(self, at: Pose) -> StagePosition:
        """Return where the stage stands in a pose: one place for the whole recipe, the middle of what is cut there."""
        _, y0, _, y1 = self.image
        middle = (
            (0.0, (y0 + y1) / 2, self.trim)
            if at.name in (PoseName.FACE_ON, PoseName.DEPOSIT)
            else (0.0, 0.0, self.trim)
        )
        return stage_for(self.site, at, middle)

    def view(self, at: Pose, beam: Beam) -> View:
        """Return how a beam sees the block in a pose."""
        turned = at.ion_scan_rotation if beam is Beam.ION else at.electron_scan_rotation
        return View(self.site, beam, self.stage(at), scan_rotation=turned)

    # -- patterns -----------------------------------------------------------------------------------------------------

    def on_top(self, view: View, box: Box, depth: float, y: float = 0.0) -> Rectangle:
        """Return the rectangle over a box (x0, z0, x1, z1) of the top surface (m)."""
        x0, z0, x1, z1 = box
        return _rectangle(view.field((x0, y, z0)), view.field((x1, y, z1)), depth)

    def on_face(self, view: View, box: Box, z: float, depth: float) -> Rectangle:
        """Return the rectangle over a box (x0, y0, x1, y1) of the face at plane z (m)."""
        x0, y0, x1, y1 = box
        return _rectangle(view.field((x0, y0, z)), view.field((x1, y1, z)), depth)

    def line(self, view: View, start: Point, end: Point, width: float, depth: float) -> Line:
        """Return a groove between two block points (m)."""
        (u0, v0), (u1, v1) = view.field(start), view.field(end)
        return Line(x0_m=u0, y0_m=v0, x1_m=u1, y1_m=v1, line_width_m=width, depth_m=depth)

    def cut(self, view: View, start: float, end: float, width: float | None = None) -> CleaningCrossSection:
        """Return a cut over the face whose line goes from plane `start` to plane `end` (z, m), at the top surface."""
        u = view.field((0.0, self.face[1] / 2, start))[0]
        v0, v1 = view.field((0.0, 0.0, start))[1], view.field((0.0, 0.0, end))[1]
        return CleaningCrossSection(
            x_m=u, width_m=self.face[0] if width is None else width, start_y_m=v0, end_y_m=v1, depth_m=self.face[1]
        )

    def film(self, box: Box) -> Box:
        """Return a film's box on the face, cut off at the cap's top (m): above it there is no face."""
        return box[0], max(box[1], -self.cap_height), box[2], min(box[3], self.face[1])


def _rectangle(one: tuple[float, float], other: tuple[float, float], depth: float) -> Rectangle:
    (u0, v0), (u1, v1) = one, other
    return Rectangle(x_m=(u0 + u1) / 2, y_m=(v0 + v1) / 2, width_m=abs(u1 - u0), height_m=abs(v1 - v0), depth_m=depth)
