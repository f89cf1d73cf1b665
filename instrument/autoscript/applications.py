"""Which of the microscope's application files may do for what is written: told by the words of their names."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from instrument.errors import Refused
from instrument.settings import Beam, PatternJob

#: Files that are tried first by the shape that is milled; any other shape as a rectangle.
_FIRST_CHOICE = {
    "rectangle": ("Si", "Si new"), "cleaning-cross-section": ("Si-ccs", "Si new-ccs"),
    "regular-cross-section": ("Si-multipass", "Si new-multipass"),
}  # fmt: skip
#: How the names of files end that are for one shape only.
_ENDS_ON = {"cleaning-cross-section": "ccs", "regular-cross-section": "multipass"}
#: Words of files for the electron beam's films, as in "Pt e-dep surface".
_ELECTRON = {"e", "edep", "electron", "ebeam"}


def words(name: str) -> list[str]:
    """Return the words of a name in lower case; numbers and signs only part them."""
    return re.findall(r"[a-z]+", name.lower())


def names_gas(name: str, gas: str) -> bool:
    """Tell whether a gas stands in a name as words of their own: C is not in "Pt dep surface"."""
    return set(words(gas)) <= set(words(name))


def candidates(job: PatternJob, shape: str, listed: Sequence[str]) -> list[str]:
    """Return the files that may do for a shape of a job, likely ones first; Refused where there is none."""
    gases = job.gases if job.purpose == "deposit" else ()
    return suitable(shape, listed, beam=job.beam, gases=gases, application=job.application)


def suitable(
    shape: str, listed: Sequence[str], *, beam: Beam = Beam.ION, gases: Collection[str] = (),
    application: str | None = None,
) -> list[str]:  # fmt: skip
    """Return the listed files that may do for a shape that is milled or, with gases, laid; likely ones first.

    One that is named is taken alone. None is assumed to be there.

    Raises
    ------
    Refused : none does, or the one that is named is not listed or by its name for another shape
    """
    if application is not None:
        if application not in listed:
            raise _none(f"application file {application!r}", listed)
        if not gases and _for_another(application, shape):
            raise _none(f"application file {application!r} for a {shape}", _millings(shape, listed) or listed)
        return [application]
    found = _films(gases, beam, listed) if gases else _millings(shape, listed)
    if not found:
        what = f"film of {', '.join(gases)}" if gases else shape
        raise _none(f"an application file for a {what}", listed)
    return found


def _films(gases: Collection[str], beam: Beam, listed: Sequence[str]) -> list[str]:
    """Return the files for a film, those for its beam and with the fewest words besides first."""

    def rank(name: str) -> tuple[bool, int, int]:
        for_electrons = not _ELECTRON.isdisjoint(words(name))
        return for_electrons is not (beam is Beam.ELECTRON), len(words(name)), len(name)

    deposits = [one for one in listed if any(word in ("dep", "deposition", "edep") for word in words(one))]
    return sorted((one for one in deposits if all(names_gas(one, gas) for gas in gases)), key=rank)


def _millings(shape: str, listed: Sequence[str]) -> list[str]:
    found = [one for one in _FIRST_CHOICE.get(shape, _FIRST_CHOICE["rectangle"]) if one in listed]
    if shape in _ENDS_ON:
        found += [one for one in listed if one.lower().endswith(_ENDS_ON[shape]) and one not in found]
    return found


def _for_another(name: str, shape: str) -> bool:
    """Tell whether a file is for another shape, as its name says."""
    if shape == "regular-cross-section" and name in _FIRST_CHOICE["rectangle"]:
        return True
    return any(name.lower().endswith(end) and one != shape for one, end in _ENDS_ON.items())


def _none(what: str, listed: Sequence[str]) -> Refused:
    shown = ", ".join(listed)
    remedy = "write one of these as `application:` in the recipe, or make it on the microscope"
    msg = f"{what} is not on this microscope; it has {shown}; {remedy}"
    return Refused(msg, rule="application-file", field="application", value=what, limit=shown, remedy=remedy)
