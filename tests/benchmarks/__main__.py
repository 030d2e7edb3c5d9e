"""`python -m tests.benchmarks [NAME…]`: run all benchmarks or the named ones; exit 1 where a goal is missed."""

from __future__ import annotations

import importlib
import sys

from tests.benchmarks.rows import publish

NAMES = ("startup", "prepare", "upload", "status", "demo", "likeness")


def main(names: list[str]) -> int:
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        print(f"no benchmark named {', '.join(unknown)}; known: {', '.join(NAMES)}", file=sys.stderr)
        return 2
    held = True
    for name in names or NAMES:
        rows = importlib.import_module(f"tests.benchmarks.{name}").run()
        publish(name, rows)
        held = held and all(row.held for row in rows)
    return 0 if held else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
