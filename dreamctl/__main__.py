"""The program: `dreamctl` or `python -m dreamctl`.

The processes that `prepare` starts import this file again, so it imports nothing before it is asked to run.
"""

from __future__ import annotations


def main() -> int:
    from dreamctl.cli.app import main as run

    return run()


if __name__ == "__main__":
    raise SystemExit(main())
