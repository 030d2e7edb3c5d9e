"""All captions of a dataset in one file, opened in the user's editor; what changed is written back."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from dreamctl.context import Context
from dreamctl.domain.captions import with_trigger, without_trigger
from dreamctl.domain.dataset import captions_digest
from dreamctl.errors import DreamctlError, InvalidInput, did_you_mean
from dreamctl.files import os_reason, write_text
from dreamctl.staging import Stage
from dreamctl.workflows.caption import CaptionReport, report
from dreamctl.workflows.datasets import chosen_dataset, locked_dataset
from dreamctl.workflows.overwriting import keep_before

FILE = "captions-to-edit.txt"
_STDERR = 2  # off a terminal stdout is for the result alone
_HEADER = re.compile(r"==+\s*(?P<name>.*?)\s*=*\s*")
_STATE = re.compile(r"# state (\w+)")
_INTRODUCTION = """\
# The captions of {folder}
#
# A line "== FILE ==" begins the caption of a picture; it reaches to the next such line. Change, save, close the editor.
# An emptied caption is removed. A picture that is deleted from here keeps its caption. These lines may go.
{trigger}# state {state}
"""
_TRIGGER = "# The trigger {trigger!r} is not shown: it is put first in every caption.\n"


def edit_captions(context: Context, dataset: Path | None, terminal: bool) -> CaptionReport:
    """Open one file with all captions in $VISUAL or $EDITOR, check it whole, then write back what changed.

    `terminal`: a person sits at one, so that vi or nano may be opened where no editor is set. Where the file cannot be
    read back it stays, the error says where and which line, and the next --edit opens it again. Replaced captions are
    kept as --overwrite keeps them.
    """
    command = _editor(terminal)
    folder = chosen_dataset(context, dataset)
    with locked_dataset(context, folder.path):
        Stage(folder.path).recover()
        manifest = folder.manifest()
        folder.pictures()
        before = folder.captions()
        texts = {file: without_trigger(text, manifest.trigger) for file, text in before.items()}
        file = folder.path / FILE
        _open_file(context, file, texts, manifest.trigger)
        _run(command, file, terminal)
        changed = {name: text for name, text in _read(file, texts).items() if text != texts[name]}
        kept = keep_before(folder, {name: texts[name] for name in changed})
        for name, text in changed.items():
            folder.write_caption(name, with_trigger(text, manifest.trigger) if text else "")
        file.unlink()
        return report(context, folder, before, None, kept)


def written(folder: str, captions: Mapping[str, str], trigger: str | None = None) -> str:
    """The file that people edit."""
    hidden = _TRIGGER.format(trigger=trigger) if trigger else ""
    parts = [_INTRODUCTION.format(folder=folder, trigger=hidden, state=captions_digest(captions)[:16])]
    for name, text in captions.items():
        lines = ("\\" + line if line.startswith(("==", "\\")) else line for line in text.splitlines())
        parts.append("\n".join([f"== {name} ==", *lines, ""]))
    return "\n".join(parts)


def read_back(text: str, names: Mapping[str, str], where: str) -> dict[str, str]:
    """The captions in an edited file, by picture. Raises InvalidInput that names every line it cannot understand."""
    found: dict[str, list[str]] = {}
    lines_of: dict[str, int] = {}
    problems: list[str] = []
    name: str | None = None
    for number, line in enumerate(text.lstrip("\ufeff").splitlines(), 1):
        header = _HEADER.fullmatch(line.rstrip())
        if header:
            name = header["name"]
            if name not in names:
                problems.append(f"line {number}: no picture is named {name!r} ({did_you_mean(name, names)})")
            elif name in found:
                problems.append(f"line {number}: {name} stands at line {lines_of[name]} already")
            else:
                lines_of[name] = number
            found.setdefault(name, [])
        elif name is not None:
            found[name].append(line.removeprefix("\\"))
        elif line.strip() and not line.startswith("#"):
            problems.append(f"line {number}: {line.strip()[:40]!r} stands before the first picture")
    if problems:
        raise InvalidInput(
            f"{where}: {'; '.join(problems)}", hint="nothing was written: correct it with `dreamctl caption --edit`"
        )
    return {name: "\n".join(line.rstrip() for line in lines).strip() for name, lines in found.items()}


def _editor(terminal: bool) -> list[str]:
    """The editor's command. Raises InvalidInput where there is none."""
    for variable in ("VISUAL", "EDITOR"):
        if value := os.environ.get(variable, "").strip():
            try:
                words = shlex.split(value)
            except ValueError as error:
                raise InvalidInput(f"{variable} = {value!r}: {error}", field=variable) from error
            if shutil.which(words[0]) is None:
                raise InvalidInput(f"{variable} = {value!r}: there is no such program", field=variable)
            return words
    known = next((found for name in ("nano", "vi") if (found := shutil.which(name))), None) if terminal else None
    if known is None:
        raise InvalidInput(
            "there is no editor to open" if terminal else "there is no terminal to open an editor on",
            field="--edit",
            hint="set EDITOR to the program that is to change the file, or edit the .txt files beside the pictures",
        )
    return [known]


def _open_file(context: Context, file: Path, texts: Mapping[str, str], trigger: str | None) -> None:
    """Write the file, unless an earlier edit left one with the same captions behind it."""
    if file.exists():
        state = _STATE.search(file.read_text(encoding="utf-8", errors="replace"))
        if not state or not captions_digest(texts).startswith(state[1]):
            raise InvalidInput(
                f"{file} is left from an earlier --edit, and the captions have changed since",
                hint="take out of it what you need, then delete it",
            )
        context.reporter.note(f"{file} is left from an earlier --edit: it is opened again")
        return
    write_text(file, written(str(file.parent), texts, trigger))


def _run(command: list[str], file: Path, terminal: bool) -> None:
    """Let the user edit. Raises DreamctlError where the editor fails; the file goes where nothing in it was changed."""
    untouched = file.read_bytes()
    try:
        with _its_own_interrupts() if terminal else contextlib.nullcontext():
            code = subprocess.run([*command, str(file)], stdout=None if terminal else _STDERR, check=False).returncode
        reason = f"ended with exit code {code}" if code else ""
    except OSError as error:
        reason = f"cannot be started ({os_reason(error)})"
    if not reason:
        return
    hint = None
    if file.exists() and file.read_bytes() == untouched:
        file.unlink()
    elif file.exists():
        hint = f"what was typed is in {file}; `dreamctl caption --edit` opens it again"
    raise DreamctlError(f"the editor {command[0]} {reason}: no caption was changed", hint=hint)


@contextlib.contextmanager
def _its_own_interrupts() -> Iterator[None]:
    """Ctrl-C at the terminal reaches editor and dreamctl alike; it means the editor."""
    before = signal.signal(signal.SIGINT, lambda number, frame: None)  # unlike SIG_IGN not passed on to the editor
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _read(file: Path, texts: Mapping[str, str]) -> dict[str, str]:
    try:
        return read_back(file.read_text(encoding="utf-8"), texts, str(file))
    except FileNotFoundError:
        raise DreamctlError(f"the editor left no {file}: no caption was changed") from None
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{file} is not UTF-8 text: no caption was changed", hint="save it as UTF-8") from error
