"""Where on a sample a night works, as a person taught it: kept by name, so that a recipe can say `site: edge-A`.

A site holds for one instrument and one mounting of the sample. It lies in a folder of its name with the pictures that
it was taught on.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from math import degrees, pi
from pathlib import Path

from pydantic import ValidationError

from instrument import durable
from instrument.errors import BadData, Refused
from instrument.geometry import Pose, Site
from instrument.guard_rules import apart
from instrument.settings import Description, Model
from workflows.layout import Layout
from workflows.recipe import Recipe
from workflows.rehearse import poses_of

#: A pose counts as rehearsed within this angle (rad): sites are taught anew a little turned.
_SAME_RAD = 0.5 * pi / 180


class TaughtSite(Model):
    """A place on a sample: its name, the instrument's serial number, when it was taught, and how well.

    `marks` are the (x, z) (m, block frame) of an existing block's fiducial and its spare. `edge_off_rad` and `apart_m`:
    what was left of the edge's turn and between the beams' pictures of the place. `axis_left_m`: how far from where it
    was foreseen the place stood when the stage was last turned about its measured axis (m), None as long as that was
    not measured. `rehearsed` are the poses that a person has seen the stage take with this sample.
    """

    name: str
    serial: str
    taught: str
    site: Site
    marks: tuple[tuple[float, float], ...] = ()
    edge_off_rad: float
    apart_m: float
    axis_left_m: float | None = None
    rehearsed: tuple[Pose, ...] = ()

    def knows(self, pose: Pose) -> bool:
        """Tell whether a pose was rehearsed here."""
        return any(_same(pose, seen) for seen in self.rehearsed)

    def with_poses(self, poses: Iterable[Pose]) -> TaughtSite:
        """Return the site with more poses rehearsed."""
        return self.replace(rehearsed=(*self.rehearsed, *(pose for pose in poses if not self.knows(pose))))


def folder() -> Path:
    """Return where sites are kept: KINTSUGI_SITES, else the user's own folder of the program."""
    from platformdirs import user_state_path

    given = os.environ.get("KINTSUGI_SITES")
    return Path(given) if given else user_state_path("kintsugi") / "sites"


def path_of(name: str) -> Path:
    """Return the file of a site. Refused for a name that is no plain file name."""
    if not name or name in (".", "..") or any(letter in name for letter in '/\\:*?"<>|') or name != name.strip():
        msg = f"{name!r} can't be a site's name; use letters, digits and dashes, as edge-A"
        raise Refused(msg, rule="site-name", field="site", value=name, remedy="use letters, digits and dashes")
    return folder() / name / "site.json"


def load(name: str) -> TaughtSite | None:
    """Return a site, None where none of this name was taught. BadData when its file can't be read."""
    path = path_of(name)
    if not path.is_file():
        return None
    try:
        return TaughtSite.model_validate_json(path.read_bytes())
    except ValidationError as error:
        msg = f"{path} is no site of this version; teach it again with `{_command(name)}`"
        raise BadData(msg, path=str(path)) from error


def save(site: TaughtSite) -> Path:
    """Keep a site durably; return its file."""
    path = path_of(site.name)
    durable.make_dir(path.parent)
    durable.atomic_write_json(path, site.model_dump(mode="json"))
    return path


def taught_for(recipe: Recipe, description: Description) -> TaughtSite | None:
    """Return the site that a recipe names, None where it was not taught on this instrument.

    Raises
    ------
    Refused : it was taught on another stub or, where the instrument is real, on another instrument
    """
    name = recipe.place
    taught = None if name == "auto" else load(name)
    teach = _command(name)
    if taught is not None and taught.serial != description.serial:
        if not description.virtual:
            msg = f"site {name!r} was taught on instrument {taught.serial}, and this is {description.serial}"
            raise Refused(
                msg, rule="site-of-this-instrument", field="site", value=taught.serial, limit=description.serial,
                remedy=teach,
            )  # fmt: skip
        taught = None
    if taught is not None and abs(taught.site.pretilt - recipe.sample.pretilt) > _SAME_RAD:
        here, wanted = degrees(taught.site.pretilt), degrees(recipe.sample.pretilt)
        msg = (
            f"site {name!r} was taught on a stub of {here:g} deg pre-tilt, and the recipe's sample.pretilt is "
            f"{wanted:g} deg; write the stub's own, or teach the site again with `{teach}`"
        )
        raise Refused(msg, rule="site-pretilt", field="sample.pretilt", value=wanted, limit=here, remedy=teach)
    return taught


def site_for(recipe: Recipe, description: Description) -> TaughtSite | None:
    """Return the site that a recipe works on, None where a virtual microscope has none of that name.

    Raises
    ------
    Refused : what `taught_for` refuses; the marks of a block that is to be adopted were not clicked; on a real
        instrument also a site that was never taught, poses of the recipe that nobody has rehearsed there, and a site
        whose stage's axis was not measured where the recipe turns it
    """
    taught, name = taught_for(recipe, description), recipe.place
    teach = _command(name)
    if recipe.adopt is not None and recipe.adopt.made is None and not (taught is not None and taught.marks):
        msg = (
            f"site {name!r}: nobody has clicked the fiducial of the block that is to be adopted; "
            f"teach it with `{teach} --marks 1`, or name the run that made it with `run: DIR`"
        )
        raise Refused(msg, rule="marks-clicked", field="adopt.site", value=name, remedy=f"{teach} --marks 1")
    if description.virtual:
        return taught
    if taught is None:
        msg = f"site {name!r} was never taught on this computer ({folder()}); teach it with `{teach}`"
        raise Refused(msg, rule="site-taught", field="site", value=name, remedy=teach)
    poses = poses_of(Layout.at(recipe, taught.site))
    for pose in poses:
        if not taught.knows(pose):
            msg = (
                f"nobody has seen the stage at R {degrees(pose.r):.2f} deg, T {degrees(pose.t):.2f} deg ({pose.name}) "
                f"on site {name!r}; `kintsugi rehearse RECIPE` drives there with a person watching"
            )
            raise Refused(
                msg, rule="poses-rehearsed", field="site", value=str(pose.name), remedy="kintsugi rehearse RECIPE"
            )
    if taught.axis_left_m is None and any(apart(pose.r, poses[0].r) > _SAME_RAD for pose in poses):
        msg = (
            f"site {name!r} was rehearsed before the axis was measured that its stage turns about, and the recipe "
            "turns it: the place would be lost; `kintsugi rehearse RECIPE` measures it with a person watching"
        )
        raise Refused(
            msg, rule="axis-measured", field="site.axis", value="not measured", limit="measured on this site",
            remedy="kintsugi rehearse RECIPE",
        )  # fmt: skip
    return taught


def layout_for(recipe: Recipe, taught: TaughtSite | None) -> Layout:
    """Return the layout of a recipe on a site; without one, in the middle of a virtual holder."""
    return Layout.at(recipe, None) if taught is None else Layout.at(recipe, taught.site, taught.marks)


def _command(name: str) -> str:
    """Return what teaches a site."""
    return f"kintsugi site {name} --recipe RECIPE"


def _same(one: Pose, other: Pose) -> bool:
    return apart(one.r, other.r) <= _SAME_RAD and abs(one.t - other.t) <= _SAME_RAD
