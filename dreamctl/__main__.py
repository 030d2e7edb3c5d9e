"""`python -m dreamctl`: the same program as the console script."""

from dreamctl.cli.app import main

if __name__ == "__main__":
    raise SystemExit(main())
