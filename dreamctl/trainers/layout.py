"""Which files stand where in a description's folder: pictures and texts of a name, masks, regularisation pictures.

Not in the dataset's own folder: these trainers put caches beside the pictures, some walk into sub-folders, where the
dataset keeps masks, and none of them composes captions, so the texts hold identifier and category already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from dreamctl.trainers.base import Content, Copied, Item, Masked, Material, White

REGULARISATION = "regularisation"


@dataclass(frozen=True)
class Group:
    """Pictures that are repeated equally often, in a folder of their own: a trainer counts repeats by folder."""

    folder: str
    repeats: int
    items: tuple[Item, ...]
    masks: str | None = None


@dataclass
class Layout:
    """The files of a folder, and the groups that they form."""

    groups: list[Group] = field(default_factory=list)
    files: dict[str, Content] = field(default_factory=dict)


def lay_out(
    material: Material,
    default: int,
    repeats: int | None,
    extension: str,
    masks: Literal["alpha", "folder", "none"],
    reg_extension: str | None = None,
) -> Layout:
    """Place everything. `repeats` overrides what the dataset records; `default` counts where it records nothing.

    Masks become an alpha channel, or a folder of PNG files with the pictures' names, or are left out.
    """
    layout = Layout()
    found = grouped(material.items, default, repeats)
    for count, items in found.items():
        ending = f"-{count}" if len(found) > 1 else ""
        name, mask_folder = f"pictures{ending}", None
        if masks == "folder" and any(item.mask for item in items):
            mask_folder = f"masks{ending}"
            for item in items:
                layout.files[f"{mask_folder}/{item.stem}.png"] = Copied(item.mask) if item.mask else White(item.size)
        for item in items:
            _place(layout, name, item, extension, alpha=masks == "alpha")
        layout.groups.append(Group(name, count, tuple(items), mask_folder))
    for item in material.regularisation:
        _place(layout, REGULARISATION, item, reg_extension or extension, alpha=False)
    return layout


def grouped(items: Sequence[Item], default: int, repeats: int | None) -> dict[int, list[Item]]:
    """The pictures by how often an epoch repeats them."""
    recorded = any(item.repeats != 1 for item in items)
    found: dict[int, list[Item]] = {}
    for item in items:
        count = repeats or (item.repeats if recorded else default)
        found.setdefault(count, []).append(item)
    return dict(sorted(found.items()))


def dotted(extension: str) -> str:
    return extension if extension.startswith(".") else f".{extension}"


def _place(layout: Layout, folder: str, item: Item, extension: str, alpha: bool) -> None:
    if alpha and item.mask:
        layout.files[f"{folder}/{item.stem}.png"] = Masked(item.file, item.mask)
    else:
        layout.files[f"{folder}/{item.stem}{item.file.suffix.lower()}"] = Copied(item.file)
    if item.text is not None:
        layout.files[f"{folder}/{item.stem}{dotted(extension)}"] = item.text + "\n"
